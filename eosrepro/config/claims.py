"""What a paper says, as claims.yaml has it: statements, and tables of the runs that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from eosrepro.config.runs import named
from eosrepro.config.statements import Bound, Claim, Statistic
from eosrepro.config.values import Exact, Section, Text, keys_of
from eosrepro.config.words import Finding, complaint, places, quoted, refusal, unknown_name
from eosrepro.config.yaml import read, unusable


def _share(raw: object) -> float:
    """`20 %` is 0.2."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", raw) if isinstance(raw, str) else None
    if not found:
        raise complaint(f"found {quoted(raw)}, should be a share such as 20 %")
    return float(found[1]) / 100


def _ends(raw: object) -> object:
    """`[0.9, ~]` is at least 0.9."""
    if isinstance(raw, list) and len(raw) == 2:
        return {key: end for key, end in zip(("min", "max"), raw, strict=True) if end is not None}
    raise complaint(f"found {quoted(raw)}, should be [lowest, highest], with ~ for an end that is open")


Ends = Annotated[Bound, BeforeValidator(_ends)]
Within = Annotated[float, PlainValidator(_share), WithJsonSchema({"type": "string"})]


class _Judged(Exact):
    bound: Ends | None = None
    """Where what is found must lie, ends included."""
    within: Within | None = None
    """Or how far from the paper's number, as a share of it; judged on the paper's data and length alone."""
    needs: Literal["published"] | None = None
    """`published`: judged on the paper's data and length alone, whatever decides."""

    @model_validator(mode="after")
    def _one_bound(self) -> _Judged:
        if self.bound is not None and self.within is not None:
            raise complaint("holds both bound and within: which of them decides?")
        return self


class Statement(Statistic, _Judged):
    """What is said of several runs: a statistic, and what it must be."""

    claim: Text
    """In words, in which {step_size} stands for that of the run."""


class About(Section, _Judged):
    """What a statement is about one run, where more than a number is to be said."""

    published: float | None = None
    """What the paper has."""


class _Block(Section):
    """A line a statement, with a number a run, or one for all of them."""

    model_config = ConfigDict(extra="allow")
    source: Text
    """Figure, experiment or theorem of the paper."""
    of: Annotated[list[Text], Field(min_length=1), BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)]
    """The runs: experiments, names, or the first part of names."""

    @property
    def lines(self) -> dict[str, Any]:
        return self.model_extra or {}

    @model_validator(mode="after")
    def _says_something(self) -> _Block:
        if not self.lines:
            raise complaint("says nothing: it should hold a statement")
        return self


class _Tables(Section):
    statements: dict[str, Statement]
    claims: Annotated[list[_Block], Field(min_length=1)]


def claims(file: Path, runs_of: Mapping[str, Sequence[str]]) -> dict[str, Claim]:
    """All claims of a file, by <run>_<statement>.

    Args:
        runs_of: experiment → the names of its runs, in order.

    Raises:
        ConfigError: the file is not valid; a line a finding.
    """
    tables, findings = _read(file), list[Finding]()
    found: dict[str, Claim] = {}
    declared = [run for own in runs_of.values() for run in own]
    for number, block in enumerate(tables.claims):
        for item in _claims(tables.statements, block, runs_of):
            if not isinstance(item, Claim):
                where, words = item
                findings.append((("claims", number, *where), words))
            elif item.beside is not None and item.beside not in declared:
                if not named([item.beside], runs_of):  # else it is a run of other values than vary now
                    words = f"there is no run {unknown_name(item.beside, declared)}"
                    findings.append((("statements", item.statement, "beside"), words))
            elif (name := f"{item.run}_{item.statement}") in found:
                findings.append((("claims", number, item.statement), f"is said of {item.run} twice"))
            else:
                found[name] = item
    if sum(where[-1] == "of" for where, _ in findings) > 1:
        remedy = "take out those about experiments that are gone; a project without claims.yaml has none to judge"
        findings.append((("claims",), remedy))
    if findings:
        raise refusal(file, findings)
    return found


def left_out(file: Path, runs_of: Mapping[str, Sequence[str]]) -> list[str]:
    """The runs that the file is about and that are not declared: those of other values than an experiment has now."""
    return sorted({name for block in _read(file).claims for name in block.of if not _runs(name, runs_of)})


def _read(file: Path) -> _Tables:
    content = read(file, keys_of(_Tables), remedy="`paper:` in params.yaml should name a folder of the project")
    if findings := [*unusable(content)]:
        raise refusal(file, findings)
    try:
        return _Tables.model_validate(content)
    except ValidationError as error:
        raise refusal(file, places(error)) from None


def _runs(name: str, runs_of: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return runs_of[name] if name in runs_of else named([run for own in runs_of.values() for run in own], [name])


def _claims(
    statements: Mapping[str, Statement], block: _Block, runs_of: Mapping[str, Sequence[str]]
) -> Iterator[Claim | Finding]:
    """Those of one block."""
    runs = {name: _runs(name, runs_of) for name in block.of}
    # What an experiment varies is the user's to change: claims about values that it has not now are left out.
    if unknown := [name for name in block.of if not runs[name] and not named([name], runs_of)]:
        known = [*dict.fromkeys([*runs_of, *(run for own in runs_of.values() for run in own)])]
        yield ("of",), f"there is no experiment and no run {unknown_name(unknown[0], known)}"
        return
    for key, line in block.lines.items():
        entries = line if isinstance(line, list) else [line] * len(block.of)
        if key not in statements:
            yield (key,), f"there is no statement {unknown_name(key, statements)}"
        elif len(entries) != len(block.of):
            yield (key,), f"holds {len(entries)} entries, and `of` {len(block.of)} names ({', '.join(block.of)})"
        else:
            for i, (name, entry) in enumerate(zip(block.of, entries, strict=True)):
                place = (key, i) if isinstance(line, list) else (key,)
                for item in _claim(key, statements[key], entry, place, source=block.source, run=name):
                    if isinstance(item, Claim):
                        yield from (item.model_copy(update={"run": run}) for run in runs[name])
                    else:
                        yield item


def _claim(
    name: str, statement: Statement, entry: Any, place: tuple[str | int, ...], *, source: str, run: str
) -> Iterator[Claim | Finding]:
    try:
        about = About.model_validate(entry if isinstance(entry, dict) else {"published": entry})
    except ValidationError as error:
        yield from (((*place, *(where if isinstance(entry, dict) else ())), words) for where, words in places(error))
        return
    decides = about if about.bound is not None or about.within is not None else statement
    bound, within = decides.bound, decides.within
    if within is not None:
        if about.published is None:
            yield place, f"holds no number of the paper, and is to be within {within:.0%} of it"
            return
        margin = within * abs(about.published)
        low, high = (float(f"{about.published + sign * margin:.10g}") for sign in (-1, 1))
        bound = Bound(min=low, max=high)
    if bound is None:
        yield place, "neither the statement nor this says `bound` or `within`"
        return
    yield Claim(
        **{key: getattr(statement, key) for key in Statistic.model_fields},
        claim=statement.claim,
        statement=name,
        source=source,
        run=run,
        bound=bound,
        published=about.published,
        needs="published" if within is not None else about.needs or statement.needs,
    )

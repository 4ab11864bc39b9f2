"""What a paper says, as claims.yaml has it: statements, and tables of the runs that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from eosrepro.config.runs import named
from eosrepro.config.statements import Bound, Claim, Statistic
from eosrepro.config.values import Exact, Section, Text, keys_of
from eosrepro.config.words import Finding, complaint, places, quoted, unknown_name
from eosrepro.config.yaml import read, unusable
from eosrepro.errors import ConfigError


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


class Statement(Statistic, _Judged):
    """What is said of several runs: a statistic, and what it must be."""

    claim: Text
    """In words, in which {step_size} stands for that of the run."""

    @model_validator(mode="after")
    def _one_bound(self) -> Statement:
        if self.bound and self.within:
            raise complaint("holds both bound and within: which of them decides?")
        return self


class About(Section, _Judged):
    """What a statement is about one run, where more than a number is to be said."""

    published: float | None = None
    """What the paper has."""


class _Tables(Section):
    statements: dict[str, Statement]
    claims: Annotated[list[dict[str, Any]], Field(min_length=1)]


def claims(file: Path, runs_of: Mapping[str, Sequence[str]]) -> dict[str, Claim]:
    """All claims of a file, by <run>_<statement>.

    Args:
        runs_of: experiment → the names of its runs, in order.

    Raises:
        ConfigError: the file is not valid; a line a finding.
    """
    content = read(file, keys_of(_Tables))
    findings: list[Finding] = [*unusable(content)]
    found: dict[str, Claim] = {}
    if not findings:
        try:
            tables = _Tables.model_validate(content)
        except ValidationError as error:
            findings = places(error)
        else:
            for number, block in enumerate(tables.claims):
                for item in _block(tables.statements, block, runs_of):
                    if isinstance(item, Claim):
                        key = f"{item.run}_{item.statement}"
                        if key in found:
                            findings.append((("claims", number), f"{item.statement} is said of {item.run} twice"))
                        found[key] = item
                    else:
                        where, words = item
                        findings.append((("claims", number, *where), words))
    if findings:
        lines = (f"{file}: {'.'.join(map(str, where))}: {words}" for where, words in findings)
        raise ConfigError("\n".join(lines))
    return found


def _block(
    statements: Mapping[str, Statement], block: Mapping[str, Any], runs_of: Mapping[str, Sequence[str]]
) -> Iterator[Claim | Finding]:
    """The claims of one block: a line a statement, a number a run."""
    lines = {key: value for key, value in block.items() if key not in ("source", "of")}
    if missing := {"source", "of"} - block.keys():
        yield (), f"has no {', '.join(sorted(missing))}"
        return
    names = [block["of"]] if isinstance(block["of"], str) else block["of"]
    runs: list[str] = []
    everything = [run for family in runs_of.values() for run in family]
    for name in names:
        about = [*runs_of.get(name, ())] or named(everything, [name])
        if not about:
            yield ("of",), f"there is no experiment and no run {unknown_name(str(name), [*runs_of, *everything])}"
        runs += about
    for key, entry in lines.items():
        if key not in statements:
            yield (key,), f"there is no statement {unknown_name(key, statements)}"
            continue
        entries = entry if isinstance(entry, list) else [entry] * len(runs)
        if len(entries) != len(runs):
            yield (key,), f"holds {len(entries)} numbers for {len(runs)} runs ({', '.join(runs)})"
            continue
        for run, each in zip(runs, entries, strict=True):
            yield _claim(key, statements[key], each, source=str(block["source"]), run=run)


def _claim(name: str, statement: Statement, entry: Any, *, source: str, run: str) -> Claim | Finding:
    try:
        about = About.model_validate(entry if isinstance(entry, dict) else {"published": entry})
        own = about.bound is not None or about.within is not None  # and not what the statement says
        within, bound = (about.within, about.bound) if own else (statement.within, statement.bound)
        if about.bound and about.within:
            raise complaint("holds both bound and within: which of them decides?")
        if within is not None:
            if about.published is None:
                raise complaint(f"holds no number of the paper, and is to be within {within:.0%} of it")
            margin = within * abs(about.published)
            low, high = (float(f"{about.published + sign * margin:.10g}") for sign in (-1, 1))
            bound = Bound(min=low, max=high)
        if bound is None:
            raise complaint("neither the statement nor this says `bound` or `within`")
        return Claim(
            **{key: getattr(statement, key) for key in Statistic.model_fields},
            claim=statement.claim,
            statement=name,
            source=source,
            run=run,
            bound=bound,
            published=about.published,
            needs=None if within is None else "published",
        )
    except ValidationError as error:
        (where, words), *_ = places(error)
        return (name, *where), words
    except PydanticCustomError as error:
        return (name,), error.message()

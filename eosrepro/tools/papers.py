"""The papers that a project can begin with, and the page of what finished projects found of them.

Beside the page, papers/<paper>.json keeps what a project found. The page is made of these files alone, so a paper is
brought up to date without the projects of the others.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosrepro.config.load import load
from eosrepro.config.params import PARAMS, Config
from eosrepro.errors import ConfigError, EosreproError, StoreError
from eosrepro.records.files import load_json, save_bytes, save_json, save_text
from eosrepro.records.places import FIGURES, VERIFY
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.recorded import recorded_runs, worded_figure
from eosrepro.tools import new
from eosrepro.verdicts.claims import Verdict, counts, from_json
from eosrepro.views.papers import (
    END,
    HEAD,
    PICTURES,
    START,
    Drawn,
    Paper,
    Reproduction,
    about,
    cells,
    first_table,
    in_order,
    page,
    with_table,
)
from eosrepro.views.pictures import reduced

PAGE = "papers.md"
AGAIN = "then the same command again"


@dataclass(frozen=True)
class Told:
    """What the command prints: a table and a line below it, or records as JSON."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    records: Sequence[Mapping[str, Any]]


def tell(folders: Sequence[Path], docs: Path | None) -> Told:
    """The papers to begin with; or what the projects in `folders` found, which is written into `docs` if that is given.

    Raises:
        EosreproError: a folder holds no finished project; a line a folder.
    """
    if not folders and docs is None:
        return _listed()
    found = reproductions(folders)
    records = [dataclasses.asdict(of) for of in found.values()]
    if docs is not None:
        note = write(found, docs)
        return Told(HEAD, _rows(*_kept(docs)), note, records)
    rows = _rows([of.paper for of in found.values()], {of.paper.name: of for of in found.values()})
    return Told(HEAD, rows, "`--write docs` makes a page of it", records)


def _rows(papers: Sequence[Paper], of: Mapping[str, Reproduction]) -> list[list[str]]:
    return [[paper.heading, *cells(paper, of.get(paper.name))] for paper in in_order(papers)]


def _listed() -> Told:
    papers = in_order([_paper(new.TEMPLATE / "papers" / name) for name in new.papers()])
    sizes = [_sizes(paper.name) for paper in papers]
    rows = [
        [paper.name, ": ".join(filter(None, [paper.heading, paper.title])), *map(str, size.values()), paper.quick]
        for paper, size in zip(papers, sizes, strict=True)
    ]
    records = [{**vars(paper), **size} for paper, size in zip(papers, sizes, strict=True)]
    note = "`eosrepro new FOLDER --paper NAME` begins with one of them"
    return Told(["name", "paper", "runs", "figures", "claims", "profile quick takes"], rows, note, records)


def _sizes(paper: str) -> dict[str, int]:
    """How many runs, figures and claims a project has that begins with the paper."""
    own = Path("papers") / paper / PARAMS
    with _inside(new.TEMPLATE):
        config = load(own if own.exists() else PARAMS)
        return {"runs": len(config.runs), "figures": len(config.figures), "claims": len(config.claims)}


def _paper(folder: Path) -> Paper:
    readme = folder / "README.md"
    return about(folder.name, readme.read_text(encoding="utf-8") if readme.exists() else "")


def reproductions(folders: Sequence[Path]) -> dict[Path, Reproduction]:
    """What finished projects found, by their folders.

    Raises:
        EosreproError: one is not finished, or two are of the same paper; a line a folder.
    """
    found: dict[Path, Reproduction] = {}
    errors: list[EosreproError] = []
    for folder in folders:
        try:
            found[folder] = reproduction(folder)
        except EosreproError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])("\n".join(map(str, errors)))
    for name, number in Counter(of.paper.name for of in found.values()).items():
        if number > 1:
            twice = [str(folder) for folder, of in found.items() if of.paper.name == name]
            raise ConfigError(f"{' and '.join(twice)} are of the same paper, {name}: name one of them")
    return found


def reproduction(folder: Path) -> Reproduction:
    """What a finished project found: its verdicts and figures as they are recorded.

    Raises:
        ConfigError: it is no project, or one of no paper.
        StoreError: it is not finished.
    """
    if not (folder / PARAMS).exists():
        raise ConfigError(f"{folder} holds no {PARAMS}: name folders of projects, as `eosrepro new` makes them")
    with _inside(folder):
        config = load()
        if config.paper is None:
            raise ConfigError(f"{PARAMS} names no `paper`")
        if not (VERIFY / "claims.json").exists():
            raise StoreError(f"there are no verdicts yet: run `dvc repro` there, {AGAIN}")
        verdicts = from_json(load_json(VERIFY / "claims.json"), VERIFY / "claims.json")
        if {verdict.id for verdict in verdicts} != config.claims.keys():
            raise StoreError(f"its verdicts are of other claims than it declares now: run `dvc repro` there, {AGAIN}")
        records = recorded_runs(config.runs.values())
        outdated.warn(config, records.values())
        sources = {verdict.source: [each for each in verdicts if each.source == verdict.source] for verdict in verdicts}
        unjudged = Counter(verdict.reason for verdict in verdicts if verdict.verdict == "not applicable")
        return Reproduction(
            paper=_paper(Path(config.paper)),
            profile=config.profile,
            data=sorted({record.origin.data for record in records.values()} - {""}),
            runs=len(records),
            counts=counts(verdicts),
            figures=[*_figures(config, records, verdicts)],
            sources={source: counts(found) for source, found in sources.items()},
            failures=[verdict for verdict in verdicts if verdict.verdict == "fails"],
            unjudged=dict(sorted(unjudged.items(), key=lambda item: (-item[1], item[0]))),
        )


def _figures(config: Config, records: Mapping[str, Record], verdicts: Sequence[Verdict]) -> Iterator[Drawn]:
    for name, figure in config.drawn.items():
        if not _picture(name).exists():
            raise StoreError(f"{_picture(name)} is not there: run `dvc repro figure@{name}` there, {AGAIN}")
        title = worded_figure(config, figure, records).options.get("title", name)
        yield Drawn(name, title, counts([verdict for verdict in verdicts if verdict.run in figure.runs]))


def _picture(figure: str) -> Path:
    return FIGURES / figure / f"{figure}.png"


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, which errors name."""
    try:
        with chdir(folder):
            yield
    except EosreproError as error:
        raise type(error)(f"{folder}: {error}") from None


def write(found: Mapping[Path, Reproduction], docs: Path) -> str:
    """Write the page, its pictures and what it is made of into `docs`, and the table into README.md beside it.

    Returns:
        What was written, for a person.
    """
    for folder, of in found.items():
        pictures = docs / PICTURES / of.paper.name
        for figure in of.figures:
            save_bytes(pictures / f"{figure.name}.png", reduced((folder / _picture(figure.name)).read_bytes()))
        for left in {*pictures.glob("*.png")} - {pictures / f"{figure.name}.png" for figure in of.figures}:
            left.unlink()  # of a figure that is no more
        save_json(docs / "papers" / f"{of.paper.name}.json", dataclasses.asdict(of))
    save_text(docs / PAGE, text(docs))
    readme = docs.parent / "README.md"
    before = readme.read_text(encoding="utf-8") if readme.exists() else ""
    after = with_table(before, table(docs, f"{docs.name}/{PAGE}"))
    if after is None:
        return f"wrote {docs / PAGE}; its table would stand in {readme} too, between lines {START} and {END}"
    save_text(readme, after)
    return f"wrote {docs / PAGE}, and its table into {readme}"


def text(docs: Path) -> str:
    """The page, of what `write` has kept in a folder and of the papers that lie beside it."""
    return page(*_kept(docs))


def table(docs: Path, at: str = "") -> str:
    """Its first table, with links to the page `at`."""
    return first_table(*_kept(docs), at)


def _kept(docs: Path) -> tuple[list[Paper], dict[str, Reproduction]]:
    found = {file.stem: _read(file) for file in sorted((docs / "papers").glob("*.json"))}
    papers = {name: of.paper for name, of in found.items()}
    beside = [_paper(file.parent) for file in sorted(docs.parent.glob("papers/*/claims.yaml"))]  # as they are now
    return [*(papers | {paper.name: paper for paper in beside}).values()], found


def _read(file: Path) -> Reproduction:
    content = load_json(file)
    try:
        return Reproduction(
            **content
            | {
                "paper": Paper(**content["paper"]),
                "figures": [Drawn(**each) for each in content["figures"]],
                "failures": [Verdict(**each) for each in content["failures"]],
            }
        )
    except (LookupError, TypeError):
        made = "`eosrepro papers FOLDER --write` makes it anew of a finished project"
        raise StoreError(f"{file} is not what this version writes: {made}") from None

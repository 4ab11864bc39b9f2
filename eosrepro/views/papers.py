"""The reading room, docs/papers.md: of each paper its figures and the verdicts on its claims, as Markdown.

It holds no time and no host name: equal results are equal pages.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eosrepro.verdicts.claims import LEGEND, Verdict
from eosrepro.views import markdown

PICTURES = "figures/papers"  # below the folder of the page: <paper>/<figure>.png
START, END = "<!-- papers -->", "<!-- /papers -->"  # around the table in README.md
JUDGED = ("hold", "fail", "not judged")

Counts = Mapping[str, int]  # by `JUDGEMENTS`


@dataclass(frozen=True)
class Paper:
    """What is reproduced."""

    name: str  # of its folder in papers/
    heading: str  # authors and year
    title: str
    arxiv: str  # its number
    quick: str  # how long profile quick takes, in words


@dataclass(frozen=True)
class Drawn:
    """A figure."""

    name: str
    title: str
    counts: Counts  # of the claims about its runs


@dataclass(frozen=True)
class Reproduction:
    """What a finished project found of a paper."""

    paper: Paper
    profile: str
    data: Sequence[str]
    runs: int
    counts: Counts
    figures: Sequence[Drawn]
    sources: Mapping[str, Counts]  # figure, experiment or theorem of the paper → of the claims about it
    failures: Sequence[Verdict]
    unjudged: Counts  # by reason


def about(name: str, readme: str) -> Paper:
    """What papers/<name>/README.md says of the paper.

    Its heading has authors and year. The block quote is the reference, with the title in italics and the number behind
    `arXiv:`. A line that begins with "Profile `quick`:" says how long that takes. What it does not say is "".
    """
    quote = " ".join(line[1:].strip() for line in readme.splitlines() if line.startswith(">"))
    return Paper(
        name=name,
        heading=_found(r"^# +(.+?) *$", readme) or name,
        title=_found(r"\*(.+?)\*", quote).rstrip("."),
        arxiv=_found(r"arXiv:(\d{4}\.\d{4,5})", quote),
        quick=_found(r"^Profile `quick`: *(.+?)\.? *$", readme),
    )


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def in_order(papers: Sequence[Paper]) -> list[Paper]:
    """By year."""
    return sorted(papers, key=lambda paper: (_found(r"\b(\d{4})\b", paper.heading), paper.name))


def cells(paper: Paper, of: Reproduction | None) -> list[str]:
    """A row of the first table, less the name of the paper."""
    if of is None:
        return [paper.title, "", "", "", "", "not made yet"]
    return [paper.title, str(len(of.figures)), *map(str, of.counts.values()), _data(of)]


HEAD = ["paper", "title", "figures", *(f"claims that {judged}" for judged in JUDGED[:2]), JUDGED[2], "data"]


def first_table(papers: Sequence[Paper], of: Mapping[str, Reproduction], page: str = "") -> str:
    """A row a paper, with a link to its section of `page`."""
    rows = [
        [f"[{paper.heading}]({page}#{_anchor(paper.heading)})", *cells(paper, of.get(paper.name))]
        for paper in in_order(papers)
    ]
    return markdown.table(HEAD, rows)


def page(papers: Sequence[Paper], of: Mapping[str, Reproduction]) -> str:
    """The page; papers that have no reproduction are named with the command that begins one."""
    sections = "\n\n".join("\n\n".join(_section(paper, of.get(paper.name))) for paper in in_order(papers))
    first = textwrap.fill(
        "Each paper that can be reproduced, and what finished projects found of it. `eosrepro papers FOLDER... --write "
        f"docs` makes this page, see [commands.md](commands.md). {LEGEND}: it is then not judged.",
        width=120,
        break_on_hyphens=False,
    )
    return f"# Papers\n\n{first}\n\n{first_table(papers, of)}\n\n{sections}\n"


def with_table(readme: str, table: str) -> str | None:
    """The same README.md with the table between its marks; None where it lacks them."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n\n{table}\n\n{end}{after}" if end else None


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _data(of: Reproduction) -> str:
    return "; ".join(of.data) or "none"


def _section(paper: Paper, of: Reproduction | None) -> Iterator[str]:
    link = f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}). " if paper.arxiv else ""
    title = f"*{paper.title}*. " if paper.title else ""
    yield f"## {paper.heading}"
    yield f"{title}{link}What it says, as tables: [papers/{paper.name}](../papers/{paper.name})."
    begin = f"`eosrepro new mine --paper {paper.name}`, `cd mine`, `dvc repro`"
    if of is None:
        yield f"Nothing is kept of it here yet. To begin with it: {begin}."
        return
    hold, fail, unjudged = of.counts.values()
    yield (
        f"Profile `{of.profile}`, {_many(of.runs, 'run')}; data: {_data(of)}. **{hold} of {sum(of.counts.values())} "
        f"claims hold**, {fail} fail and {unjudged} are not judged. To begin with it: {begin}."
    )
    rows = [[_picture(paper.name, each), each.title, *map(str, each.counts.values())] for each in of.figures]
    if rows:
        yield f"Figures, and the claims about their runs:\n\n{markdown.table(['figure', '', *JUDGED], rows)}"
    rows = [[source, *map(str, counts.values())] for source, counts in of.sources.items()]
    if rows:
        yield f"Claims by their source in the paper:\n\n{markdown.table(['source', *JUDGED], rows)}"
    rows = [_failure(verdict) for verdict in of.failures]
    if rows:
        head = ["claim", "source", "run", "measured", "bound", "published", "basis"]
        yield f"Claims that fail:\n\n{markdown.table(head, rows)}"
    rows = [[reason, str(number)] for reason, number in of.unjudged.items()]
    if rows:
        yield f"Why claims are not judged:\n\n{markdown.table(['reason', 'claims'], rows)}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _picture(paper: str, figure: Drawn) -> str:
    file = f"{PICTURES}/{paper}/{figure.name}.png"
    return f'[<img src="{file}" width="320" alt="{figure.name}">]({file})'


def _failure(verdict: Verdict) -> list[str]:
    return [
        verdict.claim,
        verdict.source,
        f"`{verdict.run}`",
        markdown.number(verdict.measured),
        markdown.bound(verdict),
        markdown.number(verdict.published),
        verdict.reason,
    ]

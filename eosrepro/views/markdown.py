"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

from eosrepro.records.later import pandas as pd
from eosrepro.verdicts.characteristics import HEAD, MEASURES
from eosrepro.verdicts.claims import JUDGEMENTS, LEGEND, Verdict, counts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table, without a line break at the end."""
    return "\n".join(map(_line, [head, ["---"] * len(head), *rows]))


def number(value: float | None) -> str:
    """Four digits, all of a whole number, or nothing where there is no number."""
    if value is None or isnan(value):
        return ""
    return f"{value:,.0f}" if value % 1 == 0 or abs(value) >= 1e4 else f"{value:.4g}"


def _line(cells: Sequence[str]) -> str:
    # A bar or a line break inside a cell would end it.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def bound(verdict: Verdict) -> str:
    """The values that bear the claim out, in words."""
    if verdict.low is not None and verdict.high is not None:
        return f"{number(verdict.low)} to {number(verdict.high)}"
    return f"≥ {number(verdict.low)}" if verdict.high is None else f"≤ {number(verdict.high)}"


def difference(verdict: Verdict) -> str:
    """How far the measured number is from the published one, in words."""
    return "" if verdict.difference is None else f"{verdict.difference:+.1%}"


def claims_page(verdicts: Sequence[Verdict], *, about: str) -> str:
    """A table of all verdicts, one row a claim, below their numbers by source. A claim that failed stands out.

    Args:
        verdicts: in the order of their rows.
        about: a sentence without its point, of the data that they are about.
    """
    summary = ", ".join(f"{found} {kind}" for kind, found in counts(verdicts).items())
    head = ["verdict", "claim", "source", "run", "measured", "bound", "published", "difference", "basis"]
    rows = [
        [
            f"**{verdict.verdict}**" if verdict.verdict == "fails" else verdict.verdict,
            verdict.claim,
            verdict.source,
            f"`{verdict.run}`",
            number(verdict.measured),
            bound(verdict),
            number(verdict.published),
            difference(verdict),
            verdict.reason,
        ]
        for verdict in verdicts
    ]
    sources = {verdict.source: [each for each in verdicts if each.source == verdict.source] for verdict in verdicts}
    by_source = [[source, *map(str, counts(found).values())] for source, found in sources.items()]
    return (
        f"# Claims: {summary}\n\n{about}. {LEGEND}.\n\n{table(['source', *JUDGEMENTS], by_source)}\n\n"
        f"{table(head, rows)}\n"
    )


def runs_page(compared: pd.DataFrame) -> str:
    """What `characteristics.table` found, as a table with a heading."""
    rows = [
        [f"`{row['run']}`", row["source"], row["ended"], *(number(row[name]) for name in MEASURES)]
        for row in compared.to_dict("records")
    ]
    return f"# Runs\n\n{table(HEAD, rows)}\n\nThe threshold is that of the run's optimizer: 2/η of gradient descent.\n"

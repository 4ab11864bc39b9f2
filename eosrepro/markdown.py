"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan


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

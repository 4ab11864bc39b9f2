"""Tables for a terminal; in a pipe the same without colour, one line a row."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence

IN_A_PIPE = 200  # columns: nothing there says how wide a line may be
COLOURS: Mapping[str, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_what_can_be_shown() -> None:
    """Let stdout write `\\u03b7` for an η that its encoding lacks, as Python lets stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shows_all() -> bool:
    """Whether stdout can show every character: where not, data for programs escape them in their own way."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def show_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to stdout; a cell that says ok, warning or problem gets its colour."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        *head, title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else IN_A_PIPE, highlight=False).print(table)

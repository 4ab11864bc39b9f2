"""How far a long computation is: a bar on a terminal, sparse lines in a pipe. All of it goes to stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from typing import Protocol

REDRAW_SECONDS = 0.1  # between two drawings of the bar
LINE_SECONDS = 30.0  # the longest silence in a pipe
LINE_SHARE = 0.1  # a line for every tenth of the steps
SHORTEST_SILENCE = 1.0  # but a run of a second is told by its first and last line


_is_shared = False  # the terminal, with other processes that report


def share_the_terminal() -> None:
    """From now on lines, as in a pipe: two bars cannot stand at one place."""
    global _is_shared
    _is_shared = True


class Report(Protocol):
    """Called once a step, with the values worth seeing."""

    def __call__(self, step: int, **quantities: float) -> None: ...


@contextmanager
def progress(description: str, total: int, unit: str = "step") -> Iterator[Report]:
    """Report the steps of a computation that takes at most `total` of them.

    Args:
        description: what runs.
        total: the step at which it ends at the latest.
        unit: what a step is, in a line.

    Yields:
        The function to call at every step. It costs about a microsecond where it shows nothing.
    """
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not _is_shared
    display = _Bar(description, total) if on_terminal else _Lines(description, total, unit)
    try:
        yield display.report
    finally:
        display.close()


class _Display:
    """Keeps the latest step and shows it when the subclass finds it due; the first and the last step always are."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._latest: tuple[int, dict[str, float]] | None = None
        self._shown_step: int | None = None
        self._shown_at = 0.0

    def report(self, step: int, **quantities: float) -> None:
        self._latest = (step, quantities)
        if self._shown_step is None or self._due(step - self._shown_step, time.monotonic() - self._shown_at):
            self._show_latest()

    def close(self) -> None:
        if self._latest is not None and self._latest[0] != self._shown_step:
            self._show_latest()

    def _show_latest(self) -> None:
        assert self._latest is not None
        step, values = self._latest
        self._show(step, "  ".join(f"{name} {value:.4g}" for name, value in values.items() if not isnan(value)))
        self._shown_step, self._shown_at = step, time.monotonic()

    def _due(self, steps: int, seconds: float) -> bool:
        raise NotImplementedError

    def _show(self, step: int, values: str) -> None:
        raise NotImplementedError


class _Bar(_Display):
    def __init__(self, label: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(label, total)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(file=sys.stderr, force_terminal=True),
            auto_refresh=False,  # no thread beside the computation
            redirect_stdout=False,  # it may be a pipe
        )
        self._task = self._bar.add_task(label, total=total, values="")
        self._bar.start()

    def close(self) -> None:
        super().close()
        self._bar.stop()

    def _due(self, _steps: int, seconds: float) -> bool:
        return seconds >= REDRAW_SECONDS

    def _show(self, step: int, values: str) -> None:
        self._bar.update(self._task, completed=step, values=values)
        self._bar.refresh()


class _Lines(_Display):
    def __init__(self, label: str, total: int, unit: str = "step") -> None:
        super().__init__(label, total)
        self._unit = unit
        self._start: tuple[int, float] | None = None

    def _due(self, steps: int, seconds: float) -> bool:
        return seconds >= LINE_SECONDS or (steps >= LINE_SHARE * self._total and seconds >= SHORTEST_SILENCE)

    def _show(self, step: int, values: str) -> None:
        now = time.monotonic()
        first_step, started = self._start = self._start or (step, now)
        parts = [f"{self._label}: {self._unit} {step}/{self._total}", values]
        if first_step < step < self._total:
            parts.append(f"ETA {duration((now - started) / (step - first_step) * (self._total - step))}")
        print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time in words: `12 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

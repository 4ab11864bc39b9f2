"""What characterises the recorded runs of networks, one row a run, beside the same numbers of the published curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from eosrepro import markdown
from eosrepro.config import Window
from eosrepro.statistics import WindowLike, value
from eosrepro.store import Record


class _Measure(NamedTuple):
    quantity: str
    statistic: str
    window: WindowLike | None = None
    relative_to: str | None = None


_AFTER_ONSET = Window.model_validate({"from": "onset"})
_LAST_HALF = Window(last=0.5)
MEASURES: Mapping[str, _Measure] = {
    "iterations to accuracy": _Measure("accuracy", "run_length"),
    "sharpness passes 2/η at": _Measure("sharpness", "first_above", None, "threshold"),
    "onset of RP": _Measure("relative_progress", "onset"),
    "RP after onset, mean": _Measure("relative_progress", "mean", _AFTER_ONSET),
    "RP after onset, share above 0": _Measure("relative_progress", "fraction_positive", _AFTER_ONSET),
    "L after onset, mean in 2/η": _Measure("directional_smoothness", "mean", _AFTER_ONSET, "threshold"),
    "sharpness in the last half, mean in 2/η": _Measure("sharpness", "mean", _LAST_HALF, "threshold"),
    "final loss": _Measure("loss", "final"),
}
_HEAD = ["run", "source", "ended", *MEASURES]


def measures(record: Record) -> dict[str, float]:
    """All of `MEASURES` of one run; NaN where it does not define the number, or the quantity was not recorded."""
    return {
        name: value(record, of.quantity, of.statistic, window=of.window, relative_to=of.relative_to)
        for name, of in MEASURES.items()
    }


def table(records: Sequence[Record], published: Mapping[str, Record]) -> pd.DataFrame:
    """A row a run, and below it one of its published curves where there are any.

    Columns: run; source, `ours` or `published`; ended, why and at which iteration; `MEASURES`.
    """
    rows = []
    for record in records:
        ended = f"{record.summary['reason']} at {record.summary['steps']:,}"
        rows.append({"run": record.name, "source": "ours", "ended": ended, **measures(record)})
        if record.name in published:
            rows.append({"run": record.name, "source": "published", "ended": "", **measures(published[record.name])})
    return pd.DataFrame(rows, columns=_HEAD)


def as_markdown(comparison: pd.DataFrame) -> str:
    """The table with a heading."""
    rows = [
        [f"`{row['run']}`", row["source"], row["ended"], *(markdown.number(row[name]) for name in MEASURES)]
        for row in comparison.to_dict("records")
    ]
    return f"# Runs\n\n{markdown.table(_HEAD, rows)}\n"

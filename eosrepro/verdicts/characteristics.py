"""What characterises the recorded runs of networks, one row a run, beside the same numbers of the published curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from eosrepro.config.statements import Statistic
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.verdicts.statistics import value

_AFTER_ONSET = {"from": "onset"}
_AT_THRESHOLD = {"relative_to": "threshold"}
_DECLARED: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # heading → name without spaces, and as in a claim
    "iterations to accuracy": ("steps_to_accuracy", {"quantity": "accuracy", "statistic": "run_length"}),
    "sharpness passes its threshold at": (
        "sharpness_crossing",
        {"quantity": "sharpness", "statistic": "first_above"} | _AT_THRESHOLD,
    ),
    "onset of RP": ("onset", {"quantity": "relative_progress", "statistic": "onset"}),
    "RP after onset, mean": (
        "relative_progress_mean",
        {"quantity": "relative_progress", "statistic": "mean", "window": _AFTER_ONSET},
    ),
    "RP after onset, share above 0": (
        "relative_progress_fraction_positive",
        {"quantity": "relative_progress", "statistic": "fraction_positive", "window": _AFTER_ONSET},
    ),
    "L after onset, mean over its threshold": (
        "directional_smoothness_over_threshold_mean",
        {"quantity": "directional_smoothness", "statistic": "mean", "window": _AFTER_ONSET} | _AT_THRESHOLD,
    ),
    "sharpness in the last half, mean over its threshold": (
        "sharpness_over_threshold_mean",
        {"quantity": "sharpness", "statistic": "mean", "window": {"last": 0.5}} | _AT_THRESHOLD,
    ),
    "final loss": ("final_loss", {"quantity": "loss", "statistic": "final"}),
}
MEASURES: Mapping[str, Statistic] = {
    heading: Statistic.model_validate(declared) for heading, (_, declared) in _DECLARED.items()
}
HEAD = ["run", "source", "ended", *MEASURES]


def measures(record: Record) -> dict[str, float]:
    """All of `MEASURES` of one run; NaN where it does not define the number, or the quantity was not recorded."""
    return {heading: value(record, of) for heading, of in MEASURES.items()}


def summary(record: Record) -> dict[str, float]:
    """The same by names without spaces."""
    return {_DECLARED[heading][0]: found for heading, found in measures(record).items()}


def table(records: Sequence[Record], published: Mapping[str, Record]) -> pd.DataFrame:
    """A row a run, and below it one of its published curves where they tell any of the measures.

    Columns: run; source, `ours` or `published`; ended, why and at which iteration; `MEASURES`.
    """
    rows = []
    for record in records:
        rows.append({"run": record.name, "source": "ours", "ended": record.ended, **measures(record)})
        theirs = measures(published[record.name]) if record.name in published else {}
        if not all(map(isnan, theirs.values())):  # curves of other quantities tell none of them
            rows.append({"run": record.name, "source": "published", "ended": "", **theirs})
    return pd.DataFrame(rows, columns=HEAD)

"""One number about one recorded run: what a published claim states, measured.

All functions are pure: they read a `Record` and return numbers. A number that the run does not define (no onset, no
such iteration) is not replaced by another: `UndefinedError` is raised, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from eosrepro.catalog import did_you_mean
from eosrepro.config.statements import Statistic, Window
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.series import series

Values = np.ndarray  # (n,), float64


class UndefinedError(Exception):
    """The run does not define the number that is asked for; the message says why."""


class Found(NamedTuple):
    """A number and what it was taken from, in words."""

    value: float
    basis: str


def onset(trajectory: pd.DataFrame, level: float = -0.5) -> int | None:
    """First iteration whose relative progress exceeds `level`; None if there is none.

    In the stable regime RP is near -1, past the edge near 0 (Ahn et al. 2022); half-way the one becomes the other.
    """
    steps = trajectory["step"][trajectory["relative_progress"] > level]
    return None if steps.empty else int(steps.iloc[0])


def select(table: pd.DataFrame, record: Record, window: Window | None) -> pd.DataFrame:
    """The rows of a `series` in a window.

    Raises:
        UndefinedError: the run has no onset, or ends before the window does, so the window is not in the run.
    """
    if window is None:
        return table
    if window.last is not None:
        # Snapshots of a run that diverged end before it does: the last of them are not of its last part.
        whole = _last_step(record) if record.diverged else table["step"].max()
        first, end = (1 - window.last) * whole, np.inf
    else:
        first = -np.inf if window.from_ is None else _edge(window.from_, record)
        end = np.inf if window.to is None else _edge(window.to, record)
    rows: pd.DataFrame = table[(table["step"] >= first) & (table["step"] <= end)]
    if rows.empty:
        raise UndefinedError(f"no value between steps {first:g} and {end:g}: the run ends at step {_last_step(record)}")
    return rows


def measure(
    record: Record,
    quantity: str,
    statistic: str,
    *,
    window: Window | None = None,
    relative_to: str | None = None,
    level: float | None = None,
    against: str | None = None,
    beside: Record | None = None,
) -> Found:
    """One statistic of one quantity of a run.

    With `relative_to="threshold"` the quantity is first divided by the stability threshold that was recorded with it.
    `statistic` is one of

    * mean, median, min, max, final, fraction_positive, increases (number of rises from one value to the next);
      slope: of the least-squares line through the values, a step;
    * first_above: the first step at which the quantity exceeds `level` (1 where it is relative to the threshold);
      first_outside: the same of its absolute value;
    * onset, run_length (steps to the accuracy that ends the run), run_length_times_step_size, diverged (1 or 0): facts
      about the run, whatever the quantity;
    * relation_error: how far the run is from eq. 4.3, see the function of that name;
    * of the quantity and another, `against`, at the steps of both: correlation (Pearson's), largest_difference (in
      absolute value), and ratio: the mean of quantity / against over the steps at which the latter exceeds `level`.
      `against` is of the same run, or of the one `beside`.

    Raises:
        UndefinedError: the run does not define this number.
        ConfigError: there is no such quantity or statistic, or `level` or `against` is missing.
    """
    if statistic in _OF_RUN:
        return _OF_RUN[statistic](record)
    if statistic == "relation_error":
        if not {"relative_progress", "directional_smoothness"} <= {*record.trajectory}:  # published curves
            raise UndefinedError(f"RP and L are not both known of {record.name}")
        rows = select(record.trajectory.dropna(subset=["relative_progress", "directional_smoothness"]), record, window)
        return Found(_finite(relation_error(rows, float(record.step_size))), _span(rows))
    if statistic not in STATISTICS:
        raise ConfigError(f"no statistic {statistic!r}{did_you_mean(statistic, [*STATISTICS])}")
    rows = select(series(record, quantity), record, window)
    if rows.empty:
        raise UndefinedError(f"{quantity} has no value in this run")
    if statistic in _OF_TWO:
        if against is None:
            raise ConfigError(f"{statistic} of {quantity} needs `against`, another quantity")
        both = rows.merge(series(beside or record, against), on="step", suffixes=("", "_against"))
        return Found(_finite(_OF_TWO[statistic](both["value"], both["value_against"], level)), _span(both))
    values = rows["value"].to_numpy(float)
    if relative_to == "threshold" and record.origin.preconditioned and not record.compares(quantity):
        raise UndefinedError(f"the threshold of {record.name} is one of the effective sharpness, not of {quantity}")
    if relative_to == "threshold" and not record.origin.threshold_formula:
        raise UndefinedError(f"{record.name} has no stability threshold")
    if relative_to == "threshold":
        values, level = values / record.threshold_at(rows["step"]), 1.0 if level is None else level
    if statistic == "slope":
        return Found(_finite(_slope(rows["step"].to_numpy(float), values)), _span(rows))
    if statistic == "final" and record.diverged and quantity not in record.trajectory and window is None:
        at = rows["step"].iloc[-1]
        raise UndefinedError(f"the run diverged at step {_last_step(record)}, and {quantity} is known up to {at:.0f}")
    if statistic in _OF_VALUES:
        return Found(_finite(_OF_VALUES[statistic](values)), _span(rows))
    if level is None:
        raise ConfigError(f"{statistic} of {quantity} needs a `level`, or `relative_to: threshold`")
    beyond = rows["step"][(np.abs(values) if statistic == "first_outside" else values) > level]
    if beyond.empty:
        unit = f" times {record.origin.threshold_formula}" if relative_to else ""
        raise UndefinedError(f"{quantity} does not pass {level:g}{unit} at {_span(rows)}")
    return Found(float(beyond.iloc[0]), _span(rows))


def measured(record: Record, of: Statistic, beside: Record | None = None) -> Found:
    """`measure` with the arguments of a declared statistic; `beside` is the record of the run that it names.

    Raises:
        UndefinedError: as `measure`, or the run beside is not there.
    """
    if of.beside is not None and beside is None:
        raise UndefinedError(f"{of.beside}, the run beside, has not been run")
    settings = {"window": of.window, "relative_to": of.relative_to, "level": of.level, "against": of.against}
    return measure(record, of.quantity, of.statistic, beside=beside, **settings)  # type: ignore[arg-type]  # a mapping has one type


def value(record: Record, of: Statistic) -> float:
    """Like `measured`, but NaN where the number is undefined or the quantity was not recorded."""
    try:
        return measured(record, of).value
    except (UndefinedError, ConfigError, StoreError):
        return np.nan


def _correlation(values: pd.Series, others: pd.Series, _level: float | None) -> float:
    return float(np.corrcoef(values, others)[0, 1]) if len(values) > 1 else np.nan


def _largest_difference(values: pd.Series, others: pd.Series, _level: float | None) -> float:
    return float((values - others).abs().max())


def _ratio(values: pd.Series, others: pd.Series, level: float | None) -> float:
    above = others > (-np.inf if level is None else level)
    if not above.any():
        raise UndefinedError(
            f"the denominator is never above {level:g}" if level is not None else "there are no values"
        )
    return float((values[above] / others[above]).mean())


def relation_error(trajectory: pd.DataFrame, step_size: float) -> float:
    """Relative error of RP ≈ -1 + (η/2) L, eq. 4.3 of Ahn et al. 2022, root mean square over the iterations.

    √(Σ (RP + 1 - ηL/2)²) / √(Σ (ηL/2)²): 0 where the relation is exact, as on a quadratic. Not finite where L is 0 or
    overflows throughout.
    """
    right = trajectory["directional_smoothness"] * step_size / 2
    missed = trajectory["relative_progress"] + 1 - right
    with np.errstate(all="ignore"):
        return float(np.sqrt((missed**2).sum() / (right**2).sum()))


def _onset(record: Record) -> Found:
    if "relative_progress" not in record.trajectory:  # published curves
        raise UndefinedError(f"no relative progress is known of {record.name}")
    step = onset(record.trajectory)
    if record.trajectory["relative_progress"].isna().all():
        why = (
            "the run diverged at its first step"
            if record.diverged
            else "no step changes the loss by more than rounding"
        )
        raise UndefinedError(f"no onset: relative progress is not defined, as {why}")
    if step is None:
        raise UndefinedError(f"no onset: relative progress stays at or below -0.5 up to step {_last_step(record)}")
    return Found(float(step), "first step with RP > -0.5")


def _run_length(record: Record) -> Found:
    reason = record.summary["reason"]
    if reason != "accuracy":
        raise UndefinedError(f"the run ended at step {_last_step(record)} ({reason}) before it reached its accuracy")
    return Found(float(record.summary["steps"]), "steps to the accuracy that ends the run")


def _run_length_times_step_size(record: Record) -> Found:
    (time,) = record.times([int(_run_length(record).value)])
    return Found(float(time), "steps to the accuracy that ends the run, times η")


def _diverged(record: Record) -> Found:
    return Found(float(record.diverged), f"the run ended at step {_last_step(record)}")


def _increases(values: Values) -> float:
    return float((np.diff(values) > 0).sum())


def _slope(steps: Values, values: Values) -> float:
    if len(steps) < 2:
        raise UndefinedError("one value alone has no slope")
    away = steps - steps.mean()
    return float(away @ (values - values.mean()) / (away @ away))


_OF_VALUES: Mapping[str, Callable[[Values], float]] = {
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(np.median(values)),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
    "final": lambda values: float(values[-1]),
    "fraction_positive": lambda values: float((values > 0).mean()),
    "increases": _increases,
}

_OF_RUN: Mapping[str, Callable[[Record], Found]] = {
    "onset": _onset,
    "run_length": _run_length,
    "run_length_times_step_size": _run_length_times_step_size,
    "diverged": _diverged,
}

_OF_TWO: Mapping[str, Callable[[pd.Series, pd.Series, float | None], float]] = {
    "correlation": _correlation,
    "largest_difference": _largest_difference,
    "ratio": _ratio,
}

STATISTICS = (*_OF_VALUES, *_OF_RUN, *_OF_TWO, "slope", "first_above", "first_outside", "relation_error")


def _edge(edge: int | str, record: Record) -> float:
    if edge == "onset":
        return _onset(record).value
    if edge == "end":
        return _last_step(record)
    # A run that ends inside the window has no mean over the window: over what is left is another number.
    if float(edge) > _last_step(record):
        raise UndefinedError(f"the window reaches to step {edge}, the run ends at step {_last_step(record)}")
    return float(edge)


def _last_step(record: Record) -> int:
    return int(record.trajectory["step"].iloc[-1])


def _span(rows: pd.DataFrame) -> str:
    return f"steps {rows['step'].iloc[0]:.0f} to {rows['step'].iloc[-1]:.0f} ({len(rows)} values)"


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise UndefinedError("the number is not finite")
    return value

"""From rows and tables to the points of MLflow's metrics.

The MLflow UI thins a long series by sampling, which aliases an oscillation of period 2. Each oscillating series is
therefore also logged as the least, mean and greatest value of every `window` steps, at the last of these steps.

The UI makes a section of all metrics with the same text before their slash: `train`, every step; `windowed`, the same
in windows; `curvature`, eigenvalues of the Hessian; `diagnostics`, what the others measured; `summary`, one number a
run. The UI keeps an empty section for what none of the runs shown has, so they are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from eosrepro.core.quantities import quantity
from eosrepro.core.types import Row
from eosrepro.records.runs import Record
from eosrepro.views.mlflow.tags import mlflow_name

PER_STEP = ("loss", "accuracy", "grad_norm", "relative_progress", "directional_smoothness")
WINDOWED = tuple(name for name in PER_STEP if quantity(name).oscillates)


class Point(NamedTuple):
    """One value of one MLflow metric."""

    name: str
    step: int
    value: float


class PointSeries:
    """From rows to points, one row at a time: the same points live and from the record."""

    def __init__(self, window: int, *, preconditioned: bool) -> None:
        self._length, self._preconditioned = window, preconditioned
        self._window: list[Row] = []

    def add(self, row: Row) -> list[Point]:
        """The points of one iteration, and of the window that ends with it."""
        points = [Point(f"train/{name}", row.step, getattr(row, name)) for name in PER_STEP]
        if not self._preconditioned:
            relative = row.directional_smoothness / row.stability_threshold
            points.append(Point("train/directional_smoothness_over_threshold", row.step, relative))
        points += [Point(f"train/{mlflow_name(name)}", row.step, value) for name, value in row.observed.items()]
        self._window.append(row)
        if (row.step + 1) % self._length == 0:
            # A training that resumed inside a window has seen a part of it only: the sync at its end logs it.
            points += self.rest() if len(self._window) == self._length else []
            self._window = []
        return list(_finite(points))

    def rest(self) -> list[Point]:
        """The points of the window that is still open."""
        if not self._window:
            return []
        step = self._window[-1].step
        return list(_finite(point for name in WINDOWED for point in _extent(name, step, self._values(name))))

    def _values(self, name: str) -> list[float]:
        return [value for value in (getattr(row, name) for row in self._window) if isfinite(value)]


def _extent(name: str, step: int, values: Sequence[float]) -> Iterator[Point]:
    if values:
        yield Point(f"windowed/{name}_min", step, min(values))
        yield Point(f"windowed/{name}_mean", step, sum(values) / len(values))
        yield Point(f"windowed/{name}_max", step, max(values))


def trajectory_points(record: Record, window: int) -> Iterator[Point]:
    series = PointSeries(window, preconditioned=record.origin.preconditioned)
    for columns in record.trajectory.to_dict("records"):
        yield from series.add(Row.of({str(name): value for name, value in columns.items()}))
    yield from series.rest()


def measured_points(record: Record) -> Iterator[Point]:
    """The eigenvalues as curvature/<quantity>; what others found as diagnostics/<quantity>."""
    for diagnostic, (table, _) in record.measured.items():
        if not table["step"].is_unique:
            continue  # a curve at each step, which no metric can hold
        columns = [str(name) for name in table if name != "step"]
        prefix = "diagnostics/"
        if diagnostic in ("sharpness", "effective_sharpness"):
            columns = [name for name in columns if re.fullmatch(r"(effective_)?(sharpness|eigenvalue_\d+)", name)]
            prefix = "curvature/"
        thresholds = record.threshold_at(table["step"])
        rows = table[["step", *columns]].itertuples(index=False)
        for (step, *values), threshold in zip(rows, thresholds, strict=True):
            points = [
                Point(prefix + mlflow_name(name), int(step), float(at))
                for name, at in zip(columns, values, strict=True)
            ]
            if record.compares(diagnostic):
                relative = points[0].value / float(threshold)
                points.append(Point(f"curvature/{diagnostic}_over_threshold", int(step), relative))
            yield from _finite(points)


def summary_points(summary: Mapping[str, float]) -> Iterator[Point]:
    # The UI draws what has no step but 0 as bars, a bar a run.
    return _finite(Point(f"summary/{name}", 0, value) for name, value in summary.items())


def _finite(points: Iterable[Point]) -> Iterator[Point]:
    # MLflow stores infinity as 1.8e308 and NaN as 0.
    return (point for point in points if isfinite(point.value))

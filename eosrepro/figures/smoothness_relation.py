"""How well RP ≈ -1 + (η/2) L holds along runs (eq. 4.3 and Experiment 6 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.verdicts.statistics import relation_error

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def smoothness_relation(
    records: Sequence[Record], data_label: str, *, title: str, runs: dict[str, str]
) -> tuple[Figure, pd.DataFrame]:
    """One panel a run: relative progress against -1 + (η/2) L, a point an iteration, over the line of equality.

    Each panel states the relative error of the relation over the whole run (`statistics.relation_error`), and shows it
    as a band about the line: RP + 1 = (1 ± error) ηL/2.

    Args:
        records: the runs, in any order.
        data_label: names the training data, on the face of the figure.
        title: first line of the figure.
        runs: run → heading of its panel, from left to right.

    Returns:
        The figure, of the runs of gradient descent alone, and all points drawn as rows (run, panel, step, value,
        source), panel being `relative_progress` or `predicted_relative_progress`.
    """
    by_name = {record.name: record for record in records if record.origin.is_gradient_descent}
    runs = {name: heading for name, heading in runs.items() if name in by_name}
    if not runs:
        return _style.nothing_to_draw(title, "eq. 4.3 is about gradient descent, and none of the runs takes its steps")
    colours = _style.colours(runs)
    tables = {name: _table(by_name[name]) for name in runs}
    with _style.styled():
        figure = _style.new_figure(min(_style.PAGE, _style.COLUMN * len(runs)), 2.9)
        axes = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (name, heading) in zip(axes, runs.items(), strict=True):
            error = relation_error(by_name[name].trajectory, float(by_name[name].step_size))
            marks = _draw(axis, tables[name], error, colours[name])
            axis.set_title(f"{heading}, relative error {error:.1%}")
            axis.set_xlabel("$-1 + (η/2)\\,L$")
        axes[0].set_ylabel("relative progress")
        _style.put_title(figure, title, data_label)
        _style.put_legend(figure, marks, columns=2)
    long = [
        _style.rows(name, panel, table[["step", panel]].rename(columns={panel: "value"}))
        for name, table in tables.items()
        for panel in ("relative_progress", "predicted_relative_progress")
    ]
    return figure, pd.concat(long, ignore_index=True)


def _table(record: Record) -> pd.DataFrame:
    table = record.trajectory[["step", "relative_progress", "directional_smoothness"]].dropna()
    return table.assign(predicted_relative_progress=table["directional_smoothness"] * float(record.step_size) / 2 - 1)


def _draw(axis: Axes, table: pd.DataFrame, error: float, colour: _style.Colour) -> dict[str, Artist]:
    predicted, measured = table["predicted_relative_progress"], table["relative_progress"]
    ends = np.array([min(predicted.min(), -1.0), max(predicted.max(), 0.0)])
    error = error if np.isfinite(error) else np.nan  # no band then
    low, high = ((ends + 1) * (1 + sign * error) - 1 for sign in (-1, 1))
    band = axis.fill_between(ends, low, high, color="0.88", linewidth=0, zorder=1)
    (line,) = axis.plot(ends, ends, color="black", linestyle=_style.DASHES, zorder=2)
    axis.plot(predicted, measured, "o", color=colour, markersize=1.2, markeredgewidth=0, zorder=3)
    return {"equality": line, "± relative error": band}

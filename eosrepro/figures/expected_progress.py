"""Relative progress that a random minibatch step is expected to make (Experiments 7-9 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, get_args

import numpy as np
from annotated_types import MinLen

from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Literal["loss", "expected_progress", "expected_progress_zoom"]
Curve = Literal["loss", "expected_relative_progress", "predicted_expected_progress"]
Published: TypeAlias = "Mapping[Curve, Mapping[str, pd.DataFrame]]"  # curve → run → columns x (epoch) and y

_MEASURED: Curve = "expected_relative_progress"  # left side of eq. 5.1
_PREDICTED: Curve = "predicted_expected_progress"  # right side
_CURVES: Mapping[Panel, Sequence[Curve]] = {  # the last drawn lies on top
    "loss": ["loss"],
    "expected_progress": [_PREDICTED, _MEASURED],
    "expected_progress_zoom": [_PREDICTED, _MEASURED],
}
_LABELS: Mapping[Panel, str] = {
    "loss": "training loss",
    "expected_progress": "expected\nrelative progress",
    "expected_progress_zoom": "expected relative\nprogress, zoom",
}
_NAMES: Mapping[Curve, str] = {_MEASURED: "E[RP]", _PREDICTED: "right side of eq. 5.1", "loss": "loss"}
_COLOURS = _style.colours(_NAMES)
_ZOOM = (-1.0, 1.0)
_OUTERMOST = 0.005  # share of the values of a curve, at either end, that need not be in the frame
_PANEL_HEIGHT = 1.6  # inches


def expected_progress(
    records: Sequence[Record],
    data_label: str,
    published: Published,
    *,
    title: str,
    runs: dict[str, str],
    panels: Annotated[list[Panel], MinLen(1)],
    prediction: bool,
) -> tuple[Figure, pd.DataFrame]:
    """One column of axes a run: loss, and the expected relative progress, over the epochs.

    The axes of the progress are linear and show every curve from its 0.5 to its 99.5 % quantile: late in a training
    few epochs reach far above all others. The zoom shows -1 to 1, the loss all up to twice its first value. Published
    curves lie below ours, in a lighter shade of the same hue. Dashed: 0, above which the expected step raises the loss.

    Args:
        records: the runs, in any order.
        data_label: names the training data, on the face of the figure.
        published: the curves to lay ours over; empty for none.
        title: first line of the figure.
        runs: run → heading of its column, from left to right.
        panels: what the rows of axes show, from top to bottom.
        prediction: whether to draw what eq. 5.1 says the progress is, beside the progress.

    Returns:
        The figure, and all curves as rows (run, panel, step, value, source), panel being one of `Curve`, source `ours`
        or `published`.

    Raises:
        StoreError: `expected_progress` was not measured on a run.
    """
    shown = {curve for panel in panels for curve in _CURVES[panel] if prediction or curve != _PREDICTED}
    curves: list[Curve] = [curve for curve in get_args(Curve) if curve in shown]
    by_name = {record.name: record for record in records}
    table = pd.concat(
        [_style.compared(by_name[name], curve, published) for name in runs for curve in curves], ignore_index=True
    )
    with _style.styled():
        figure = _style.new_figure(_style.PAGE, 0.8 + _PANEL_HEIGHT * len(panels))
        axes = figure.subplots(len(panels), len(runs), sharex="col", squeeze=False)
        for panel, row in zip(panels, axes, strict=True):
            for axis, name in zip(row, runs, strict=True):
                _draw(axis, panel, table[(table["run"] == name) & table["panel"].isin(_CURVES[panel])])
            row[0].set_ylabel(_LABELS[panel])
        for column, (name, heading) in zip(axes.T, runs.items(), strict=True):
            column[0].set_title(_style.heading(heading, by_name[name]))
            column[-1].set_xlabel("epoch")
        figure.align_ylabels(axes[:, 0])
        _style.put_title(figure, title, data_label)
        _style.put_legend(figure, _legend(table, curves), columns=5)
    return figure, table


def _draw(axis: Axes, panel: Panel, table: pd.DataFrame) -> None:
    for source in ("published", "ours"):
        for curve in _CURVES[panel]:
            points = table[(table["panel"] == curve) & (table["source"] == source)]
            colour = _COLOURS[curve] if source == "ours" else _style.lighter(_COLOURS[curve])
            axis.plot(points["step"], points["value"], color=colour, linewidth=0.55)
    if panel == "loss":
        axis.set_ylim(0, _top_of_loss(table))
        return
    axis.axhline(0, color="black", linestyle=_style.DASHES)
    axis.set_ylim(_ZOOM if panel == "expected_progress_zoom" else _limits(table))


def _top_of_loss(table: pd.DataFrame) -> float:
    """The highest loss; of a run that diverged, which has none, not above twice the first."""
    return 1.05 * float(min(table["value"].max(), 2 * table["value"].iloc[0]))


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    ends = table.groupby(["panel", "source"])["value"].quantile(np.array([_OUTERMOST, 1 - _OUTERMOST]))
    shown = [*ends, -1, 0]  # -1: the progress of a step so small that f is linear along it
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low)
    return float(low - margin), float(high + margin)


def _legend(table: pd.DataFrame, curves: Sequence[Curve]) -> dict[str, Artist]:
    from matplotlib.lines import Line2D

    entries: dict[str, Artist] = {
        _NAMES[curve]: Line2D([], [], color=_COLOURS[curve], linewidth=1.4) for curve in curves
    }
    if (table["source"] == "published").any():
        entries["published"] = Line2D([], [], color=_style.lighter(_style.GREY), linewidth=1.4)
    return entries

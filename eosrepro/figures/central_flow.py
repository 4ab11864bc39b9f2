"""Gradient descent beside its central flow and gradient flow (Cohen et al. 2025, arXiv 2410.24206)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eosrepro.errors import StoreError
from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.series import series

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DESCENT, CENTRAL, FLOW = "gd", "central_flow", "gradient_flow"
MOST_EIGENVALUES = 9


def central_flow(
    records: Sequence[Record],
    data_label: str,
    *,
    title: str,
    runs: dict[str, str],
    limits: dict[str, tuple[float, float]] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Three panels over time: the loss, the top eigenvalues of the Hessian, and how far the flows are from GD.

    Of GD the loss of every iteration, and the eigenvalues half-way between iterates; of the central flow the mean of
    the loss of GD that it predicts (`predicted_loss`). Runs are told apart by their optimizer: gd, central_flow and
    gradient_flow, at one step size.

    Args:
        records: the runs, in any order; of other optimizers than those none is drawn.
        data_label: names the training data, on the face of the figure.
        title: first line of the figure.
        runs: run → its label, in the order of the legend.
        limits: panel (loss, sharpness, distance) → (lowest, highest) value shown.

    Returns:
        The figure, and all that is drawn as rows (run, panel, step, value, source), panel being the quantity.

    Raises:
        StoreError: a quantity that a panel shows was not measured.
    """
    by_name = {record.name: record for record in records}
    methods = {name: str(by_name[name].origin.settings["optimizer"]["name"]) for name in runs}
    shown = [name for name in runs if methods[name] in (DESCENT, CENTRAL, FLOW)]
    if not shown:
        return _style.nothing_to_draw(title, f"none of the runs is of {DESCENT}, {CENTRAL} or {FLOW}")
    colours = _style.colours(runs)
    tables: list[pd.DataFrame] = []
    with _style.styled():
        figure = _style.new_figure(_style.PAGE, 5.6)
        loss, sharpness, distance = figure.subplots(3, 1, sharex=True)
        for name in shown:
            record, method, colour = by_name[name], methods[name], colours[name]
            # GD jumps about the prediction: it lies below, and pale.
            style = (
                {"color": _style.lighter(colour), "zorder": 2} if method == DESCENT else {"color": colour, "zorder": 3}
            )
            tables += _curves(loss, record, ["predicted_loss" if method == CENTRAL else "loss"], **style)
            tables += _curves(sharpness, record, _eigenvalues(record, method), color=colour)
            if method != DESCENT:
                tables += _curves(distance, record, ["distance"], color=colour)
            if method == DESCENT:
                _style.put_threshold(sharpness, record, _style.GREY, zorder=4)
        loss.set(ylabel="training loss", yscale="log")
        sharpness.set(ylabel="largest eigenvalues of ∇²f")
        distance.set(ylabel="distance to GD", xlabel="iteration", ylim=(0, None))
        for axis, panel in ((loss, "loss"), (sharpness, "sharpness"), (distance, "distance")):
            axis.set(ylim=(limits or {}).get(panel, axis.get_ylim()))
        _style.put_title(figure, title, data_label)
        _style.put_legend(figure, _legend(shown, runs, methods, colours), columns=4)
    return figure, pd.concat(tables, ignore_index=True)


def _eigenvalues(record: Record, method: str) -> list[str]:
    """Those that were measured: of GD half-way between iterates."""
    before = "midpoint_" if method == DESCENT else ""
    table = record.measured.get(f"{before}sharpness")
    if table is None:
        raise StoreError(f"{before}sharpness of {record.name} has not been measured: add it to `diagnose`")
    names = [f"{before}sharpness", *(f"{before}eigenvalue_{i}" for i in range(2, MOST_EIGENVALUES + 1))]
    return [name for name in names if name in table.table]


def _curves(axis: Axes, record: Record, quantities: Sequence[str], **style: object) -> list[pd.DataFrame]:
    """Each as a line: the first as it is, further ones thinner. What was drawn, as rows of the figure's table."""
    drawn = []
    for number, quantity in enumerate(quantities):
        points = series(record, quantity)
        axis.plot(points["step"], points["value"], linewidth=0.5 if number else 0.9, **style)  # type: ignore[arg-type]
        drawn.append(_style.rows(record.name, quantity, points))
    return drawn


def _legend(
    shown: Sequence[str], runs: Mapping[str, str], methods: Mapping[str, str], colours: Mapping[str, _style.Colour]
) -> dict[str, Artist]:
    from matplotlib.lines import Line2D

    entries: dict[str, Artist] = {runs[name]: Line2D([], [], color=colours[name], linewidth=1.4) for name in shown}
    if DESCENT in methods.values():
        entries["2/η"] = Line2D([], [], color=_style.GREY, linestyle=_style.DASHES)
    return entries

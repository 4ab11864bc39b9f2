"""Paths of an optimiser over the contours of a function of two numbers (Examples 1-3 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import MinLen

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Function
from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.series import series

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Coordinate = Literal["theta_1", "theta_2"]
Limits = Annotated[dict[Coordinate, tuple[float, float]], MinLen(2)]  # of both coordinates

_RESOLUTION = 201  # grid points a side
_LEVELS = np.linspace(0.04, 0.96, 12)  # shares of the frame that lie below each contour
_COLOUR, _LAST = _style.colours(["path", "last"]).values()


def toy_paths(
    records: Sequence[Record],
    functions: Mapping[str, Function],
    *,
    title: str,
    runs: dict[str, str],
    limits: Limits,
    steps: Annotated[int, AtLeast(1)] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """One panel a run: the iterates θ_t, joined, over contours of the function, start and last two iterates marked.

    The last two iterates are one point where the run has converged, and two where it ends in a cycle of period 2. A
    path that leaves the frame for good is drawn to there, and its panel says at which step; the rest is in the table.

    Args:
        records: the runs, in any order, with a snapshot of θ (two numbers) at every iteration.
        functions: run → the function that it minimises, (..., 2) → (...).
        title: first line of the figure.
        runs: run → heading of its panel, from left to right.
        limits: what the axes show.
        steps: number of iterations drawn; None: all.

    Returns:
        The figure, and all iterates as rows (run, panel, step, value, source), panel being `theta_1` or `theta_2`.

    Raises:
        StoreError: a run has no snapshots.
    """
    by_name = {record.name: record for record in records}
    paths = {name: _path(by_name[name], steps) for name in runs}
    with _style.styled():
        figure = _style.new_figure(min(_style.PAGE, _style.COLUMN * len(runs)), 2.7)
        axes = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (name, heading) in zip(axes, runs.items(), strict=True):
            _draw_contours(axis, functions[name], limits)
            n_inside = _inside(paths[name], limits)
            marks = _draw_path(axis, paths[name], n_inside)
            steps_outside = paths[name]["step"][n_inside:]
            ending = "" if steps_outside.empty else f", leaves the frame at step {steps_outside.iloc[0]}"
            axis.set(title=f"{heading}{ending}", xlabel="$θ_1$", xlim=limits["theta_1"], ylim=limits["theta_2"])
        axes[0].set_ylabel("$θ_2$")
        _style.put_title(figure, title)
        _style.put_legend(figure, marks, columns=3)
    tables = [_rows(name, coordinate, path) for name, path in paths.items() for coordinate in ("theta_1", "theta_2")]
    return figure, pd.concat(tables, ignore_index=True)


def _path(record: Record, steps: int | None) -> pd.DataFrame:
    first, second = series(record, "theta_1"), series(record, "theta_2")
    path = pd.DataFrame({"step": first["step"], "theta_1": first["value"], "theta_2": second["value"]})
    return path if steps is None else path[path["step"] <= steps]


def _draw_contours(axis: Axes, f: Function, limits: Limits) -> None:
    first, second = (torch.linspace(*limits[c], _RESOLUTION, dtype=torch.float64) for c in ("theta_1", "theta_2"))
    grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), dim=-1)
    heights = f(grid).numpy()
    levels = np.unique(np.quantile(heights, _LEVELS))
    axis.contour(first, second, heights, levels=levels, colors="0.82", linewidths=0.5, zorder=1)


def _inside(path: pd.DataFrame, limits: Limits) -> int:
    """Number of iterates up to the last one that lies in the frame."""
    inside = path["theta_1"].between(*limits["theta_1"]) & path["theta_2"].between(*limits["theta_2"])
    return int(inside.to_numpy().nonzero()[0].max(initial=-1)) + 1


def _draw_path(axis: Axes, path: pd.DataFrame, n_inside: int) -> dict[str, Artist]:
    x, y = (path[coordinate].to_numpy() for coordinate in ("theta_1", "theta_2"))
    # One iterate beyond the frame, so that the line is seen to leave it.
    (line,) = axis.plot(
        x[: n_inside + 1], y[: n_inside + 1], ".-", color=_COLOUR, linewidth=0.5, markersize=2, zorder=2
    )
    (start,) = axis.plot(x[:1], y[:1], "o", color="black", fillstyle="none", markersize=5, zorder=4)
    (last,) = axis.plot(x[-2:], y[-2:], "D", color=_LAST, markersize=3, zorder=3)
    return {"iterates": line, "start": start, "last two iterates": last}


def _rows(name: str, coordinate: str, path: pd.DataFrame) -> pd.DataFrame:
    return _style.rows(name, coordinate, path[["step", coordinate]].rename(columns={coordinate: "value"}))

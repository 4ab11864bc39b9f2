"""Recorded quantities of several runs over their iterations (Figure 1, Experiments 1-4 and 6 of Ahn et al. 2022)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from annotated_types import MinLen

from eosrepro.core.quantities import quantity
from eosrepro.errors import ConfigError
from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Published: TypeAlias = (
    "Mapping[str, Mapping[str, pd.DataFrame]]"  # panel → run → curve with columns x (iteration) and y
)

Over = Literal["iterations", "time"]

_PANEL_HEIGHT = 1.6  # inches


def trajectories(
    records: Sequence[Record],
    data_label: str,
    published: Published,
    *,
    title: str,
    runs: dict[str, str],
    panels: Annotated[list[str], MinLen(1)],
    columns: dict[str, Annotated[list[str], MinLen(1)]] | None = None,
    limits: dict[str, tuple[float, float]] | None = None,
    units: Literal["absolute", "threshold"] = "absolute",
    over: Over = "iterations",
) -> tuple[Figure, pd.DataFrame]:
    """One row of axes a quantity, one above the other, so that an iteration is at one place in all of them.

    Every point is drawn: a series that alternates would lose its amplitude to any thinning. A run that diverged is
    drawn to its last finite step and marked there. Dashed lines: 2/η, in the colour of its run (grey where runs share
    it), for sharpness and L; RP = 0. Published curves lie below ours, in a lighter shade of the same hue.

    Args:
        records: the runs, in any order.
        data_label: names the training data, on the face of the figure.
        published: the curves to lay ours over; empty for none.
        title: first line of the figure.
        runs: run → its label, in the order of the legend.
        panels: the quantities, see `records.series`, from top to bottom.
        columns: heading → runs, for axes side by side; None: all runs in one column.
        limits: panel → (lowest, highest) value shown; by default all values of the runs that did not diverge.
        units: of sharpness and L; `threshold`: of the stability threshold of each run. A panel stays absolute where it
            is not a quantity that the threshold of all its runs is about: see `Record.compares`.
        over: `time`: the sum of the step sizes so far. At equal times gradient descent is beside gradient flow.

    Returns:
        The figure, and all that is drawn as rows (run, panel, step, value, source), source being `ours` or `published`.

    Raises:
        ConfigError: a column names a run that is not in `runs`, or a run of epochs is drawn over time.
        StoreError: a panel shows what was not measured.
    """
    groups = _groups(columns, runs)
    by_name = {record.name: record for record in records}
    # A panel of one unit: where a run has no threshold of that quantity, none is divided by it.
    shared = {panel for panel in panels if all(by_name[name].compares(panel) for name in runs)}
    relative = shared if units == "threshold" else set()
    if over == "time" and (epochs := [name for name in runs if by_name[name].origin.counts == "epochs"]):
        raise ConfigError(f"an iteration of {epochs[0]} is an epoch, of many steps: draw it over iterations")
    step = "epoch" if {by_name[name].origin.counts for name in runs} == {"epochs"} else "iteration"
    colours = _style.colours(runs)
    tables = [_style.compared(by_name[name], panel, published) for panel in panels for name in runs]
    table = pd.concat(map(partial(_in_units, by_name, relative), tables), ignore_index=True)
    with _style.styled():
        figure = _style.new_figure(_style.PAGE, 0.8 + _PANEL_HEIGHT * len(panels))
        axes = figure.subplots(len(panels), len(groups), sharex="col", squeeze=False)
        for panel, row in zip(panels, axes, strict=True):
            for axis, names in zip(row, groups.values(), strict=True):
                shown = table[(table["panel"] == panel) & table["run"].isin(names)]
                chosen = [by_name[name] for name in names]
                span = (limits or {}).get(panel)
                _draw(axis, panel, shown, chosen, colours, span, relative=panel in relative, over=over)
            unit = f"\nin units of {_formula(by_name, runs)}" if panel in relative else ""
            row[0].set_ylabel(f"{quantity(panel).label}{unit}")
        for axis, heading in zip(axes[0], groups, strict=True):
            axis.set_title(heading)
        for axis in axes[-1]:
            axis.set_xlabel("time (sum of the step sizes)" if over == "time" else step)
        _style.put_title(figure, title, data_label)
        _style.put_legend(figure, _legend(table, by_name, runs, colours), columns=7)
    return figure, table


def _in_units(records: Mapping[str, Record], relative: Collection[str], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one quantity of one run, in units of its stability threshold where the panel is."""
    if table.empty or table["panel"].iloc[0] not in relative:
        return table
    return table.assign(value=table["value"] / records[table["run"].iloc[0]].threshold_at(table["step"]))


def _formula(records: Mapping[str, Record], runs: Iterable[str]) -> str:
    """The stability threshold of the runs as text: 2/η, where it is the same formula."""
    formulas = {records[name].origin.threshold_formula for name in runs} - {""}
    return formulas.pop() if len(formulas) == 1 else "its own threshold"


def _groups(columns: Mapping[str, Sequence[str]] | None, runs: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    groups = columns or {"": list(runs)}
    unknown = [name for names in groups.values() for name in names if name not in runs]
    if unknown:
        raise ConfigError(f"columns: {unknown[0]!r} is not among the runs of the figure (there are: {', '.join(runs)})")
    return groups


def _draw(
    axis: Axes,
    panel: str,
    table: pd.DataFrame,
    records: Sequence[Record],
    colours: Mapping[str, _style.Colour],
    limits: tuple[float, float] | None,
    *,
    relative: bool,
    over: Over,
) -> None:
    low, high = limits or _limits(panel, table, records, relative=relative)
    axis.set_ylim(low, high)
    thresholds = Counter(tuple(record.thresholds.unique()) for record in records)
    for record in records:
        colour = colours[record.name]
        ours, theirs = (_placed(record, _of(record, table, each), over) for each in ("ours", "published"))
        axis.plot(theirs["step"], theirs["value"], color=_style.lighter(colour), zorder=2)
        axis.plot(ours["step"], ours["value"], color=colour, zorder=3)
        if record.compares(panel) and not relative:
            own = thresholds[tuple(record.thresholds.unique())] == 1
            _style.put_threshold(axis, record, colour if own else _style.GREY, zorder=4, over_time=over == "time")
        if record.diverged and not ours.empty:
            at = float(np.clip(ours["value"].iloc[-1], low, high))
            axis.plot(ours["step"].iloc[-1], at, "x", color=colour, clip_on=False, zorder=5, **_style.CROSS)
    level = {"zero": 0, "threshold": 1 if relative else None, "nothing": None}[quantity(panel).compared_with]
    if level is not None:
        axis.axhline(level, color="black", linestyle=_style.DASHES, zorder=4)


def _limits(panel: str, table: pd.DataFrame, records: Sequence[Record], *, relative: bool) -> tuple[float, float]:
    """The range of the values of the runs that did not diverge.

    One that did has no top: its calm part is shown, beside others as far as no more than their height from them.
    """

    def shown(record: Record, part: list[float]) -> list[float]:
        ours = _of(record, table, "ours")["value"].quantile(part, interpolation="lower").to_list()
        theirs = _of(record, table, "published")["value"].quantile([0.005, 0.995]).to_list()
        thresholds = [1.0] if relative else record.thresholds.quantile(part).to_list()
        return [value for value in ours + theirs + thresholds * record.compares(panel) if np.isfinite(value)]

    lasting = [value for record in records if not record.diverged for value in shown(record, [0, 1])]
    calm = [value for record in records if record.diverged for value in shown(record, [0.1, 0.6])]
    if not lasting + calm:  # a run that took no step has no RP
        return -1, 1
    if lasting and (height := max(lasting) - min(lasting)):
        calm = np.clip(calm, min(lasting) - height, max(lasting) + height).tolist()
    low, high = min(lasting + calm), max(lasting + calm)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _of(record: Record, table: pd.DataFrame, source: str) -> pd.DataFrame:
    rows: pd.DataFrame = table[(table["run"] == record.name) & (table["source"] == source)]
    return rows


def _placed(record: Record, rows: pd.DataFrame, over: Over) -> pd.DataFrame:
    """The rows of a run with their place on the axis in place of the step."""
    return rows.assign(step=record.times(rows["step"])) if over == "time" else rows


def _legend(
    table: pd.DataFrame, records: Mapping[str, Record], runs: Mapping[str, str], colours: Mapping[str, _style.Colour]
) -> dict[str, Artist]:
    from matplotlib.lines import Line2D

    entries: dict[str, Artist] = {
        label: Line2D([], [], color=colours[name], linewidth=1.4) for name, label in runs.items()
    }
    if (table["source"] == "published").any():
        entries["published"] = Line2D([], [], color=_style.lighter(_style.GREY), linewidth=1.4)
    compared = [run for run in runs if any(map(records[run].compares, table["panel"].unique()))]
    if compared:
        entries[_formula(records, compared)] = Line2D([], [], color=_style.GREY, linestyle=_style.DASHES)
    if any(records[name].diverged for name in runs):
        entries["diverged"] = Line2D([], [], color=_style.GREY, linestyle="", marker="x", **_style.CROSS)
    return entries

"""The recorded series of a figure as a chart to zoom into."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from eosrepro.core.quantities import quantity
from eosrepro.figures import _style
from eosrepro.records.runs import Record
from eosrepro.records.series import series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Chart


DRAWN = ("run", "panel", "step", "value", "source")  # columns of a table that is a series of each run
_OF_EVERY_RUN = ("loss", "relative_progress", "directional_smoothness", "sharpness")  # from top to bottom
_PUBLISHED = "published"
_DASHES = ("solid", "2px,2px", "7px,2px", "7px,2px,2px,2px", "4px,3px", "4px,2px,1px,2px")
_OUTLYING = 5  # times the height of the usual values
_FEW = 200  # points that can be told apart: each gets a marker
_PANEL_HEIGHT = 210  # pixels
_NOTHING = pd.DataFrame({"step": [], "value": []}, dtype=float)
_MARGINS = {"t": 60, "b": 45, "l": 70, "r": 15}  # pixels


@dataclass(frozen=True)
class Part:
    """A figure of params.yaml and what is recorded about it."""

    name: str
    title: str
    runs: Mapping[str, str]  # run → its label
    limits: Mapping[str, Sequence[float]]  # quantity → (lowest, highest) value that the figure shows
    pictures: Sequence[Path]  # of one and the same; empty where it has not been drawn
    drawn: pd.DataFrame | None  # the table of the figure; of use where it has `DRAWN`
    records: Mapping[str, Record]  # those of its runs that are recorded
    published: Mapping[str, Record]  # the published curves of its runs
    settings: Mapping[str, Mapping[str, Any]]  # run → all settings that determine it
    step: str  # what an iteration is: `iteration` or `epoch`
    notes: Sequence[str]  # what is missing or outdated, and what makes it


@dataclass(frozen=True)
class Panel:
    """What one of the charts shows, one below the other."""

    label: str
    quantities: Sequence[str]


def chart(part: Part) -> Chart:
    """The recorded series of the runs of a figure, at full resolution, over their published curves."""
    from plotly.subplots import make_subplots

    panels = _panels(part)
    drawn = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(panels))
    named: set[str] = set()
    for row, panel in enumerate(panels, start=1):
        _put_panel(drawn, part, panel, row, named)
    drawn.update_xaxes(title_text=part.step, title_font_size=13, row=len(panels), col=1)
    drawn.update_xaxes(zeroline=False, showline=True, linecolor="#444", ticks="outside")
    drawn.update_yaxes(zeroline=False, showline=True, linecolor="#444", ticks="outside", automargin=True)
    drawn.update_yaxes(exponentformat="power", gridcolor="#e6e6e6")
    drawn.update_layout(
        template="none",
        height=_PANEL_HEIGHT * len(panels) + _MARGINS["t"] + _MARGINS["b"],
        margin=_MARGINS,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222"},
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0, "groupclick": "togglegroup"},
        hovermode="closest",
        dragmode="zoom",
    )
    return drawn


def _put_panel(drawn: Chart, part: Part, panel: Panel, row: int, named: set[str]) -> None:
    """One panel with its axes; `named` holds what the legend has, and gets what it has then."""
    for trace in _traces(part, panel):
        group = trace["legendgroup"]
        if group not in part.runs and group not in named:  # of several runs: named once, in the colour of none
            grey = _style.lighter(_style.GREY) if group == _PUBLISHED else _style.GREY
            line = {**trace["line"], "color": to_hex(grey)}
            drawn.add_scatter(x=[None], y=[None], mode="lines", name=group, legendgroup=group, line=line)
        drawn.add_scatter(**trace, showlegend=group in part.runs and group not in named, row=row, col=1)
        named.add(group)
    title = {"text": panel.label.replace(" ", "<br>", 1), "standoff": 8, "font": {"size": 13}}
    drawn.update_yaxes(title=title, range=_range(part, panel), row=row, col=1)
    if any(quantity(name).compared_with == "zero" for name in panel.quantities):
        drawn.add_hline(0, line={"color": "black", "width": 1, "dash": "dash"}, row=row, col=1)


def _panels(part: Part) -> list[Panel]:
    """One for each quantity that every run has, with its relatives among what the figure draws; one for each other."""
    drawn = [name for name in _drawn(part)["panel"].unique() if name not in _OF_EVERY_RUN]
    grouped: dict[str, list[str]] = {name: [name] for name in _OF_EVERY_RUN}
    for name in drawn:
        grouped.setdefault(quantity(name).shown_with or name, []).append(name)
    recorded = {
        head: [name for name in names if any(not _series(part, run, name).empty for run in part.records)]
        for head, names in grouped.items()
    }
    return [Panel(_label(head), names) for head, names in recorded.items() if names]


def _series(part: Part, run: str, name: str) -> pd.DataFrame:
    """Columns step and value; no rows where it was not measured."""
    if name in _OF_EVERY_RUN:
        return _recorded(part.records[run], name)
    table = _drawn(part).query("source == 'ours' and run == @run and panel == @name")
    return table[["step", "value"]].dropna()


def _drawn(part: Part) -> pd.DataFrame:
    known = part.drawn is not None and set(DRAWN) <= set(part.drawn.columns)
    return part.drawn if part.drawn is not None and known else pd.DataFrame(columns=list(DRAWN))


def _published_series(part: Part, run: str, name: str) -> pd.DataFrame:
    return _recorded(part.published[run], name) if run in part.published else _NOTHING


def _recorded(record: Record, name: str) -> pd.DataFrame:
    known = name in record.trajectory or any(name in each.table for each in record.measured.values())
    return series(record, name) if known else _NOTHING


def _traces(part: Part, panel: Panel) -> Iterator[dict[str, Any]]:
    """Published curves, ours over them, and 2/η over both."""
    colours = _style.colours(part.runs)
    labels = {run: html.escape(label, quote=False) for run, label in part.runs.items()}
    for run in part.records:
        for name, dash in zip(panel.quantities, cycle(_DASHES), strict=False):
            points = _published_series(part, run, name)
            if not points.empty:
                line = {"color": to_hex(_style.lighter(colours[run])), "width": 2, "dash": dash}
                about = f"{labels[run]}, {_label(name)}, published"
                yield _trace(points, _PUBLISHED, _PUBLISHED, line, about) | {"mode": "lines"}
    for run in part.records:
        for name, dash in zip(panel.quantities, cycle(_DASHES), strict=False):
            points = _series(part, run, name)
            if not points.empty:
                group = run if name == panel.quantities[0] else _label(name)
                line = {"color": to_hex(colours[run]), "width": 1.2, "dash": dash}
                yield _trace(points, labels[run], group, line, f"{labels[run]}, {_label(name)}")
    for run, record in part.records.items():
        if any(map(record.compares, panel.quantities)):
            points, formula = _threshold(record), record.origin.threshold_formula
            line = {"color": to_hex(colours[run]), "width": 1.5, "dash": "dash"}
            yield _trace(points, formula, formula, line, f"{formula}, {labels[run]}") | {"mode": "lines"}


def _threshold(record: Record) -> pd.DataFrame:
    """The stability threshold as a series: its ends where it is one number."""
    known = record.thresholds
    points = known.iloc[[0, -1]] if known.nunique() == 1 else known
    return points.rename("value").rename_axis("step").reset_index()


def _trace(points: pd.DataFrame, name: str, group: str, line: Mapping[str, Any], about: str) -> dict[str, Any]:
    return _at(points["step"].to_numpy()) | {
        "y": _compact(points["value"].to_numpy(dtype=float)),
        "name": name,
        "legendgroup": group,
        "mode": "lines+markers" if 2 < len(points) <= _FEW else "lines",
        "marker": {"size": 4},
        "line": line,
        "hovertemplate": f"{about}<br>%{{y:.6g}} at %{{x}}<extra></extra>",
    }


def _at(steps: np.ndarray) -> dict[str, Any]:
    """Abscissae; of a series that has every iteration they need not be listed, a third of the page in long runs."""
    return {"x0": int(steps[0]), "dx": 1} if np.all(np.diff(steps) == 1) else {"x": steps}


def _compact(values: np.ndarray) -> np.ndarray:
    """Seven digits in half the size, unless they would leave its range."""
    sizes = np.abs(values[(values != 0) & np.isfinite(values)])
    limits = np.finfo(np.float32)
    fits = not len(sizes) or (limits.tiny <= sizes.min() and sizes.max() <= limits.max)
    return values.astype(np.float32) if fits else values


def _range(part: Part, panel: Panel) -> list[float] | None:
    """What is shown at first: as in the figure where it has limits; else all values, but for a few that would flatten
    the others, and for those of a run that diverged, which has no top.
    """
    for name in panel.quantities:
        if name in part.limits:
            return list(map(float, part.limits[name]))
    usual, all_values = _span(part, panel, outer=0.02), _span(part, panel, outer=0.0)
    height = usual[1] - usual[0]
    if not height or all_values[1] - all_values[0] <= _OUTLYING * height:
        return None
    return [usual[0] - 0.05 * height, usual[1] + 0.05 * height]


def _span(part: Part, panel: Panel, *, outer: float) -> tuple[float, float]:
    """The least and the greatest value, without this share of the values at either end, and what is to be seen too."""
    shown: list[float] = []
    for run, record in part.records.items():
        calm = [0.1, 0.6] if record.diverged and outer else [outer, 1 - outer]
        for name in panel.quantities:
            shown += _series(part, run, name)["value"].quantile(calm).to_list()
            shown += _published_series(part, run, name)["value"].quantile([outer, 1 - outer]).to_list()
        shown += [*record.thresholds.quantile(calm)] * any(map(record.compares, panel.quantities))
    finite = [value for value in shown if math.isfinite(value)]
    return min(finite, default=0.0), max(finite, default=0.0)


def _label(name: str) -> str:
    return html.escape(quantity(name).label, quote=False)

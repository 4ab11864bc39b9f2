"""How little L(θ; τu) varies with τ along the next step u (Experiment 5 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from eosrepro.errors import ConfigError
from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.series import series

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Literal[  # the mean over τ, and 1 and 2 standard deviations below and above it
    "directional_smoothness_mean",
    "directional_smoothness_low_1",
    "directional_smoothness_high_1",
    "directional_smoothness_low_2",
    "directional_smoothness_high_2",
]
Published: TypeAlias = "Mapping[Curve, Mapping[str, pd.DataFrame]]"  # curve → run → columns x (iteration) and y

_MEAN = "directional_smoothness_mean"
_LOW, _HIGH = "directional_smoothness_low_{}", "directional_smoothness_high_{}"
_SPREAD = "directional_smoothness_spread"  # standard deviation over τ in units of the threshold
_COLOUR, _PUBLISHED = _style.colours(["ours", "published"]).values()
_SHADES = {2: 0.8, 1: 0.55}  # standard deviations → share of white, the wider band being the fainter
_THIN: Mapping[str, Any] = {"color": _PUBLISHED, "linewidth": 0.45}
_FAINT: Mapping[str, Any] = {"color": _style.lighter(_PUBLISHED, 0.4), "linewidth": 0.35}


def smoothness_band(
    records: Sequence[Record], data_label: str, published: Published, *, title: str, runs: dict[str, str]
) -> tuple[Figure, pd.DataFrame]:
    """One column of axes a run: L over the iterations, its mean over τ with bands, and below it its spread.

    The bands are 1 and 2 standard deviations over τ on either side of the mean, the spread is that deviation in units
    of the stability threshold; its mean over the run stands above it. Dashed: the threshold, 2/η for gradient descent.
    Published curves lie over ours, thin and in another hue, since the lighter shades of ours are the bands: the mean,
    the edges of the band of 2, and as the spread half the width of the band of 1. The axes show L from minus the
    threshold to three times it at most, and a spread up to it; the table holds what a run that diverges has beyond.

    Args:
        records: the runs, in any order.
        data_label: names the training data, on the face of the figure.
        published: the curves to lay over ours; empty for none.
        title: first line of the figure.
        runs: run → heading of its column, from left to right.

    Returns:
        The figure, and all curves as rows (run, panel, step, value, source), panel being one of `Curve` or
        `directional_smoothness_spread`, source `ours` or `published`.

    Raises:
        StoreError: `tau_scan` was not measured on a run.
        ConfigError: the threshold of a run is not one of L.
    """
    by_name = {record.name: record for record in records}
    for name in runs:
        if not by_name[name].compares(_MEAN):
            raise ConfigError(
                f"the threshold of {name} is one of the effective sharpness, and this figure shows L by it"
            )
    ours = {name: _ours(by_name[name]) for name in runs}
    theirs = {name: _theirs(by_name[name], published) for name in runs}
    with _style.styled():
        figure = _style.new_figure(_style.PAGE, 4.1)
        axes = figure.subplots(2, len(runs), sharex="col", squeeze=False, height_ratios=[2.6, 1])
        marks: dict[str, Artist] = {}
        for (bands, spread), (name, heading) in zip(axes.T, runs.items(), strict=True):
            marks |= _draw_bands(bands, ours[name], theirs[name], by_name[name])
            _draw_spread(spread, ours[name], theirs[name])
            bands.set_title(_style.heading(heading, by_name[name]))
            formula = by_name[name].origin.threshold_formula
            spread.set(title=_mean_spread(ours[name], theirs[name], formula), xlabel="iteration")
        axes[0][0].set_ylabel("$L(θ; τu)$, $u$ the step")
        axes[1][0].set_ylabel("std over τ, share\nof the threshold")
        figure.align_ylabels()
        _style.put_title(figure, title, data_label)
        _style.put_legend(figure, marks, columns=6)
    tables = [
        _style.rows(name, str(panel), curves[name][panel].dropna().reset_index(name="value"), source)
        for name in runs
        for source, curves in (("ours", ours), ("published", theirs))
        for panel in curves[name]
    ]
    return figure, pd.concat(tables, ignore_index=True)


def _ours(record: Record) -> pd.DataFrame:
    """All curves as columns, by step."""
    mean, std = (series(record, f"directional_smoothness_{of}").set_index("step")["value"] for of in ("mean", "std"))
    curves = {_MEAN: mean}
    for k in _SHADES:
        curves |= {_LOW.format(k): mean - k * std, _HIGH.format(k): mean + k * std}
    return pd.DataFrame({**curves, _SPREAD: std / record.threshold_at(mean.index)})


def _theirs(record: Record, published: Published) -> pd.DataFrame:
    """The same of the published curves, NaN where there are none."""
    found = {name: curves[record.name] for name, curves in published.items() if record.name in curves}
    curves = {
        name: _style.iterations(curve).drop_duplicates("step").set_index("step")["value"]
        for name, curve in found.items()
    }
    table = pd.DataFrame(curves, columns=list(get_args(Curve)), dtype=float).rename_axis("step")
    return table.assign(
        **{_SPREAD: (table[_HIGH.format(1)] - table[_LOW.format(1)]) / (2 * record.threshold_at(table.index))}
    )


def _draw_bands(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, record: Record) -> dict[str, Artist]:
    marks: dict[str, Artist] = {}
    (marks["mean over τ"],) = axis.plot(ours.index, ours[_MEAN], color=_COLOUR, zorder=3)
    for k, share in sorted(_SHADES.items()):
        marks[f"± {k} std"] = axis.fill_between(
            ours.index,
            ours[_LOW.format(k)],
            ours[_HIGH.format(k)],
            color=_style.lighter(_COLOUR, share),
            linewidth=0,
            zorder=3 - k,
        )
    marks[record.origin.threshold_formula] = _style.put_threshold(axis, record, "black", zorder=6)
    if theirs[_MEAN].notna().any():
        (marks["published mean"],) = axis.plot(theirs.index, theirs[_MEAN], zorder=5, **_THIN)
    for edge in (_LOW, _HIGH):
        if theirs[edge.format(2)].notna().any():
            (marks["published ± 2 std"],) = axis.plot(theirs.index, theirs[edge.format(2)], zorder=4, **_FAINT)
    edges = [curves[edge.format(2)] for curves in (ours, theirs) for edge in (_LOW, _HIGH)]
    threshold = float(record.thresholds.max())
    shown = np.append(pd.concat(edges).clip(-threshold, 3 * threshold), threshold)
    margin = 0.05 * (np.nanmax(shown) - np.nanmin(shown))
    axis.set_ylim(np.nanmin(shown) - margin, np.nanmax(shown) + margin)
    return marks


def _draw_spread(axis: Axes, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.plot(ours.index, ours[_SPREAD], color=_COLOUR, zorder=2)
    axis.plot(theirs.index, theirs[_SPREAD], zorder=3, **_THIN)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(0, 1.05 * min(np.nanmax([*ours[_SPREAD], *theirs[_SPREAD], 0.01]), 1))


def _mean_spread(ours: pd.DataFrame, theirs: pd.DataFrame, formula: str) -> str:
    published = theirs[_SPREAD].mean()
    beside = "" if pd.isna(published) else f" (published {published:.1%})"
    return f"mean {ours[_SPREAD].mean():.1%} of {formula}{beside}"

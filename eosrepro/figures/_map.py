"""A measure over two settings, as colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eosrepro.figures import _style
from eosrepro.records.later import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 8  # names of values that stand side by side
DECADES = 100.0  # the ratio of values from which colours are logarithmic


def heat_map(
    table: pd.DataFrame, axes: Mapping[str, Sequence[str]], measure: str, *, title: str, data_label: str
) -> Figure:
    """The mean of a measure at each pair of values of two settings; white where no run has it.

    Colours are logarithmic where the means are positive and span two decades.

    Args:
        table: a row a run, with columns of these names.
        axes: the setting from left to right and its values, and the one from below.
        title: first line of the figure.
        data_label: names the training data.
    """
    from matplotlib.colors import LogNorm, Normalize

    (x, across), (y, upwards) = axes.items()
    pooled = table.groupby([y, x])[measure].mean().unstack(x)
    means = pooled.reindex(index=[*upwards], columns=[*across]).to_numpy(float)
    known = means[np.isfinite(means)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    norm = LogNorm(low, high) if low > 0 and high / low >= DECADES else Normalize(low, high)
    with _style.styled():
        width = min(_style.PAGE, max(_style.COLUMN, 1.4 + 0.28 * len(across)))
        figure = _style.new_figure(width, min(_style.PAGE, 1.3 + 0.28 * len(upwards)))
        axis = figure.subplots()
        cells = axis.pcolormesh(means, norm=norm, cmap="cividis", edgecolors="white", linewidth=0.4)
        axis.set_xticks(np.arange(len(across)) + 0.5, [*across])
        axis.set_yticks(np.arange(len(upwards)) + 0.5, [*upwards])
        if len(across) > MANY:
            axis.tick_params(axis="x", rotation=90)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        figure.colorbar(cells, label=measure).outline.set_visible(False)
        _style.put_title(figure, title, data_label)
    return figure

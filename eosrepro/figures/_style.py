"""How every figure looks, and how it is written: equal runs give equal files, whatever the user's matplotlibrc says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO, StringIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosrepro.records.files import save_bytes, save_text
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.series import series

if TYPE_CHECKING:  # validating params.yaml looks at the figures, and need not load matplotlib
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.3  # inches, one column of a two-column paper
PAGE = 6.9  # inches, both columns

DASHES = (0, (4, 2))
CROSS: Mapping[str, Any] = {"markersize": 5, "markeredgewidth": 1.2}

Colour = tuple[float, float, float]

GREY: Colour = (0.35, 0.35, 0.35)  # what belongs to no run, or to several

# Okabe and Ito's palette, told apart with any colour vision; without its yellow, which a thin line on white loses.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_STYLE: Mapping[str, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 0.7,
    "lines.solid_joinstyle": "round",  # a mitre would overshoot the extremes of a series that alternates
    "savefig.dpi": 300,
    "svg.hashsalt": "eosrepro",  # else the ids in the file are random
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults plus the style of this project; a figure is made, and saved, inside."""
    import matplotlib.style

    with matplotlib.style.context([dict(_STYLE)], after_reset=True):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def colours(names: Iterable[str]) -> dict[str, Colour]:
    """A colour for each run, by its place in the figure."""
    return {name: _rgb(colour) for name, colour in zip(names, cycle(_COLOURS), strict=False)}


def _rgb(colour: str) -> Colour:
    red, green, blue = (component / 255 for component in bytes.fromhex(colour.removeprefix("#")))
    return red, green, blue


def lighter(colour: Colour, share: float = 0.6) -> Colour:
    """The same hue, mixed with this share of white."""
    red, green, blue = (component + (1 - component) * share for component in colour)
    return red, green, blue


def put_title(figure: Figure, title: str, data_label: str = "") -> None:
    """The title, and below it the data that the figure was made from."""
    figure.suptitle("\n".join(filter(None, (title, data_label))))


def heading(text: str, record: Record) -> str:
    """The heading of the axes of one run; it says where a run diverged."""
    return f"{text}, diverged at {record.summary['steps']}" if record.diverged else text


def put_threshold(axis: Axes, record: Record, colour: Any, zorder: float, *, over_time: bool = False) -> Artist:
    """The stability threshold of a run: a line across, or a curve where it changes from one iteration to the next."""
    known = record.thresholds
    if known.nunique() == 1:
        return axis.axhline(known.iloc[0], color=colour, linestyle=DASHES, zorder=zorder)
    at = record.times(known.index) if over_time else known.index
    (curve,) = axis.plot(at, known, color=colour, linestyle=DASHES, zorder=zorder)
    return curve


def put_legend(figure: Figure, entries: Mapping[str, Artist], columns: int) -> None:
    """One legend below all panels: text → artist."""
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=min(columns, len(entries)))


def nothing_to_draw(title: str, why: str) -> tuple[Figure, pd.DataFrame]:
    """A figure that says so, and an empty table."""
    with styled():
        figure = new_figure(PAGE, 1.2)
        put_title(figure, title, why)
    return figure, pd.DataFrame(columns=["run", "panel", "step", "value", "source"])


def rows(run: str, panel: str, points: pd.DataFrame, source: str = "ours") -> pd.DataFrame:
    """A drawn series (columns step, value) as rows of the figure's table: run, panel, step, value, source."""
    return points.assign(run=run, panel=panel, source=source)[["run", "panel", "step", "value", "source"]]


def compared(record: Record, quantity: str, published: Mapping[Any, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """A recorded quantity as rows of the figure's table, and after them those of its published curve if there is one.

    Raises:
        StoreError: the quantity was not measured.
    """
    ours = rows(record.name, quantity, series(record, quantity))
    curve = published.get(quantity, {}).get(record.name)
    return ours if curve is None else pd.concat([ours, rows(record.name, quantity, iterations(curve), "published")])


def iterations(curve: pd.DataFrame) -> pd.DataFrame:
    """A published curve (columns x, y) as a series: columns step and value.

    Digitised abscissae are good to a few iterations, and iterations are whole numbers.
    """
    return pd.DataFrame({"step": curve["x"].round().astype(int), "value": curve["y"]})


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write the figure as PNG (300 dpi) and SVG. Neither holds a date or a version, so equal figures are equal files.

    Raises:
        StoreError: a file cannot be written.
    """
    raster, vector = BytesIO(), StringIO()
    with styled():
        figure.savefig(raster, format="png", metadata={"Software": None})
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    save_bytes(png, raster.getvalue())
    save_text(svg, vector.getvalue())

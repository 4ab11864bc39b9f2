"""What every figure keeps to, whatever it shows."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from eosrepro import catalog
from eosrepro.errors import StoreError
from eosrepro.figures import _style
from eosrepro.figures.central_flow import central_flow
from eosrepro.figures.expected_progress import expected_progress
from eosrepro.figures.smoothness_band import smoothness_band
from eosrepro.figures.smoothness_relation import smoothness_relation
from eosrepro.figures.toy_paths import toy_paths
from eosrepro.figures.trajectories import trajectories
from tests.figures.test_central_flow import RUNS, three
from tests.records import curve, scanned, stochastic, toy_record, unstable

THRESHOLDS = (30, 60, 90)
LABELS = {f"exp3_2over{threshold}": f"η = 2/{threshold}" for threshold in THRESHOLDS}
LABEL = "CIFAR-10, N = 5000"

Drawn = tuple[Figure, pd.DataFrame]


def draw_trajectories(_folder: Path) -> Drawn:
    records = [unstable(threshold) for threshold in THRESHOLDS]
    panels = ["loss", "relative_progress", "sharpness"]
    published = {panel: {name: curve(name, panel) for name in LABELS} for panel in panels}
    title = "Experiment 3: the unstable regime, tanh, three step sizes"
    return trajectories(records, LABEL, published, title=title, runs=LABELS, panels=panels)


def draw_toy_paths(folder: Path) -> Drawn:
    runs = [toy_record(folder, "quadratic", (0.1, 0.1), f"2/{threshold}", 100) for threshold in (39, 40, 41)]
    return toy_paths(
        [run for run, _ in runs],
        {run.name: f for run, f in runs},
        title="Example 1: a quadratic",
        runs={run.name: f"η = 2/{39 + index}" for index, (run, _) in enumerate(runs)},
        limits={"theta_1": (-0.5, 0.5), "theta_2": (-0.01, 0.15)},
    )


def draw_smoothness_relation(_folder: Path) -> Drawn:
    records = [unstable(threshold) for threshold in THRESHOLDS]
    return smoothness_relation(records, LABEL, title="RP against eq. 4.3", runs=LABELS)


def draw_smoothness_band(_folder: Path) -> Drawn:
    run = "exp3_2over60"
    names = [f"directional_smoothness_{each}" for each in ("mean", "low_1", "high_1", "low_2", "high_2")]
    published: Any = {name: {run: curve(run, name)} for name in names}
    title = "Experiment 5: L along the gradient step, tanh"
    return smoothness_band([scanned()], LABEL, published, title=title, runs={run: "η = 2/60"})


def draw_expected_progress(_folder: Path) -> Drawn:
    runs = {f"exp8_2over{threshold}": f"η = 2/{threshold}" for threshold in (50, 100, 150)}
    sides = ("expected_relative_progress", "predicted_expected_progress")
    published: Any = {side: {name: curve(name, side) for name in runs} for side in sides}
    return expected_progress(
        [stochastic(threshold) for threshold in (50, 100, 150)],
        LABEL,
        published,
        title="Experiment 8: both sides of eq. 5.1, SGD, ReLU",
        runs=runs,
        panels=["loss", "expected_progress", "expected_progress_zoom"],
        prediction=True,
    )


def draw_central_flow(_folder: Path) -> Drawn:
    return central_flow(three(), LABEL, title="Gradient descent and its flows", runs=RUNS)


FIGURES: dict[str, Callable[[Path], Drawn]] = {
    "trajectories": draw_trajectories,
    "toy_paths": draw_toy_paths,
    "smoothness_relation": draw_smoothness_relation,
    "smoothness_band": draw_smoothness_band,
    "expected_progress": draw_expected_progress,
    "central_flow": draw_central_flow,
}


@pytest.fixture(params=sorted(FIGURES))
def draw(request: pytest.FixtureRequest) -> Callable[[Path], Drawn]:
    return FIGURES[request.param]


def test_every_figure_is_tested_here() -> None:
    assert set(FIGURES) == set(catalog.names("figures"))


@pytest.mark.parametrize("name", catalog.names("figures"))
def test_parameters_are_what_the_stage_can_give(name: str) -> None:
    parameters = inspect.signature(catalog.find("figures", name)).parameters.values()
    given = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    options = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert given[0] == "records"
    assert set(given) <= {"records", "data_label", "published", "functions"}
    assert options >= {"title", "runs"}


def test_files_are_equal_for_equal_runs_whatever_the_users_settings(
    draw: Callable[[Path], Drawn], tmp_path: Path
) -> None:
    settings = dict(mpl.rcParams)
    _style.save(draw(tmp_path)[0], tmp_path / "1.png", tmp_path / "1.svg")
    assert dict(mpl.rcParams) == settings
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 20, "axes.grid": True, "savefig.dpi": 50}):
        _style.save(draw(tmp_path)[0], tmp_path / "2.png", tmp_path / "2.svg")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    # Nor do they hold what differs from one machine or day to another.
    text = (tmp_path / "1.svg").read_text()
    assert "dc:date" not in text
    assert "matplotlib.org" not in text
    assert mpl.__version__ not in text
    assert b"Software" not in (tmp_path / "1.png").read_bytes()
    assert len(text) < 800_000


def test_it_reads_at_the_width_of_a_page(draw: Callable[[Path], Drawn], tmp_path: Path) -> None:
    figure, _ = draw(tmp_path)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    assert figure.get_figwidth() <= 6.9
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    boxes = [text.get_window_extent(renderer) for text in [figure._suptitle, *figure.legends[0].get_texts()] if text]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    headings = [axis.title.get_window_extent(renderer) for axis in figure.axes if axis.get_title()]
    assert not any(one.overlaps(other) for one in headings for other in headings if one is not other)


def test_the_table_is_long_and_complete(draw: Callable[[Path], Drawn], tmp_path: Path) -> None:
    table = draw(tmp_path)[1]
    assert list(table) == ["run", "panel", "step", "value", "source"]
    assert set(table["source"]) <= {"ours", "published"}
    assert not table.isna().any(axis=None)
    assert table["step"].dtype.kind == "i"
    assert not table[table["source"] == "ours"].duplicated(["run", "panel", "step"]).any()


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - {"toy_paths"}))
def test_the_data_are_named_on_the_face(name: str, tmp_path: Path) -> None:
    assert LABEL in FIGURES[name](tmp_path)[0].get_suptitle()


def test_pyplot_and_its_global_state_stay_out() -> None:
    names = ", ".join(catalog.names("figures"))
    program = f"import sys; from eosrepro.figures import {names}; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    figure: Any = Figure()
    with pytest.raises(StoreError, match="cannot write"):
        _style.save(figure, tmp_path / "file" / "a.png", tmp_path / "file" / "a.svg")

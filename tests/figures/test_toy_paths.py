"""Paths over contours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.contour import ContourSet

from eosrepro.figures.toy_paths import toy_paths
from tests.records import toy_record

LIMITS = {"theta_1": (-0.5, 0.5), "theta_2": (-0.01, 0.15)}


def test_a_path_in_the_frame_is_drawn_whole(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/40", 100)
    figure, table = toy_paths([run], {run.name: f}, title="Example 1", runs={run.name: "η = 2/40"}, limits=LIMITS)
    axis = figure.axes[0]
    path, start, last = axis.lines
    assert len(path.get_xdata()) == 101
    assert (start.get_xdata()[0], start.get_ydata()[0]) == (0.1, 0.1)
    np.testing.assert_allclose(last.get_xdata(), [-0.1, 0.1])  # the cycle of period 2
    assert axis.get_title() == "η = 2/40"
    assert (axis.get_xlim(), axis.get_ylim()) == (LIMITS["theta_1"], LIMITS["theta_2"])
    contours = [child for child in axis.get_children() if isinstance(child, ContourSet)]
    assert len(contours[0].levels) > 5
    first = table[table["panel"] == "theta_1"]["value"].to_numpy()
    np.testing.assert_allclose(np.abs(first), 0.1)


def test_a_path_that_leaves_the_frame_says_when_and_the_table_has_the_rest(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/39", 100)
    figure, table = toy_paths([run], {run.name: f}, title="", runs={run.name: "η = 2/39"}, limits=LIMITS)
    assert figure.axes[0].get_title() == "η = 2/39, leaves the frame at step 33"
    assert len(figure.axes[0].lines[0].get_xdata()) == 34
    assert len(table) == 2 * 101


def test_steps_cut_the_path(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "tanh_product", (13.0, 0.01), "2/150", 60)
    limits = {"theta_1": (6.0, 14.0), "theta_2": (-1.5, 1.5)}
    figure, table = toy_paths([run], {run.name: f}, title="", runs={run.name: "tanh"}, limits=limits, steps=49)
    assert len(figure.axes[0].lines[0].get_xdata()) == 50
    assert table["step"].max() == 49


def test_contours_are_those_of_the_function(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/41", 5)
    figure, _ = toy_paths([run], {run.name: f}, title="", runs={run.name: ""}, limits=LIMITS)
    contours = next(child for child in figure.axes[0].get_children() if isinstance(child, ContourSet))
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        if len(path.vertices):
            first, second = path.vertices.T
            np.testing.assert_allclose(20 * first**2 + second**2, level, rtol=0.02, atol=1e-3)


def test_runs_are_panels_in_the_order_of_the_figure(tmp_path: Path) -> None:
    pairs = [toy_record(tmp_path, "quadratic", (0.1, 0.1), f"2/{threshold}", 3) for threshold in (41, 40)]
    runs = {pairs[1][0].name: "second", pairs[0][0].name: "first"}
    figure, table = toy_paths(
        [run for run, _ in pairs], {run.name: f for run, f in pairs}, title="", runs=runs, limits=LIMITS
    )
    assert [axis.get_title() for axis in figure.axes] == ["second", "first"]
    assert list(dict.fromkeys(table["run"])) == list(runs)


def test_an_explosion_can_be_drawn(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "product", (13.0, 0.01), "2/150", 49)
    limits = {"theta_1": (6.0, 14.0), "theta_2": (-1.5, 1.5)}
    figure, table = toy_paths([run], {run.name: f}, title="", runs={run.name: "linear"}, limits=limits)
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_title() == "linear, leaves the frame at step 4"
    assert table["value"].abs().max() > 1e50


def test_a_start_outside_the_frame(tmp_path: Path) -> None:
    run, f = toy_record(tmp_path, "quadratic", (3.0, 3.0), "2/39", 3)
    figure, _ = toy_paths([run], {run.name: f}, title="", runs={run.name: "far"}, limits=LIMITS)
    assert figure.axes[0].get_title() == "far, leaves the frame at step 0"

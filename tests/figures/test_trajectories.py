"""What the curves of `trajectories` show, and what they hide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eosrepro.errors import ConfigError, StoreError
from eosrepro.figures.trajectories import trajectories
from eosrepro.records.runs import Record
from tests.records import record, unstable

LOSS = [2.0, 1.5, 1.7, 1.0]


def draw(*records: Record, **options: Any) -> Figure:
    published = options.pop("published", {})
    chosen = {"title": "Title", "runs": {run.name: run.name for run in records}, "panels": ["loss"], **options}
    return trajectories(records, "digits, N = 100", published, **chosen)[0]


def curves(axis: Axes) -> list[Line2D]:
    """Lines that follow data, without the level lines."""
    return [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 0]


def levels(axis: Axes) -> dict[float, Any]:
    """Height → colour of the dashed lines."""
    return {line.get_ydata()[0]: line.get_color() for line in axis.lines if line.get_linestyle() == "--"}


def test_every_point_of_every_quantity_is_drawn() -> None:
    run = unstable(30)
    panels = ["loss", "relative_progress", "directional_smoothness", "sharpness"]
    figure = draw(run, panels=panels)
    for axis, panel in zip(figure.axes, panels, strict=True):
        source = run.sharpness if panel == "sharpness" else run.trajectory
        assert source is not None
        kept = source.dropna(subset=[panel])
        (line,) = curves(axis)
        np.testing.assert_array_equal(line.get_xdata(), kept["step"])
        np.testing.assert_array_equal(line.get_ydata(), kept[panel])
        low, high = axis.get_ylim()
        assert low < kept[panel].min() < kept[panel].max() < high


def test_a_series_of_period_2_keeps_its_amplitude_in_every_pixel_column() -> None:
    alternating = [(-1.0) ** step for step in range(3001)]
    figure = draw(record({"loss": alternating}))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    axis = figure.axes[0]
    (left, bottom), (right, top) = axis.transData.transform([(0, -1), (3000, 1)]).round().astype(int)
    band = pixels[pixels.shape[0] - top : pixels.shape[0] - bottom, left + 1 : right]
    blue = band[..., 2] - band[..., 0] > 60
    assert blue[:4].any(axis=0).all()
    assert blue[-4:].any(axis=0).all()


def test_thresholds_and_zero_are_dashed() -> None:
    first = record({"relative_progress": [-1.0, 0.0], "directional_smoothness": [1.0, 2.0]}, name="a", step_size="2/30")
    second = record(
        {"relative_progress": [-1.0, 0.0], "directional_smoothness": [1.0, 2.0]}, name="b", step_size="2/60"
    )
    figure = draw(first, second, panels=["relative_progress", "directional_smoothness"])
    progress, smoothness = figure.axes
    assert list(levels(progress)) == [0.0]
    drawn = {line.get_color(): line for line in curves(smoothness)}
    assert set(levels(smoothness)) == {30.0, 60.0}
    assert list(levels(smoothness).values()) == list(drawn)  # each in the colour of its run
    assert smoothness.get_ylim()[1] > 60


def test_a_threshold_that_runs_share_is_in_the_colour_of_none() -> None:
    runs = [record({"directional_smoothness": [1.0, 2.0]}, name=name) for name in "ab"]
    axis = draw(*runs, panels=["directional_smoothness"]).axes[0]
    assert not set(levels(axis).values()) & {line.get_color() for line in curves(axis)}


def test_published_curves_lie_below_and_are_named_once() -> None:
    runs = [record({"loss": LOSS}, name=name) for name in "ab"]
    theirs = pd.DataFrame({"x": [-0.3, 0.7, 2.2], "y": [2.2, 2.1, 2.0]})
    figure, table = trajectories(
        runs, "digits", {"loss": {"a": theirs, "b": theirs}}, title="", runs={"a": "A", "b": "B"}, panels=["loss"]
    )
    below = [line for line in curves(figure.axes[0]) if len(line.get_xdata()) == 3]
    ours = [line for line in curves(figure.axes[0]) if len(line.get_xdata()) == 4]
    assert max(line.get_zorder() for line in below) < min(line.get_zorder() for line in ours)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B", "published"]
    published = table[table["source"] == "published"]
    assert published["step"].to_list() == [0, 1, 2] * 2
    assert published["value"].to_list() == [2.2, 2.1, 2.0] * 2


def test_without_published_curves_the_legend_says_nothing_of_them() -> None:
    assert [text.get_text() for text in draw(record({"loss": LOSS})).legends[0].get_texts()] == ["run"]


def test_a_run_that_diverged_is_marked_and_hides_no_other() -> None:
    calm = record({"loss": LOSS}, name="calm")
    wild = record({"loss": [2.0, 1.9, 2.1, 8.0, 1e4, 1e38, 1e300]}, name="wild", reason="diverged")
    figure = draw(calm, wild)
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    assert high < 1e4
    (mark,) = [line for line in axis.lines if line.get_marker() == "x"]
    assert mark.get_xdata()[0] == 6
    assert low <= mark.get_ydata()[0] <= high
    assert "diverged" in [text.get_text() for text in figure.legends[0].get_texts()]
    FigureCanvasAgg(figure).draw()  # such heights overflow nothing


def test_a_run_that_diverged_within_a_few_steps_hides_no_other() -> None:
    calm = record({"loss": LOSS}, name="calm")
    wild = record({"loss": [2.0, 1e4, 1e12, 2.8e19]}, name="wild", reason="diverged")
    low, high = draw(calm, wild).axes[0].get_ylim()
    height = max(LOSS) - min(LOSS)
    assert min(LOSS) - 1.2 * height <= low < min(LOSS)
    assert max(LOSS) < high <= max(LOSS) + 1.2 * height
    assert draw(wild).axes[0].get_ylim()[1] >= 1e4  # alone it has no other measure


def test_limits_are_kept() -> None:
    assert draw(record({"loss": LOSS}), limits={"loss": (0.5, 4.0)}).axes[0].get_ylim() == (0.5, 4.0)


def test_a_constant_series_has_a_frame() -> None:
    low, high = draw(record({"accuracy": [0.0, 0.0]}), panels=["accuracy"]).axes[0].get_ylim()
    assert low < 0 < high


def test_columns_are_groups_of_runs_side_by_side() -> None:
    runs = [record({"loss": LOSS}, name=name) for name in "abc"]
    figure = draw(*runs, columns={"stable": ["a"], "unstable": ["b", "c"]})
    assert [axis.get_title() for axis in figure.axes] == ["stable", "unstable"]
    assert [len(curves(axis)) for axis in figure.axes] == [1, 2]
    colours = [line.get_color() for axis in figure.axes for line in curves(axis)]
    assert len(set(colours)) == 3


def test_a_column_of_an_unknown_run() -> None:
    with pytest.raises(ConfigError, match=r"columns: 'd' is not among the runs of the figure \(there are: run\)"):
        draw(record({"loss": LOSS}), columns={"stable": ["d"]})


def test_sharpness_that_was_not_measured() -> None:
    with pytest.raises(StoreError, match="has not been measured"):
        draw(record({"loss": LOSS}), panels=["sharpness"])


def test_a_run_that_took_no_step_has_an_empty_panel() -> None:
    axis = draw(record({"relative_progress": [float("nan")], "loss": [2.0]}), panels=["relative_progress"]).axes[0]
    assert curves(axis) == []
    assert list(levels(axis)) == [0]


def test_a_threshold_that_changes_is_a_dashed_curve() -> None:
    """What a step-size drop, or Adam, has: the recorded threshold of each iteration, not 2/η of the run."""
    changing = [40.0, 40.0, 80.0, 80.0]
    table = {"loss": LOSS, "directional_smoothness": [1.0, 2.0, 3.0, 4.0], "stability_threshold": changing}
    run = record(table, step_size="2/30")
    figure = draw(run, panels=["directional_smoothness"])
    (dashed,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed.get_ydata(), changing)
    assert figure.axes[0].get_ylim()[1] > 80


def test_over_time_an_iteration_is_as_long_as_its_step_size() -> None:
    """Points and thresholds that change alike; runs of two step sizes stand beside each other."""
    changing = {
        "loss": LOSS,
        "directional_smoothness": [1.0, 2.0, 3.0, 4.0],
        "stability_threshold": [4.0, 4.0, 8.0, 8.0],
    }
    fast = record(changing, step_size="1/2", name="fast")
    slow = record({"loss": LOSS, "directional_smoothness": [1.0, 2.0, 3.0, 4.0]}, step_size="1/4", name="slow")
    figure = draw(fast, slow, panels=["loss", "directional_smoothness"], over="time")
    first, second = curves(figure.axes[0])
    assert (list(first.get_xdata()), list(second.get_xdata())) == ([0, 0.5, 1, 1.5], [0, 0.25, 0.5, 0.75])
    (dashed,) = [line for line in figure.axes[1].lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 4]
    assert list(dashed.get_xdata()) == [0, 0.5, 1, 1.5]
    assert figure.axes[-1].get_xlabel().startswith("time")


@pytest.mark.parametrize("formula", ["2/ηₜ", "SAM edge", ""])
def test_over_time_a_schedule_counts_whatever_the_threshold_is_called(formula: str) -> None:
    run = record({"loss": LOSS}, step_size="1/2")
    schedule = {"warm_up": 2, "drops": {"3": "1/4"}}
    settings = {**run.origin.settings, "schedule": schedule}
    run = replace(run, origin=replace(run.origin, settings=settings, threshold_formula=formula))
    (curve,) = curves(draw(run, over="time").axes[0])
    assert list(curve.get_xdata()) == [0, 0.25, 0.75, 1.25]  # η/2, η, η, and then η/4
    assert list(run.times([4, 0])) == [1.375, 0]


def test_an_epoch_has_no_time_of_one_step() -> None:
    run = record({"loss": LOSS})
    with pytest.raises(ConfigError, match="an iteration of run is an epoch, of many steps"):
        draw(replace(run, origin=replace(run.origin, counts="epochs")), over="time")

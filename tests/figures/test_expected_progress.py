"""Both sides of eq. 5.1 over the epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eosrepro.errors import StoreError
from eosrepro.figures.expected_progress import expected_progress
from eosrepro.records.runs import Record
from tests.records import curve, record, stochastic

LOSS = [2.3, 1.9, 2.0, 1.2]
LEFT = [-0.6, 0.2, 1.5, 4.0]
RIGHT = [-0.7, 0.3, 2.0, 5.0]
PANELS = ["loss", "expected_progress", "expected_progress_zoom"]


def sgd(name: str = "run", *, loss: list[float] = LOSS, left: list[float] = LEFT, **options: Any) -> Record:
    measured = {
        "step": range(len(left)),
        "expected_relative_progress": left,
        "predicted_expected_progress": RIGHT + left[len(RIGHT) :],
    }
    return record({"loss": loss}, name=name, measured={"expected_progress": measured}, **options)


def draw(*records: Record, **options: Any) -> tuple[Figure, pd.DataFrame]:
    published = options.pop("published", {})
    runs = {run.name: f"heading of {run.name}" for run in records}
    chosen = {"title": "Title", "runs": runs, "panels": PANELS, "prediction": True, **options}
    return expected_progress(records, "digits", published, **chosen)


def curves(axis: Axes) -> list[Line2D]:
    return [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata())]


def ordinates(axis: Axes) -> list[list[float]]:
    return [list(line.get_ydata()) for line in curves(axis)]


def named(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_are_those_of_the_record() -> None:
    figure, table = draw(sgd())
    loss, progress, zoom = figure.axes
    assert ordinates(loss) == [LOSS]
    assert ordinates(progress) == ordinates(zoom) == [RIGHT, LEFT]
    assert all(list(line.get_xdata()) == [0, 1, 2, 3] for axis in figure.axes for line in curves(axis))
    values = {panel: rows["value"].tolist() for panel, rows in table.groupby("panel")}
    assert values == {"loss": LOSS, "expected_relative_progress": LEFT, "predicted_expected_progress": RIGHT}
    assert named(figure) == ["loss", "E[RP]", "right side of eq. 5.1"]


def test_a_curve_has_one_colour_in_the_panels_and_in_the_legend() -> None:
    figure, _ = draw(sgd())
    loss, progress, zoom = figure.axes
    right, left = (line.get_color() for line in curves(progress))
    assert [line.get_color() for line in curves(zoom)] == [right, left]
    in_legend = [handle.get_color() for handle in figure.legends[0].get_lines()]
    assert in_legend == [curves(loss)[0].get_color(), left, right]
    assert len(set(in_legend)) == 3


def test_without_the_prediction_only_the_progress_is_drawn() -> None:
    figure, table = draw(sgd(), prediction=False, panels=["expected_progress"])
    assert ordinates(figure.axes[0]) == [LEFT]
    assert named(figure) == ["E[RP]"]
    assert set(table["panel"]) == {"expected_relative_progress"}


def test_panels_are_rows_in_the_order_that_is_asked_for() -> None:
    figure, _ = draw(sgd(), panels=PANELS[::-1])
    assert ordinates(figure.axes[-1]) == [LOSS]
    assert figure.axes[0].get_ylim() == (-1, 1)
    assert [axis.get_ylabel().replace("\n", " ") for axis in figure.axes] == [
        "expected relative progress, zoom", "expected relative progress", "training loss",
    ]  # fmt: skip
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "epoch"]


def test_zero_is_dashed_where_progress_is_shown() -> None:
    loss, *progress = draw(sgd())[0].axes
    assert not [line for line in loss.lines if line.get_linestyle() == "--"]
    for axis in progress:
        (dashed,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert set(dashed.get_ydata()) == {0}


def test_the_zoom_is_one_about_zero_and_the_other_panel_holds_all() -> None:
    _, progress, zoom = draw(sgd())[0].axes
    assert zoom.get_ylim() == (-1, 1)
    assert -1.5 < progress.get_ylim()[0] < -1  # where it is while steps are small
    assert progress.get_ylim()[1] > max(RIGHT)


def test_a_few_epochs_far_above_the_others_do_not_flatten_them() -> None:
    left = [float(np.sin(epoch)) for epoch in range(1000)]
    left[500] = 1e6
    figure, table = draw(sgd(loss=[1.0] * 1000, left=left), panels=["expected_progress"])
    assert figure.axes[0].get_ylim()[1] < 10
    assert table["value"].max() == 1e6


def test_published_curves_lie_below_ours_in_a_lighter_shade() -> None:
    theirs = pd.DataFrame({"x": [1.02, 2.02], "y": [-0.5, 0.1]})
    published = {
        panel: {"run": theirs} for panel in ("loss", "expected_relative_progress", "predicted_expected_progress")
    }
    figure, table = draw(sgd(), published=published)
    for axis in figure.axes:
        drawn = curves(axis)
        n = len(drawn) // 2
        assert [list(line.get_xdata()) for line in drawn[:n]] == [[1, 2]] * n
        assert [list(line.get_ydata()) for line in drawn[:n]] == [[-0.5, 0.1]] * n
        for below, ours in zip(drawn[:n], drawn[n:], strict=True):
            assert np.all(np.array(below.get_color()) >= ours.get_color())
            assert below.get_color() != ours.get_color()
    assert named(figure) == ["loss", "E[RP]", "right side of eq. 5.1", "published"]
    assert table[table["source"] == "published"]["step"].tolist() == [1, 2] * 3


def test_a_published_prediction_is_not_drawn_where_ours_is_not() -> None:
    published = {"predicted_expected_progress": {"run": pd.DataFrame({"x": [1.0], "y": [0.5]})}}
    figure, table = draw(sgd(), published=published, prediction=False)
    assert set(table["source"]) == {"ours"}
    assert "published" not in named(figure)


def test_both_of_the_papers_curves_are_in_the_frame() -> None:
    run = stochastic(150)
    axis = draw(run, panels=["expected_progress"])[0].axes[0]
    low, high = axis.get_ylim()
    for side in ("expected_relative_progress", "predicted_expected_progress"):
        values = curve("exp8_2over150", side)["y"]
        assert values.between(low, high).mean() > 0.99
        assert values.max() > 0.8 * high  # and fill it


def test_runs_are_columns_with_axes_of_their_own() -> None:
    runs = {"b": "heading of b", "a": "heading of a"}
    figure, table = draw(sgd("a", left=[40.0, 80.0, 90.0, 70.0]), sgd("b"), runs=runs)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["heading of b", "heading of a"]
    assert figure.axes[2].get_ylim()[1] < 10 < figure.axes[3].get_ylim()[1]
    assert list(dict.fromkeys(table["run"])) == ["b", "a"]


def test_a_run_that_diverged_says_so_and_keeps_its_loss_readable() -> None:
    axis = draw(sgd(loss=[2.3, 1.9, 50.0, 1e30], reason="diverged"))[0].axes[0]
    assert axis.get_title() == "heading of run, diverged at 3"
    assert 2.3 < axis.get_ylim()[1] < 5


def test_a_run_that_was_not_measured() -> None:
    with pytest.raises(StoreError, match=r"expected_relative_progress of run has not been measured .* `dvc repro`"):
        draw(record({"loss": LOSS}))

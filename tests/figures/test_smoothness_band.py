"""Bands of L along the step, and their width."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from eosrepro.errors import StoreError
from eosrepro.figures import _style
from eosrepro.figures.smoothness_band import Curve, smoothness_band
from eosrepro.records.runs import Record
from tests.records import curve, record, scanned, unstable

MEAN = np.array([6.0, 20.0, 33.0, 28.0])
STD = np.array([0.0, 1.5, 3.0, 1.5])
STEPS = [0, 5, 10, 15]
SCAN = {"step": STEPS, "directional_smoothness_mean": MEAN, "directional_smoothness_std": STD}


def scan(name: str = "run", **options: Any) -> Record:
    return record({"loss": [2.0] * 16}, name=name, measured={"tau_scan": SCAN}, **options)


def draw(*records: Record, published: Any = None) -> tuple[Figure, pd.DataFrame]:
    runs = {run.name: f"heading of {run.name}" for run in records}
    return smoothness_band(records, "digits", published or {}, title="Title", runs=runs)


def published_curves() -> dict[str, dict[str, pd.DataFrame]]:
    """As the paper's are: bands about the mean 30 and abscissae that are not whole."""
    offsets = {"mean": 0.0, "low_1": -3.0, "high_1": 3.0, "low_2": -6.0, "high_2": 6.0}
    return {
        f"directional_smoothness_{name}": {"run": pd.DataFrame({"x": [4.7, 9.71], "y": [30 + offset, 30 + offset]})}
        for name, offset in offsets.items()
    }


def lines(axis: Axes) -> list[tuple[list[float], list[float]]]:
    """Abscissae and ordinates of the solid lines."""
    solid = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in solid]


def outline(axis: Axes, number: int) -> dict[float, tuple[float, float]]:
    """Lowest and highest point of a band, by step."""
    vertices = axis.collections[number].get_paths()[0].vertices
    return {
        step: (vertices[vertices[:, 0] == step, 1].min(), vertices[vertices[:, 0] == step, 1].max()) for step in STEPS
    }


def test_mean_and_bands_are_those_of_the_record() -> None:
    bands, _ = draw(scan())[0].axes
    assert lines(bands) == [(STEPS, MEAN.tolist())]
    for number, k in enumerate((1, 2)):
        edges = np.array(list(outline(bands, number).values()))
        np.testing.assert_allclose(edges, np.transpose([MEAN - k * STD, MEAN + k * STD]))
    inner, outer = bands.collections
    assert inner.get_zorder() > outer.get_zorder()
    assert not same_color(inner.get_facecolor()[0], outer.get_facecolor()[0])


def test_2_over_eta_is_dashed_and_in_the_frame() -> None:
    bands, _ = draw(scan(step_size="2/50"))[0].axes
    (dashed,) = [line for line in bands.lines if line.get_linestyle() == "--"]
    assert set(dashed.get_ydata()) == {50.0}
    low, high = bands.get_ylim()
    assert low < MEAN[0] < 50 < high


def test_the_spread_is_a_share_of_2_over_eta_and_its_mean_is_stated() -> None:
    _, spread = draw(scan())[0].axes
    assert lines(spread) == [(STEPS, [0.0, 0.05, 0.1, 0.05])]
    assert spread.get_title() == "mean 5.0% of 2/η"
    assert spread.yaxis.get_major_formatter()(0.1) == "10%"
    assert spread.get_ylim()[0] == 0
    assert spread.get_ylim()[1] > 0.1


def test_published_curves_lie_over_ours_in_another_hue() -> None:
    figure, table = draw(scan(), published=published_curves())
    bands, spread = figure.axes
    assert lines(bands)[1:] == [([5, 10], [each] * 2) for each in (30.0, 24.0, 36.0)]
    ours, *theirs = [line for line in bands.lines if line.get_linestyle() == "-"]
    assert min(line.get_zorder() for line in theirs) > ours.get_zorder()
    assert ours.get_color() not in [line.get_color() for line in theirs]
    assert lines(spread)[1] == ([5, 10], [0.1, 0.1])
    assert spread.get_title() == "mean 5.0% of 2/η (published 10.0%)"
    published = table[table["source"] == "published"].set_index(["panel", "step"])["value"]
    assert published["directional_smoothness_low_1"].to_dict() == {5: 27.0, 10: 27.0}
    assert published["directional_smoothness_spread"].to_dict() == {5: 0.1, 10: 0.1}
    assert len(published) == 2 * 6


def test_the_legend_names_what_is_drawn() -> None:
    def named(figure: Figure) -> list[str]:
        return [text.get_text() for text in figure.legends[0].get_texts()]

    alone = ["mean over τ", "± 1 std", "± 2 std", "2/η"]
    assert named(draw(scan())[0]) == alone
    assert named(draw(scan(), published=published_curves())[0]) == [*alone, "published mean", "published ± 2 std"]
    only_mean = {"directional_smoothness_mean": published_curves()["directional_smoothness_mean"]}
    figure, _ = draw(scan(), published=only_mean)
    assert named(figure) == [*alone, "published mean"]
    assert figure.axes[1].get_title() == "mean 5.0% of 2/η"


def test_the_table_holds_all_curves() -> None:
    table = draw(scan())[1]
    assert set(table["panel"]) == {*get_args(Curve), "directional_smoothness_spread"}
    values = table.pivot_table(index="step", columns="panel", values="value")
    assert values.index.tolist() == STEPS
    np.testing.assert_allclose(values["directional_smoothness_mean"], MEAN)
    np.testing.assert_allclose(values["directional_smoothness_low_2"], MEAN - 2 * STD)
    np.testing.assert_allclose(values["directional_smoothness_high_1"], MEAN + STD)
    np.testing.assert_allclose(values["directional_smoothness_spread"], STD / 30)


def test_the_papers_spread_is_four_and_a_half_percent() -> None:
    run = "exp3_2over60"
    published = {
        name: {run: curve(run, name)} for name in ("directional_smoothness_low_1", "directional_smoothness_high_1")
    }
    assert draw(scanned(), published=published)[0].axes[1].get_title() == "mean 4.5% of 2/η (published 4.5%)"


def test_runs_are_columns_in_the_order_of_the_figure() -> None:
    runs = {"b": "heading of b", "a": "heading of a"}
    figure, table = smoothness_band([scan("a", step_size="2/60"), scan("b")], "digits", {}, title="", runs=runs)
    assert [axis.get_title() for axis in figure.axes] == [
        "heading of b", "heading of a", "mean 5.0% of 2/η", "mean 2.5% of 2/η",
    ]  # fmt: skip
    assert list(dict.fromkeys(table["run"])) == ["b", "a"]


def test_a_run_that_diverged_says_so_and_keeps_the_frame_readable() -> None:
    wild = {
        "step": STEPS,
        "directional_smoothness_mean": [6.0, 20.0, 1e6, 1e30],
        "directional_smoothness_std": [0.0, 1.0, 1e5, 1e29],
    }
    figure, table = draw(record({"loss": [2.0] * 17}, reason="diverged", measured={"tau_scan": wild}))
    bands, spread = figure.axes
    assert bands.get_title() == "heading of run, diverged at 16"
    assert -30 <= bands.get_ylim()[0] < 6 < bands.get_ylim()[1] < 4 * 30
    assert spread.get_ylim()[1] < 1.1
    assert table["value"].max() == 1e30 + 2e29


def test_a_run_that_was_not_scanned() -> None:
    with pytest.raises(StoreError, match=r"directional_smoothness_mean of exp3_2over30 has not been .* `dvc repro`"):
        draw(unstable(30))


def test_colours_of_ours_and_the_published_differ_from_the_bands() -> None:
    bands = draw(scan(), published=published_curves())[0].axes[0]
    shades = [collection.get_facecolor()[0][:3] for collection in bands.collections]
    ours = _style.colours(["ours"])["ours"]
    assert all(np.all(np.asarray(shade) >= ours) for shade in shades)  # the same hue, mixed with white

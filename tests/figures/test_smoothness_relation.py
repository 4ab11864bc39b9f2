"""Eq. 4.3 as a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from eosrepro.figures.smoothness_relation import smoothness_relation
from tests.records import record, toy_record


def test_on_a_quadratic_every_point_is_on_the_line(tmp_path: Path) -> None:
    run, _ = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/41", 30)
    figure, table = smoothness_relation([run], "", title="Eq. 4.3", runs={run.name: "η = 2/41"})
    equality, points = figure.axes[0].lines
    np.testing.assert_allclose(points.get_xdata(), points.get_ydata(), rtol=1e-9)
    np.testing.assert_array_equal(equality.get_xdata(), equality.get_ydata())
    assert len(points.get_xdata()) == 30
    assert figure.axes[0].get_title() == "η = 2/41, relative error 0.0%"
    assert set(table["panel"]) == {"relative_progress", "predicted_relative_progress"}


def test_the_error_is_stated() -> None:
    run = record({"directional_smoothness": [30.0, 27.0, np.nan], "relative_progress": [0.1, -0.01, np.nan]})
    figure, table = smoothness_relation([run], "digits", title="", runs={"run": "η = 2/30"})
    assert figure.axes[0].get_title() == "η = 2/30, relative error 10.0%"
    predicted = table[table["panel"] == "predicted_relative_progress"]
    np.testing.assert_allclose(predicted["value"], [0.0, -0.1], atol=1e-12)


def test_a_run_without_an_error_to_state_is_drawn() -> None:
    run = record({"directional_smoothness": [0.0, np.nan], "relative_progress": [-0.9, np.nan]})
    figure, _ = smoothness_relation([run], "digits", title="", runs={"run": "still"})
    assert len(figure.axes[0].lines[1].get_xdata()) == 1


def test_it_shows_runs_of_gradient_descent_alone() -> None:
    columns = {"directional_smoothness": [30.0, 27.0, np.nan], "relative_progress": [0.1, -0.01, np.nan]}
    ours, other = record(columns), record(columns)
    other = dataclasses.replace(
        other, name="other", origin=dataclasses.replace(other.origin, threshold_formula="38/η", preconditioned=True)
    )
    runs = {"run": "η = 2/30", "other": "Adam"}
    figure, table = smoothness_relation([ours, other], "digits", title="", runs=runs)
    assert len(figure.axes) == 1
    assert set(table["run"]) == {"run"}
    figure, table = smoothness_relation([other], "digits", title="Eq. 4.3", runs={"other": "Adam"})
    assert table.empty

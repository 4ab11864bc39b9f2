"""What characterises a run, and the published curves beside it."""

from __future__ import annotations

import dataclasses
from math import isnan

import pytest

from eosrepro.verdicts import characteristics
from eosrepro.views.markdown import runs_page
from tests.records import published_record, record, stable, unstable

OURS = record(
    {
        "loss": [2.0, 1.5, 1.6, 1.2, 1.0],
        "relative_progress": [-0.9, -0.6, -0.4, 0.2, float("nan")],
        "directional_smoothness": [1.0, 10.0, 24.0, 33.0, float("nan")],
    },
    name="exp3_2over30",
    sharpness={"step": [0, 2, 4], "sharpness": [10.0, 36.0, 48.0]},
)


def test_each_measure_is_what_its_name_says() -> None:
    assert characteristics.measures(OURS) == pytest.approx(
        {
            "iterations to accuracy": 4,
            "sharpness passes its threshold at": 2,
            "onset of RP": 2,
            "RP after onset, mean": -0.1,
            "RP after onset, share above 0": 0.5,
            "L after onset, mean over its threshold": 28.5 / 30,
            "sharpness in the last half, mean over its threshold": 42 / 30,
            "final loss": 1.0,
        }
    )


def test_on_the_published_curves_they_are_the_papers_numbers() -> None:
    found = characteristics.measures(unstable(60))
    assert (found["iterations to accuracy"], found["onset of RP"], found["sharpness passes its threshold at"]) == (
        1313,
        202,
        159,
    )
    assert found["RP after onset, mean"] == pytest.approx(-0.013, abs=1e-3)
    assert found["L after onset, mean over its threshold"] == pytest.approx(0.98, abs=2e-3)
    assert found["sharpness in the last half, mean over its threshold"] == pytest.approx(1.94, abs=0.01)
    assert found["final loss"] == pytest.approx(0.306, abs=1e-3)


def test_what_is_not_defined_or_not_recorded_is_left_open() -> None:
    found = characteristics.measures(stable(300))  # no onset; the sharpness is not among its curves
    assert {name for name, value in found.items() if not isnan(value)} == {"iterations to accuracy", "final loss"}


def test_of_a_single_published_curve_only_its_own_measures_are_known() -> None:
    found = characteristics.measures(published_record("exp1_linear"))  # its loss, which diverges
    assert {name for name, value in found.items() if not isnan(value)} == {"final loss"}


def test_a_published_run_follows_ours() -> None:
    other = dataclasses.replace(OURS, name="mine", summary={"reason": "max_steps", "steps": 12345})
    made = characteristics.table([other, OURS], {"exp3_2over30": unstable(30), "exp3_2over90": unstable(90)})
    assert made[["run", "source", "ended"]].to_numpy().tolist() == [
        ["mine", "ours", "max_steps at 12,345"],
        ["exp3_2over30", "ours", "accuracy at 4"],
        ["exp3_2over30", "published", ""],
    ]
    assert made["onset of RP"].tolist() == [2, 2, 55]
    lines = runs_page(made).splitlines()
    assert lines[:2] == ["# Runs", ""]
    assert len(lines) == 9
    assert lines[4] == "| `mine` | ours | max_steps at 12,345 |  | 2 | 2 | -0.1 | 0.5 | 0.95 | 1.4 | 1 |"


def test_published_curves_that_tell_no_measure_have_no_row() -> None:
    ours = dataclasses.replace(OURS, name="exp8_2over50")
    theirs = published_record("exp8_2over50")  # both sides of eq. 5.1
    assert characteristics.table([ours], {"exp8_2over50": theirs})["source"].tolist() == ["ours"]


def test_without_runs_there_is_still_a_table() -> None:
    made = characteristics.table([], {})
    assert list(made) == ["run", "source", "ended", *characteristics.MEASURES]
    assert len(runs_page(made).splitlines()) == 6

"""Gradient descent beside its flows as a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eosrepro.errors import StoreError
from eosrepro.figures.central_flow import central_flow
from eosrepro.records.runs import Measured, Record
from tests.records import record


def of(name: str, method: str, **found: list[float]) -> Record:
    """A run of 4 iterations by that optimizer, with what was measured at two of them."""
    made = record({"loss": [4.0, 3.0, 2.0, 1.0]})
    settings = {**made.origin.settings, "optimizer": {"name": method}}
    formula = "2/η" if method == "gd" else ""
    tables: dict[str, dict[str, Any]] = {}
    for quantity, values in found.items():
        diagnostic = quantity.replace("eigenvalue_2", "sharpness")
        tables.setdefault(diagnostic, {"step": [0, 2]})[quantity] = values
    measured = {name: Measured(pd.DataFrame(table), {}) for name, table in tables.items()}
    origin = replace(made.origin, settings=settings, threshold_formula=formula)
    return replace(made, name=name, origin=origin, measured=measured)


def three() -> list[Record]:
    return [
        of("gd", "gd", midpoint_sharpness=[10.0, 30.0], midpoint_eigenvalue_2=[5.0, 6.0]),
        of("central", "central_flow", sharpness=[11.0, 30.0], predicted_loss=[4.0, 2.5], distance=[0.0, 0.1]),
        of("flow", "gradient_flow", sharpness=[12.0, 90.0], distance=[0.0, 1.5]),
    ]


RUNS = {"gd": "gradient descent", "central": "central flow", "flow": "gradient flow"}


def test_each_run_is_drawn_by_what_it_says() -> None:
    figure, table = central_flow(three(), "toy", title="Flows", runs=RUNS)
    drawn = {(run, panel): rows["value"].to_list() for (run, panel), rows in table.groupby(["run", "panel"])}
    assert drawn == {
        ("gd", "loss"): [4.0, 3.0, 2.0, 1.0],
        ("gd", "midpoint_sharpness"): [10.0, 30.0],
        ("gd", "midpoint_eigenvalue_2"): [5.0, 6.0],
        ("central", "predicted_loss"): [4.0, 2.5],
        ("central", "sharpness"): [11.0, 30.0],
        ("central", "distance"): [0.0, 0.1],
        ("flow", "loss"): [4.0, 3.0, 2.0, 1.0],
        ("flow", "sharpness"): [12.0, 90.0],
        ("flow", "distance"): [0.0, 1.5],
    }
    loss, sharpness, distance = figure.axes
    assert [len(axis.lines) for axis in (loss, sharpness, distance)] == [3, 5, 2]  # and 2/η
    np.testing.assert_array_equal(sharpness.lines[2].get_ydata(), [30, 30])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*RUNS.values(), "2/η"]


def test_limits_are_those_asked_for() -> None:
    figure, _ = central_flow(three(), "toy", title="Flows", runs=RUNS, limits={"sharpness": (0, 40)})
    assert figure.axes[1].get_ylim() == (0, 40)


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(StoreError, match="midpoint_sharpness of gd has not been measured"):
        central_flow([of("gd", "gd")], "toy", title="Flows", runs={"gd": "gradient descent"})


def test_other_optimizers_are_left_out() -> None:
    _, table = central_flow([of("adam", "adam")], "toy", title="Flows", runs={"adam": "Adam"})
    assert table.empty

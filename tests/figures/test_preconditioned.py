"""A run whose threshold is one of the effective sharpness: nothing else is drawn or judged by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from matplotlib.axes import Axes

from eosrepro.errors import ConfigError
from eosrepro.figures.smoothness_band import smoothness_band
from eosrepro.figures.trajectories import trajectories
from eosrepro.records.runs import Record
from eosrepro.verdicts.statistics import UndefinedError, measure
from tests.records import record

PANELS = ["directional_smoothness", "sharpness", "effective_sharpness"]


def run(name: str, *, preconditioned: bool) -> Record:
    columns = {"directional_smoothness": [50.0, 40.0], "stability_threshold": [38.0, 38.0]}
    measured = {
        "sharpness": {"step": [0, 1], "sharpness": [60.0, 80.0]},
        "effective_sharpness": {"step": [0, 1], "effective_sharpness": [19.0, 57.0]},
        "tau_scan": {"step": [0], "directional_smoothness_mean": [50.0], "directional_smoothness_std": [1.0]},
    }
    made = record({"loss": [2.0, 1.0], **columns}, name=name, measured=measured)
    return replace(made, origin=replace(made.origin, preconditioned=preconditioned, threshold_formula="38/η"))


def draw(*records: Record, **options: Any) -> tuple[list[Axes], dict[str, list[float]]]:
    runs = {each.name: each.name for each in records}
    figure, table = trajectories(records, "", {}, title="", runs=runs, panels=PANELS, **options)
    values = table[table["run"] == records[0].name].groupby("panel")["value"].apply(list)
    return figure.axes, dict(values)


def levels(axis: Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"]


def test_the_threshold_is_drawn_beside_the_effective_sharpness_alone() -> None:
    axes, _ = draw(run("adam", preconditioned=True))
    assert [levels(axis) for axis in axes] == [[], [], [38.0]]
    axes, _ = draw(run("gd", preconditioned=False))
    assert [levels(axis) for axis in axes] == [[38.0]] * 3


def test_in_units_of_the_threshold_other_panels_stay_absolute() -> None:
    axes, values = draw(run("adam", preconditioned=True), units="threshold")
    assert [levels(axis) for axis in axes] == [[], [], [1.0]]
    assert [axis.get_ylabel() for axis in axes] == [
        "directional smoothness", "sharpness", "effective sharpness\nin units of 38/η",
    ]  # fmt: skip
    assert values["sharpness"] == [60.0, 80.0]
    assert values["effective_sharpness"] == [0.5, 1.5]


def test_one_panel_has_one_unit() -> None:
    """Beside Adam, the sharpness of gradient descent is absolute too, and its threshold is drawn."""
    axes, values = draw(run("gd", preconditioned=False), run("adam", preconditioned=True), units="threshold")
    assert [levels(axis) for axis in axes] == [[38.0], [38.0], [1.0]]
    assert values["sharpness"] == [60.0, 80.0]


def test_bands_of_l_are_refused() -> None:
    with pytest.raises(ConfigError, match="the threshold of adam is one of the effective sharpness"):
        smoothness_band([run("adam", preconditioned=True)], "", {}, title="", runs={"adam": "Adam"})


@pytest.mark.parametrize("quantity", ["sharpness", "directional_smoothness"])
def test_a_raw_quantity_is_not_judged_by_it(quantity: str) -> None:
    adam, gd = (run(name, preconditioned=name == "adam") for name in ("adam", "gd"))
    with pytest.raises(
        UndefinedError, match=f"the threshold of adam is one of the effective sharpness, not of {quantity}"
    ):
        measure(adam, quantity, "max", relative_to="threshold")
    assert measure(gd, quantity, "max", relative_to="threshold").value > 1
    assert measure(adam, "effective_sharpness", "max", relative_to="threshold").value == 1.5
    assert measure(adam, "effective_sharpness", "first_above", relative_to="threshold").value == 1

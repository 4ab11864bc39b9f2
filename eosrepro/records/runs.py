"""What is recorded of a run: its settings, trajectory, end, and what diagnostics measured on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eosrepro.core.quantities import compared_with_threshold
from eosrepro.core.schedules import share_of, times
from eosrepro.core.types import OF_GRADIENT_STEPS, Outcome, Row
from eosrepro.errors import StoreError
from eosrepro.records.files import load_facts, load_json, load_verified_table, save_json, save_table, sha256
from eosrepro.records.later import pandas as pd
from eosrepro.records.places import STAGES
from eosrepro.records.snapshots import last_snapshot, place_snapshots


@dataclass(frozen=True)
class Origin:
    """What a run was made with: run.json beside its trajectory."""

    settings: Mapping[str, Any]  # as `Run.settings`
    data: str  # names the training data; "" for a problem
    data_sha256: str | None  # as in their provenance
    counts: str  # "iterations" or "epochs": what its steps are
    fingerprint: str  # of all that made the run
    threshold_formula: str  # of the optimizer's stability threshold: 2/η
    preconditioned: bool = False  # that threshold is one of the effective sharpness

    @property
    def step_size(self) -> Fraction:
        """η."""
        return Fraction(self.settings["step_size"])

    @property
    def is_gradient_descent(self) -> bool:
        """Whether each of its iterations is θ − η∇f, of all examples."""
        return (self.threshold_formula, self.preconditioned, self.counts) == (OF_GRADIENT_STEPS, False, "iterations")

    @property
    def problem_and_step(self) -> dict[str, Any]:
        """What a diagnostic looks at beside snapshots and data."""
        named = ("model", "loss", "problem", "optimizer", "step_size", "seed")  # coordinates may hang on the start
        found = {key: self.settings[key] for key in named if key in self.settings}
        reduced = self.settings.get("compute", {}).get("reduce_inputs", False)
        return found | ({"compute.reduce_inputs": True} if reduced else {})


class Measured(NamedTuple):
    """What a diagnostic found along a run."""

    table: pd.DataFrame  # a row a snapshot: step and what the diagnostic yields
    settings: Mapping[str, Any]  # that it was measured with


@dataclass(frozen=True)
class Record:
    """All that is on disk about one run, for figures and claims."""

    name: str
    step_size: Fraction
    trajectory: pd.DataFrame  # one row an iteration, columns as `types.Row.columns`
    measured: Mapping[str, Measured]  # by diagnostic, of those that were measured since it was trained
    summary: Mapping[str, Any]  # as `types.Outcome`
    origin: Origin
    snapshots: Path  # of θ

    @property
    def ended(self) -> str:
        """Why, and at which iteration."""
        return f"{self.summary['reason']} at {self.summary['steps']:,}"

    @property
    def diverged(self) -> bool:
        """Whether that was why."""
        return bool(self.summary["reason"] == "diverged")

    @property
    def thresholds(self) -> pd.Series:
        """The stability threshold by iteration; of published curves, which are of GD, 2/η at their ends."""
        if "stability_threshold" in self.trajectory:
            return self.trajectory.set_index("step")["stability_threshold"]
        return pd.Series(float(2 / self.step_size), index=[0, int(self.summary["steps"])])

    def threshold_at(self, steps: Iterable[int]) -> np.ndarray:
        """The stability threshold at these iterations, (n,)."""
        known = self.thresholds
        return known.to_numpy(float)[known.index.searchsorted(list(steps), side="right") - 1]

    def times(self, steps: Iterable[int]) -> np.ndarray:
        """The time of gradient flow at these iterations, (n,): the sum of the step sizes before each."""
        at = np.array(list(steps), dtype=int)
        if not (written := self.origin.settings.get("schedule")):
            return at * float(self.step_size)
        drops = {int(step): float(Fraction(str(share))) for step, share in written["drops"].items()}
        factor = partial(share_of, warm_up=written["warm_up"], drops=drops)
        found: np.ndarray = np.array(times(self.step_size, int(at.max(initial=0)), factor), dtype=float)[at]
        return found

    def compares(self, quantity: str) -> bool:
        """Whether its threshold is one of that quantity."""
        preconditioned, formula = self.origin.preconditioned, self.origin.threshold_formula
        return formula != "" and compared_with_threshold(quantity, preconditioned=preconditioned)

    @property
    def sharpness(self) -> pd.DataFrame | None:
        """A row a snapshot: step, sharpness, residual, ...; None where it was not measured."""
        return self.measured["sharpness"].table if "sharpness" in self.measured else None


def load_record(trained: Path) -> Record:
    """All that is recorded of the run in a folder of `train_folder`, or in one of a study.

    Raises:
        StoreError: there is none, it is of an earlier version, or it cannot be read.
    """
    origin = load_origin(trained)
    table_sha256 = load_json(trained / "run.json").get("table_sha256")
    return Record(
        name=origin.settings["name"],
        step_size=origin.step_size,
        trajectory=load_verified_table(trained / "trajectory.csv", table_sha256),
        measured=_load_measured(_measured_on(trained), last_snapshot(trained / "snapshots"), origin),
        summary=load_facts(trained / "summary.json", "reason", "steps"),
        origin=origin,
        snapshots=trained / "snapshots",
    )


def load_origin(trained: Path) -> Origin:
    """What the run in a folder was made with.

    Raises:
        StoreError: as `load_record`.
    """
    path = trained / "run.json"
    if not path.exists() and (trained / "origin.json").exists():
        raise StoreError(f"{trained} is of an earlier version, without run.json: `dvc repro` trains it anew")
    content = load_facts(path, *(field.name for field in dataclasses.fields(Origin)))
    origin = Origin(**{field.name: content[field.name] for field in dataclasses.fields(Origin)})
    try:
        if origin.settings["name"] and origin.step_size > 0:
            return origin
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        pass
    raise StoreError(f"{path} does not hold the settings of a run: delete it and run `dvc repro`")


def _measured_on(trained: Path) -> Path:
    """Where `diagnostics_folder` has what was measured on a run; with the run itself in a study."""
    for folder in reversed(trained.parents):
        if folder.parts[-2:] == (STAGES.name, "train"):
            return folder.with_name("diagnostics") / trained.relative_to(folder)
    return trained / "diagnostics"


def _load_measured(folder: Path, of_snapshot: str | None, origin: Origin) -> dict[str, Measured]:
    found = {}
    for table in sorted(folder.glob("*.csv")):
        facts = load_facts(table.with_suffix(".json"), "last_snapshot", "run", "settings")
        # A study keeps no snapshots: what was measured lies with the run that it was measured on.
        is_of_them = of_snapshot in (facts["last_snapshot"], None)
        if is_of_them and facts["run"] == _looked_at(origin):
            found[table.stem] = Measured(load_verified_table(table, facts.get("table_sha256")), facts["settings"])
    return found


def _looked_at(origin: Origin) -> dict[str, Any]:
    return {**origin.problem_and_step, "data_sha256": origin.data_sha256}


def save_run(folder: Path, rows: Iterable[Row], outcome: Outcome, origin: Origin, *, snapshots: Path | None) -> None:
    """Write snapshots/ (those in `snapshots`), trajectory.csv, summary.json and run.json of one run; see `Record`."""
    (folder / "run.json").unlink(missing_ok=True)  # the last to come: without it there is no half of two runs
    if snapshots is not None:
        place_snapshots(snapshots, folder / "snapshots")
    save_table(folder / "trajectory.csv", pd.DataFrame([row.columns for row in rows]))
    save_json(folder / "summary.json", dataclasses.asdict(outcome))
    checksum = sha256(folder / "trajectory.csv")
    save_json(folder / "run.json", {**dataclasses.asdict(origin), "table_sha256": checksum})


def save_measured(folder: Path, diagnostic: str, measured: Measured, trained: Path) -> None:
    """Write <diagnostic>.csv and <diagnostic>.json, measured on the run in the folder `trained`."""
    path = folder / f"{diagnostic}.csv"
    save_table(path, measured.table)
    facts = {
        "last_snapshot": last_snapshot(trained / "snapshots"),
        "run": _looked_at(load_origin(trained)),
        "settings": measured.settings,
        "table_sha256": sha256(path),
    }
    save_json(path.with_suffix(".json"), facts)

"""Recorded runs to test figures and claims on: the paper's own curves, and gradient descent on small problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from eosrepro import catalog
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Function, Stop
from eosrepro.optimizers.gd import gd
from eosrepro.records.published import curves, published
from eosrepro.records.runs import Measured, Origin, Record
from eosrepro.records.snapshots import save_snapshot

PAPER = Path(__file__).parents[1] / "papers" / "ahn2022"


def curve(run: str, quantity: str) -> pd.DataFrame:
    """A published curve: columns x, y."""
    return curves(PAPER, run)[quantity]


def record(
    trajectory: Mapping[str, Any] | pd.DataFrame,
    *,
    name: str = "run",
    step_size: str = "2/30",
    reason: str = "accuracy",
    sharpness: Mapping[str, Any] | None = None,
    measured: Mapping[str, Mapping[str, Any] | pd.DataFrame] | None = None,
    snapshots: Path = Path("nowhere"),
) -> Record:
    """A run with the given columns; `step` counts from 0 where it is not given. `measured`: by diagnostic."""
    table = pd.DataFrame(trajectory)
    if "step" not in table:
        table.insert(0, "step", range(len(table)))
    summary = {"reason": reason, "steps": int(table["step"].iloc[-1])}
    tables = {**(measured or {}), **({} if sharpness is None else {"sharpness": sharpness})}
    return Record(
        name=name,
        step_size=Fraction(step_size),
        trajectory=table,
        measured={diagnostic: Measured(pd.DataFrame(rows), {}) for diagnostic, rows in tables.items()},
        summary=summary,
        origin=origin(name=name, step_size=step_size),
        snapshots=snapshots,
    )


def origin(**settings: Any) -> Origin:
    """Of a run on 40 examples of noise."""
    return Origin(
        settings, data="noise, N = 40", data_sha256="1", counts="iterations", fingerprint="0", threshold_formula="2/η"
    )


def published_record(run: str) -> Record:
    """The paper's own run, as far as its plots show it."""
    found = published(PAPER, run)
    assert found
    return found


def unstable(threshold: int) -> Record:
    """A run of Experiment 3, with the L of Experiment 4."""
    return published_record(f"exp3_2over{threshold}")


def stable(threshold: int) -> Record:
    """A run of Experiment 2."""
    return published_record(f"exp2_2over{threshold}")


def scanned() -> Record:
    """The run of Experiment 5, with `tau_scan` measured on it."""
    of = {name: curve("exp3_2over60", f"directional_smoothness_{name}") for name in ("mean", "low_1", "high_1")}
    scan = {
        "step": of["mean"]["x"].round().astype(int),
        "directional_smoothness_mean": of["mean"]["y"],
        "directional_smoothness_std": (of["high_1"]["y"] - of["low_1"]["y"]) / 2,
    }
    return dataclasses.replace(unstable(60), measured={"tau_scan": Measured(pd.DataFrame(scan), {})})


def stochastic(threshold: int) -> Record:
    """A run of Experiment 8, with `expected_progress` measured on it, and the loss of Experiment 7."""
    run = f"exp8_2over{threshold}"
    left, right = (curve(run, f"{side}_progress") for side in ("expected_relative", "predicted_expected"))
    measured = {
        "step": left["x"].round().astype(int),
        "expected_relative_progress": left["y"],
        "predicted_expected_progress": right["y"],
    }
    return record(
        {"loss": curve("exp8_2over100", "loss")["y"]},
        name=run,
        step_size=f"2/{threshold}",
        reason="max_steps",
        measured={"expected_progress": measured},
    )


def toy_record(
    folder: Path, toy: str, start: tuple[float, float], step_size: str, steps: int
) -> tuple[Record, Function]:
    """Gradient descent on a problem, recorded below `folder`, and the function."""
    f = catalog.find("problems", toy)()
    objective, theta = function_problem(f, start)
    stop = Stop(steps)
    snapshots = folder / f"{toy}_{step_size.replace('/', 'over')}"
    rows = list(
        minimise(
            objective,
            theta,
            gd(step_size=float(Fraction(step_size))),
            stop=stop,
            on_iterate=lambda at: save_snapshot(snapshots, at),
        )
    )
    ended = outcome(rows[-1], stop)
    table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    return record(table, name=snapshots.name, step_size=step_size, reason=ended.reason, snapshots=snapshots), f

"""Recorded runs to test figures and claims on: the paper's own curves, and gradient descent on toys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from eosrepro import catalog
from eosrepro.core.objective import toy_problem
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Stop, Toy
from eosrepro.optimizers.gd import gd
from eosrepro.records.published import load_published
from eosrepro.records.runs import Measured, Origin, Record
from eosrepro.records.snapshots import save_snapshot

REFERENCE = Path(__file__).parents[1] / "reference"


def curve(name: str) -> pd.DataFrame:
    """A published curve: columns x, y."""
    return pd.read_csv(REFERENCE / f"{name}.csv")


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


def published_record(name: str, threshold: int, **curves: str) -> Record:
    """The paper's own run, as far as its plots show it: quantity=file of `reference/`."""
    published = load_published(name, curves, REFERENCE)
    assert published.step_size == Fraction(2, threshold)
    return published


def unstable(threshold: int) -> Record:
    """A run of Experiment 3, with the L of Experiment 4."""
    end = f"2over{threshold}"
    return published_record(
        f"exp3_{end}",
        threshold,
        loss=f"exp3_loss_{end}",
        relative_progress=f"exp3_rp_{end}",
        directional_smoothness=f"exp4_L_{end}",
        sharpness=f"exp3_sharp_{end}",
    )


def stable(threshold: int) -> Record:
    """A run of Experiment 2."""
    end = f"2over{threshold}"
    return published_record(f"exp2_{end}", threshold, loss=f"exp2_loss_{end}", relative_progress=f"exp2_rp_{end}")


def scanned() -> Record:
    """The run of Experiment 5, with `tau_scan` measured on it."""
    mean, low, high = (curve(f"exp5_L_{name}") for name in ("mean_2over60", "1sig_lo", "1sig_hi"))
    scan = {
        "step": mean["x"].round().astype(int),
        "directional_smoothness_mean": mean["y"],
        "directional_smoothness_std": (high["y"] - low["y"]) / 2,
    }
    return dataclasses.replace(unstable(60), measured={"tau_scan": Measured(pd.DataFrame(scan), {})})


def stochastic(threshold: int) -> Record:
    """A run of Experiment 8, with `expected_progress` measured on it, and the loss of Experiment 7."""
    left, right = (curve(f"exp8_relu_2over{threshold}_{side}") for side in ("LHS", "RHS"))
    measured = {
        "step": left["x"].round().astype(int),
        "expected_relative_progress": left["y"],
        "predicted_expected_progress": right["y"],
    }
    return record(
        {"loss": curve("exp7_loss_2over100")["y"]},
        name=f"exp8_2over{threshold}",
        step_size=f"2/{threshold}",
        reason="max_steps",
        measured={"expected_progress": measured},
    )


def toy_record(folder: Path, toy: str, start: tuple[float, float], step_size: str, steps: int) -> tuple[Record, Toy]:
    """Gradient descent on a toy, recorded below `folder`, and the function."""
    f = catalog.find("toys", toy)()
    objective, theta = toy_problem(f, start)
    stop = Stop(steps)
    snapshots = folder / f"{toy}_{step_size.replace('/', 'over')}"
    rows = list(
        minimise(
            objective,
            theta,
            gd(step_size=float(Fraction(step_size))),
            stop=stop,
            on_iterate=lambda at: save_snapshot(snapshots, at.step, at.theta),
        )
    )
    ended = outcome(rows[-1], stop)
    table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    return record(table, name=snapshots.name, step_size=step_size, reason=ended.reason, snapshots=snapshots), f

"""Curves of a paper, digitised: <paper>/curves/<run>/<quantity>.csv, and runs.json beside the runs."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from eosrepro.errors import StoreError
from eosrepro.records.files import load_json, load_table
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Measured, Origin, Record


def curves(paper: Path, run: str) -> dict[str, pd.DataFrame]:
    """What the paper shows of a run: quantity → columns x (iteration or epoch) and y; none where it shows nothing."""
    return {path.stem: load_table(path) for path in sorted((paper / "curves" / run).glob("*.csv"))}


def published(paper: Path, run: str) -> Record | None:
    """The curves of a run as if they had been recorded; None where there are none.

    Step size and end are those of the published run, from runs.json. Its length is the number of points of its loss:
    abscissae are good to a few iterations, but every iteration is a point.

    Raises:
        StoreError: runs.json does not say what the run was.
    """
    found = curves(paper, run)
    if not found:
        return None
    of = _of(paper / "curves" / "runs.json", run)
    series = {quantity: _series(curve, quantity) for quantity, curve in found.items()}
    # Without a loss nobody knows how long the run was, nor how it ended.
    summary = {"reason": "", "steps": max(int(curve["step"].max()) for curve in series.values())}
    if "loss" in found:
        summary = {"reason": of["ended_by"], "steps": len(found["loss"]) - 1}
    measured = {"sharpness": Measured(series.pop("sharpness"), {})} if "sharpness" in series else {}
    trajectory = pd.DataFrame({"step": pd.Series(dtype=int)})
    for curve in series.values():
        trajectory = trajectory.merge(curve, on="step", how="outer")
    origin = Origin({}, "", None, "iterations", "", "2/η")
    return Record(run, Fraction(of["step_size"]), trajectory, measured, summary, origin, Path())


def _of(path: Path, run: str) -> Mapping[str, str]:
    known = load_json(path)
    if run not in known:
        raise StoreError(f"{path} does not say what step size {run} had and what ended it")
    found: Mapping[str, str] = known[run]
    return found


def _series(curve: pd.DataFrame, quantity: str) -> pd.DataFrame:
    table = curve.set_axis(["step", quantity], axis=1)
    return table.assign(step=table["step"].round().astype(int)).drop_duplicates("step", ignore_index=True)

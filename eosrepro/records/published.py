"""Curves of the paper, digitised: reference/<curve>.csv, with their runs in index.json."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from eosrepro.catalog import did_you_mean
from eosrepro.errors import StoreError
from eosrepro.records.files import load_json, load_table
from eosrepro.records.runs import Measured, Origin, Record

REFERENCE = Path("reference")  # published curves, committed


class PublishedRun(NamedTuple):
    """What reference/index.json says of the run that a published curve is of."""

    step_size: Fraction
    ended_by: str  # as `types.Outcome.reason`


def published_run(file: str, folder: Path = REFERENCE) -> PublishedRun:
    """The run that the published curve <file>.csv is of, from index.json beside it.

    Raises:
        StoreError: it is not listed there.
    """
    index = load_json(folder / "index.json")
    if file not in index:
        raise StoreError(f"{folder / 'index.json'} does not list {file!r}{did_you_mean(file, list(index))}")
    return PublishedRun(Fraction(index[file]["step_size"]), index[file]["ended_by"])


def load_published(name: str, curves: Mapping[str, str], folder: Path = REFERENCE) -> Record:
    """Published curves of one run as if they had been recorded: quantity → <file>.csv in `folder`.

    Step size and end are those of the published run, from index.json beside the curves. Its length is the number of
    points of its loss: abscissae are good to a few iterations, but every iteration is a point.

    Raises:
        StoreError: a curve is not there, or the curves are of runs with different step sizes.
    """
    runs = {file: published_run(file, folder) for file in curves.values()}
    step_sizes = {run.step_size for run in runs.values()}
    if len(step_sizes) > 1:
        raise StoreError(f"the published curves of {name} have different step sizes: {', '.join(sorted(runs))}")
    series = {}
    for quantity, file in curves.items():
        curve = load_table(folder / f"{file}.csv").set_axis(["step", quantity], axis=1)
        series[quantity] = curve.assign(step=curve["step"].round().astype(int)).drop_duplicates(
            "step", ignore_index=True
        )
    # Without a loss nobody knows how long the run was, and `ended_by` is left open.
    summary = {"reason": "", "steps": max(int(curve["step"].max()) for curve in series.values())}
    if "loss" in curves:
        n_points = len(load_table(folder / f"{curves['loss']}.csv"))
        summary = {"reason": runs[curves["loss"]].ended_by, "steps": n_points - 1}
    measured = {"sharpness": Measured(series.pop("sharpness"), {})} if "sharpness" in series else {}
    trajectory = pd.DataFrame({"step": pd.Series(dtype=int)})
    for curve in series.values():
        trajectory = trajectory.merge(curve, on="step", how="outer")
    return Record(
        name, step_sizes.pop(), trajectory, measured, summary, Origin({}, "", None, "iterations", "", "2/η"), Path()
    )


def published(paper, name):
    return None


def curves(paper, name):
    return {}

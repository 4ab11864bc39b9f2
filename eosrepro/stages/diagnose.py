"""Stages `diagnose` and `measure`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from eosrepro.config.members import Member
from eosrepro.config.params import Config
from eosrepro.config.sections import Measurement
from eosrepro.core.types import Dataset
from eosrepro.records import resuming
from eosrepro.records.code import diagnostic_code
from eosrepro.records.files import remove_leftovers
from eosrepro.records.identity import members_of
from eosrepro.records.places import diagnostics_folder, train_folder
from eosrepro.records.runs import Measured, load_origin, save_measured, save_sharpness
from eosrepro.records.snapshots import snapshot_paths
from eosrepro.stages import outdated, workers
from eosrepro.stages.recorded import data_of, origin_now, provenance_of
from eosrepro.stages.track import sync_unless_short


def diagnose(config: Config, name: str, *, jobs: int = 1) -> pd.DataFrame:
    """Stage `diagnose`: the sharpness on the snapshots of a run, as a table."""
    started = time.monotonic()
    run, data = config.run(name), data_of(config, name)
    trained, folder = train_folder(run.folder, name), diagnostics_folder(run.folder, name)
    table = diagnose_into(folder, trained, config, name, data, jobs=jobs)
    sync_unless_short(config, name, data, started)
    return table


def measure(config: Config, name: str, *, jobs: int = 1) -> pd.DataFrame:
    """Stage `measure`: a declared diagnostic on the snapshots of its run, as a table."""
    started = time.monotonic()
    measurement = config.measurement(name)
    run, data = config.run(measurement.run), data_of(config, measurement.run)
    trained = train_folder(run.folder, measurement.run)
    folder = diagnostics_folder(run.folder, measurement.run)
    table = measure_into(folder, trained, config, measurement, data, jobs=jobs)
    sync_unless_short(config, measurement.run, data, started)
    return table


def diagnose_into(
    folder: Path, trained: Path, config: Config, name: str, data: Dataset | None, *, jobs: int = 1
) -> pd.DataFrame:
    """Measure the sharpness of the run in `trained` and write what `save_sharpness` says to `folder`."""
    settings = config.sharpness.model_dump()
    diagnostic = Member("sharpness", settings)
    with _measured(folder, trained, config, name, diagnostic, data, jobs) as table:
        save_sharpness(folder, Measured(table, settings), trained)
    return table


def measure_into(
    folder: Path, trained: Path, config: Config, measurement: Measurement, data: Dataset | None, *, jobs: int = 1
) -> pd.DataFrame:
    """Take a declared measurement of the run in `trained` and write what `save_measured` says to `folder`."""
    diagnostic, every = measurement.diagnostic, measurement.every
    settings = {**diagnostic.options, "every": every}
    with _measured(folder, trained, config, measurement.run, diagnostic, data, jobs, every=every) as table:
        save_measured(folder, diagnostic.name, Measured(table, settings), trained)
    return table


@contextmanager
def _measured(
    folder: Path,
    trained: Path,
    config: Config,
    name: str,
    diagnostic: Member,
    data: Dataset | None,
    jobs: int,
    *,
    every: int = 1,
) -> Iterator[pd.DataFrame]:
    """What a diagnostic finds, for the block to write to `folder`: until then an interrupted one can go on."""
    kept = snapshot_paths(trained / "snapshots")
    snapshots = [path for path in kept if int(path.stem) % every == 0]
    if len(snapshots) == 1 < len(kept):
        print(
            f"Warning: {diagnostic.name} of {name} is measured at iteration 0 alone: of its snapshots, one in "
            f"{config.snapshot_every(name)} iterations, no other is divided by every: {every}",
            file=sys.stderr,
        )
    outdated.refuse_other(config, name, load_origin(trained), origin_now(config, name, data, ""))
    made_by = diagnostic_code(diagnostic.name, members_of(config.resolved(name)))
    determined_by = [config.resolved(name), diagnostic, config.compute, provenance_of(data), made_by, workers.BLOCK]
    with resuming.unfinished(folder / diagnostic.name, determined_by) as place:
        remove_leftovers(folder, diagnostic.name)
        yield workers.measure(config, name, diagnostic, snapshots, data, jobs=jobs, place=place)

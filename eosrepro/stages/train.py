"""Stage `train`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from eosrepro.config.params import Config
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Dataset, Outcome, Row
from eosrepro.records import identity, resuming
from eosrepro.records.files import remove_leftovers
from eosrepro.records.places import train_folder
from eosrepro.records.runs import save_run
from eosrepro.stages import estimate
from eosrepro.stages.build import optimizer, problem
from eosrepro.stages.progress import progress
from eosrepro.stages.recorded import data_of, origin_now, provenance_of
from eosrepro.stages.track import live_log, mlflow_view, reproduction_tag, sync_unless_short
from eosrepro.views.mlflow import live


def train(config: Config, name: str) -> Outcome:
    """Stage `train`: one run from start to end, with its trajectory, summary and snapshots; followed live in MLflow."""
    run, data = config.run(name), data_of(config, name)
    resolved, provenance = config.resolved(name), provenance_of(data)
    made_by = identity.fingerprint(resolved, provenance)
    folder = train_folder(run.folder, name)
    started = time.monotonic()
    tags = reproduction_tag(config, name)
    with ExitStack() as stack:

        def open_run() -> live.LiveRun:
            return stack.enter_context(live.open_run(name, resolved, provenance, tags=tags, **mlflow_view(config)))

        ended = train_into(folder, config, name, data, fingerprint=made_by, observe=live_log(open_run, started))
    sync_unless_short(config, name, data, started)
    return ended


def train_into(
    folder: Path,
    config: Config,
    name: str,
    data: Dataset | None,
    *,
    fingerprint: str,
    observe: Callable[[Row], None] = lambda _row: None,
) -> Outcome:
    """Train a run and write what `save_run` says to `folder`; `observe` sees every row."""
    run, stop, snapshot_every = config.run(name), config.stop(name), config.snapshot_every(name)
    objective, theta = problem(config, name, data)
    determined_by = [config.resolved(name), fingerprint, stop, snapshot_every, config.compute, theta.device]
    with (
        resuming.unfinished(folder, determined_by) as place,
        resuming.training(place, snapshot_every) as so_far,
    ):
        if data is not None:
            estimate.announce(config, name, objective, theta, done=len(so_far.rows), folder=place)
        remove_leftovers(folder)
        for row in so_far.rows:
            observe(row)
        start, method = so_far.position(theta), optimizer(run)
        with progress(f"train {name}", stop.max_steps) as report:
            for row in minimise(objective, start, method, stop=stop, on_iterate=so_far.keep):
                so_far.rows.append(row)
                observe(row)
                shown = {"loss": row.loss, "accuracy": row.accuracy}
                shown |= {"RP": row.relative_progress, "L": row.directional_smoothness}
                report(row.step, **shown, **{method.threshold_formula: row.stability_threshold})
        ended = outcome(so_far.rows[-1], stop)
        origin = origin_now(config, name, data, fingerprint)
        save_run(folder, so_far.rows, ended, origin, snapshots=place / "snapshots")
    return ended

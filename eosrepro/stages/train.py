"""Stage `train`."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.ranks import from_first
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Dataset, Outcome, Row
from eosrepro.errors import EosreproError
from eosrepro.records import identity, resuming, store
from eosrepro.records.files import load_json
from eosrepro.records.places import train_folder
from eosrepro.records.runs import save_run
from eosrepro.stages import engine, estimate, ranked
from eosrepro.stages.build import problem
from eosrepro.stages.progress import progress
from eosrepro.stages.recorded import data_of, origin_now, provenance_of
from eosrepro.stages.track import live_log, mlflow_view, reproduction_tag, sync_unless_short
from eosrepro.views.mlflow import live

Shared = tuple[Config, Dataset | None]


def train(config: Config, name: str, *, jobs: int) -> dict[str, Outcome]:
    """Stage `train`: the runs that a name stands for, and by run how it ended."""
    runs = config.select(name)
    jobs = jobs if any(run.has_examples for run in runs) else 1  # a problem is over before a process has started
    shared = (config, data_of(runs))
    ended = dict(zip([run.name for run in runs], engine.map(_train, shared, runs, jobs=jobs), strict=True))
    if name in config.experiments:
        _remove_others(name, runs)
    return ended


def _remove_others(experiment: str, runs: list[Run]) -> None:
    """What a run left that is no more in the experiment."""
    folder, names = train_folder(experiment), {run.name for run in runs}
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _train(shared: Shared, run: Run) -> Outcome:
    """One run from start to end, with its trajectory, summary and snapshots; followed live in MLflow."""
    config, data = shared
    data = data if run.has_examples else None
    started = time.monotonic()
    provenance = provenance_of(data)
    key = identity.fingerprint(run.settings, provenance)
    with ExitStack() as stack:

        def open_run() -> live.LiveRun:
            tags = reproduction_tag(config, run.name)
            facts = {"tags": tags, "preconditioned": run.method.preconditioned, **mlflow_view(config)}
            return stack.enter_context(live.open_run(run.name, run.settings, provenance, **facts))

        into_store(run, data, key, observe=live_log(open_run, started))
    folder = train_folder(run.experiment, run.name)
    store.place(key, folder)
    sync_unless_short(config, run, data, started)
    try:
        return Outcome(**load_json(folder / "summary.json"))
    except TypeError:
        raise EosreproError(f"{folder / 'summary.json'} is of another version: delete stages/store/{key}") from None


def into_store(run: Run, data: Dataset | None, key: str, *, observe: live.Observe = lambda _row: None) -> None:
    """Train a run and put it into the store, unless it is there; `observe` sees every row."""
    result = train_folder(run.experiment, run.name)
    if store.holds(key):
        resuming.finished(result)
        return
    ranked.call(_also_train, run, data)
    objective, theta = problem(run, data)
    determined_by = [run.settings, key, theta.device]
    with (
        resuming.unfinished(result, determined_by) as place,
        resuming.training(place, run.snapshot_every) as so_far,
    ):
        if store.holds(key):  # by another process, since it was asked
            return
        if data is not None:
            estimate.announce(run, objective, theta, done=len(so_far.rows), folder=place)
        for row in so_far.rows:
            observe(row)
        start, method = so_far.position(theta), run.method
        with progress(f"train {run.name}", run.stop.max_steps) as report:
            rows = minimise(
                objective, start, method, stop=run.stop, on_iterate=so_far.keep, observe=run.observe, origin=theta
            )
            for row in rows:
                so_far.rows.append(row)
                observe(row)
                report(row.step, **_shown(row, method.threshold_formula))
        with store.adding(key, seconds=so_far.seconds) as folder:
            ended = outcome(so_far.rows[-1], run.stop)
            save_run(folder, so_far.rows, ended, origin_now(run, data, key), snapshots=place / "snapshots")


def _also_train(run: Run, data: Dataset | None) -> None:
    """What another rank does while the first one trains the run: the same, and it keeps nothing."""
    objective, theta = problem(run, data)
    if data is not None:
        estimate.seconds_an_iteration(objective, theta, run.method)
    start = resuming.started_at(from_first(lambda: None), theta)
    for _row in minimise(objective, start, run.method, stop=run.stop, observe=run.observe, origin=theta):
        pass


def _shown(row: Row, threshold_formula: str) -> dict[str, float]:
    return {
        "loss": row.loss,
        **({"R²": row.observed["r2"]} if "r2" in row.observed else {"accuracy": row.accuracy}),
        "RP": row.relative_progress,
        "L": row.directional_smoothness,
        **({threshold_formula: row.stability_threshold} if threshold_formula else {}),
    }

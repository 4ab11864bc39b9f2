"""Runs that differ in step size and start alone, trained together: see `core.together`.

They are in the store as any others, by a fingerprint that says with which others they were trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eosrepro import catalog
from eosrepro.config.runs import Run
from eosrepro.config.statements import Statistic
from eosrepro.core.later import torch
from eosrepro.core.networks import near
from eosrepro.core.objective import Objective
from eosrepro.core.together import minimise_together, refuse_unless_batched
from eosrepro.core.training import outcome
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from eosrepro.records import store
from eosrepro.records.identity import batched_settings, digest, fingerprint
from eosrepro.records.runs import save_run
from eosrepro.stages.build import is_ours, problem
from eosrepro.stages.progress import progress
from eosrepro.stages.recorded import origin_now, provenance_of

if TYPE_CHECKING:
    from torch import Tensor

APART = ("name", "step_size", "seed", "start")  # settings that runs of one batch may differ in


@dataclass(frozen=True)
class Batch:
    """Runs that are trained together, in this order."""

    runs: Sequence[Run]
    settings: Mapping[str, dict[str, Any]]  # by run, all that determines it: the others among it
    keys: Mapping[str, str]  # by run, its fingerprint

    @classmethod
    def of(cls, runs: Sequence[Run], data: Dataset | None) -> Batch:
        """Of these runs, on their data."""
        names = [run.name for run in runs]
        settings = dict(zip(names, batched_settings([run.settings for run in runs]), strict=True))
        return cls(runs, settings, {name: fingerprint(each, provenance_of(data)) for name, each in settings.items()})


def tried(
    runs: Sequence[Run], measures: Mapping[str, Statistic], data_of: Callable[[Run], Dataset | None]
) -> dict[str, Batch]:
    """The batches of these runs; an objective of each is tried, where one of its runs is not in the store.

    Raises:
        ConfigError: some of them cannot be trained together with others, or a measure is not known of them.
    """
    for run in runs:
        if complaint := _complaint(run, measures):
            raise ConfigError(f"{run.name}: {complaint}")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.settings.items() if key not in APART}
        groups.setdefault(digest(shared), []).append(run)
    found: dict[str, Batch] = {}
    for group in groups.values():
        data = data_of(group[0])
        batch = Batch.of(group, data)
        if not all(map(store.holds, batch.keys.values())):
            try:
                objective, _ = _objective_and_starts([group[0], group[-1]], data)
                refuse_unless_batched(objective)
            except ConfigError as error:
                raise ConfigError(f"{group[0].name}: {error}") from error
        found |= dict.fromkeys((run.name for run in group), batch)
    return found


def _complaint(run: Run, measures: Mapping[str, Statistic]) -> str | None:
    chosen = run.setting.optimizer
    if chosen.name != "gd" or not is_ours("optimizers", "gd"):
        return f"optimizer.name is {chosen.name}, and runs are trained together by gd alone"
    if chosen.options.get("weight_decay"):
        return "optimizer.weight_decay: runs are trained together without"
    if run.setting.schedule:
        return "schedule: of runs that are trained together each has one step size"
    for observation in run.setting.observe:
        return f"observe.{observation}: nothing is observed of runs that are trained together"
    for diagnostic, of in run.diagnose.items():
        told = {*catalog.quantities(diagnostic, of.options)}
        for name, measure in measures.items():
            if {measure.quantity, measure.against} & told:
                why = f"takes the diagnostic {diagnostic} of snapshots, and runs that are trained together keep none"
                return f"measures.{name} {why}"
    return None


def into_store(batch: Batch, data: Dataset | None) -> None:
    """Train all of them and put those into the store that are not there. Nothing is kept of a training on its way."""
    started, stop = time.monotonic(), batch.runs[0].stop
    objective, starts = _objective_and_starts(batch.runs, data)
    step_sizes = [float(run.setting.step_size) for run in batch.runs]
    with progress(f"train {len(batch.runs)} runs together, {batch.runs[0].name} first", stop.max_steps) as report:

        def on_step(step: int, n_runs: int) -> None:
            report(step, runs=n_runs)

        found = minimise_together(objective, starts, step_sizes, stop=stop, on_step=on_step)
    seconds = time.monotonic() - started
    for run, rows in zip(batch.runs, found, strict=True):
        key = batch.keys[run.name]
        if not store.holds(key):
            origin = replace(origin_now(run, data, key), settings=batch.settings[run.name])
            with store.adding(key, seconds=seconds) as folder:
                save_run(folder, rows, outcome(rows[-1], stop), origin, snapshots=None)


def _objective_and_starts(runs: Sequence[Run], data: Dataset | None) -> tuple[Objective, Tensor]:
    """The objective of all of them, and θ₀ of each, (R, P)."""
    objective, first = problem(runs[0], data)
    starts = {_start_of(runs[0]): first}
    for run in runs:
        if (begins := _start_of(run)) not in starts:
            own, start = problem(run, data)
            found, expected = (torch.tensor(each.loss(start), dtype=torch.float64) for each in (own, objective))
            if not near(found, expected, start.dtype):
                raise ConfigError(
                    f"{runs[0].name} and {run.name} have different objectives: the model holds numbers that are drawn "
                    "with the seed and not trained, so runs of several seeds cannot be trained together"
                )
            starts[begins] = start
    return objective, torch.stack([starts[_start_of(run)] for run in runs])


def _start_of(run: Run) -> tuple[Any, ...]:
    return run.setting.seed, run.setting.start

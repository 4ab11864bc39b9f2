"""Stage `diagnose`: what diagnostics find on the snapshots of runs.

The snapshots are cut into blocks, and a diagnostic starts afresh in each: what it finds does not depend on how many
processes share the blocks of all runs of an experiment. What is found is kept in the store, as runs are.
"""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.later import pytree, torch
from eosrepro.core.ranks import from_first
from eosrepro.core.row_space import RowSpace
from eosrepro.core.types import Dataset, Position
from eosrepro.records import code, resuming, store
from eosrepro.records.files import load_json, load_table, save_checkpoint, save_json, sha256
from eosrepro.records.identity import digest, members_of
from eosrepro.records.later import pandas as pd
from eosrepro.records.places import METRICS, diagnostics_folder, train_folder
from eosrepro.records.runs import Measured, load_origin, save_measured
from eosrepro.records.snapshots import last_snapshot, load_snapshot, snapshot_paths
from eosrepro.stages import engine, outdated, ranked
from eosrepro.stages.build import is_ours, member, on_test_split, problem
from eosrepro.stages.progress import progress
from eosrepro.stages.recorded import data_of, origin_now
from eosrepro.stages.track import sync_unless_short

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 50  # snapshots that a process looks at in a row
HEADLINES = ("sharpness", "effective_sharpness", "midpoint_sharpness")  # for DVC

Row = dict[str, Any]
Keys = Mapping[str, Mapping[str, str]]  # run → diagnostic → its entry in the store
Found: TypeAlias = "Mapping[str, Mapping[str, pd.DataFrame]]"  # the same → a row a snapshot


@dataclass(frozen=True)
class Beside:
    """The run that a diagnostic looks at beside its own."""

    run: Run
    trained: Path

    @property
    def identity(self) -> list[str | None]:
        """What another training of it changes."""
        return [load_origin(self.trained).fingerprint, last_snapshot(self.trained / "snapshots")]

    def at_times_of(self, own: Run, start: Tensor, data: Dataset | None) -> Callable[[int], Position | None]:
        """An iteration of the own run → where this one is at the same time, on the device of `start`."""
        space = problem(self.run, data)[0].row_space
        times, own_times = self.run.times, own.times
        by_time = {times[int(path.stem)]: path for path in snapshot_paths(self.trained / "snapshots")}

        def other(step: int) -> Position | None:
            path = by_time.get(own_times[step])
            return None if path is None else _at(start, path, space)

        return other


Besides = Mapping[str, Beside]  # by the name of the run


@dataclass(frozen=True)
class Work:
    """A diagnostic that is due on a run."""

    run: Run
    diagnostic: str
    trained: Path  # the folder of the run
    place: Path  # of blocks that are done
    beside: Beside | None = None

    @property
    def blocks(self) -> list[list[Path]]:
        """The snapshots that it looks at."""
        every = self.run.diagnose[self.diagnostic].every
        paths = [path for path in snapshot_paths(self.trained / "snapshots") if int(path.stem) % every == 0]
        return [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]

    def load(self, block: Sequence[Path]) -> list[Row] | None:
        """The rows of a block, if they have been found."""
        saved = resuming.load_checkpoint(self._file(block))
        if saved is None or saved["snapshots"] != _checksums(block):
            return None
        rows: list[Row] = saved["rows"]
        return rows

    def save(self, block: Sequence[Path], rows: list[Row]) -> None:
        """Keep the rows of a block where a kill leaves them."""
        save_checkpoint(self._file(block), {"snapshots": _checksums(block), "rows": rows})

    def _file(self, block: Sequence[Path]) -> Path:
        return self.place / f"from_{block[0].stem}"


def _checksums(block: Sequence[Path]) -> list[str]:
    return [sha256(path) for path in block]


def diagnose(config: Config, name: str, *, jobs: int) -> Found:
    """Stage `diagnose`: all that is declared on the runs that a name stands for."""
    started = time.monotonic()
    runs = config.select(name)
    jobs = jobs if any(run.has_examples for run in runs) else 1
    data = data_of(runs)
    named = {each.to: config.run(each.to) for run in runs for each in run.diagnose.values() if each.to is not None}
    besides = {to: Beside(other, train_folder(other.experiment, to)) for to, other in named.items()}
    for run in {run.name: run for run in (*runs, *named.values())}.values():
        own = data if run.has_examples else None
        outdated.refuse_other(run, load_origin(train_folder(run.experiment, run.name)), origin_now(run, own, ""))
    places = {run.name: train_folder(run.experiment, run.name) for run in runs}
    keys = into_store(runs, places, data, jobs=jobs, besides=besides)
    if name in config.experiments:
        shutil.rmtree(diagnostics_folder(name), ignore_errors=True)  # it all comes from the store
    for run in runs:
        folder = diagnostics_folder(run.experiment, run.name)
        folder.mkdir(parents=True, exist_ok=True)
        for entry in keys[run.name].values():
            store.place_files(entry, folder)
    found = {run: {each: _table(entry, each) for each, entry in own.items()} for run, own in keys.items()}
    if name in config.experiments:
        save_json(METRICS / f"{name}.json", _headlines(runs, found))
    for run in runs:
        sync_unless_short(config, run, data if run.has_examples else None, started)
    return found


def _table(entry: str, diagnostic: str) -> pd.DataFrame:
    return load_table(store.STORE / entry / f"{diagnostic}.csv")


def _headlines(runs: Sequence[Run], found: Found) -> dict[str, str]:
    """A few numbers a run at its end, in the order of the runs: a table of DVC has a row an experiment."""
    ended = [load_json(train_folder(run.experiment, run.name) / "summary.json") for run in runs]
    lines = {"steps": [str(end["steps"]) for end in ended], "loss": [f"{end['loss']:.3g}" for end in ended]}
    for quantity in HEADLINES:
        last = [
            table[quantity].iloc[-1]
            for run in runs
            for table in found[run.name].values()
            if quantity in table and len(table)
        ]
        lines |= {quantity: [f"{value:.3g}" for value in last]} if len(last) == len(runs) else {}
    return {quantity: " ".join(values) for quantity, values in lines.items()}


def into_store(
    runs: Sequence[Run],
    trained: Mapping[str, Path],
    data: Dataset | None,
    *,
    jobs: int,
    besides: Besides = MappingProxyType({}),
) -> Keys:
    """Find all that is declared on the runs in the folders `trained`, put it into the store, and return its keys.

    Args:
        besides: the runs that some of it is held to.
    """
    keys = {run.name: {each: entry_of(run, each, trained[run.name], besides) for each in run.diagnose} for run in runs}
    due = []
    for run in runs:
        for each, entry in keys[run.name].items():
            if store.holds(entry):
                resuming.finished(diagnostics_folder(run.experiment, run.name) / each)
            else:
                due.append((run, each, entry))
    with ExitStack() as stack:
        opened = {
            entry: stack.enter_context(_open(run, each, trained[run.name], entry, besides)) for run, each, entry in due
        }
        works = {
            entry: work for entry, work in opened.items() if not store.holds(entry)
        }  # as another process may since
        done = {entry: [work.load(block) for block in work.blocks] for entry, work in works.items()}
        tasks = [
            (work, block)
            for entry, work in works.items()
            for block, rows in zip(work.blocks, done[entry], strict=True)
            if rows is None
        ]
        found = engine.map(_look, data, tasks, jobs=jobs)
        for entry, work in works.items():
            table = _assemble(work, done[entry], found)
            measured = Measured(table, work.run.diagnose[work.diagnostic].settings)
            with store.adding(entry) as folder:
                save_measured(folder, work.diagnostic, measured, work.trained)
    return keys


def entry_of(run: Run, diagnostic: str, trained: Path, besides: Besides = MappingProxyType({})) -> str:
    """The entry in the store of what a diagnostic finds on a run: that of the run, and a digest of all else."""
    settings, compute = run.diagnose[diagnostic].settings, run.compute.of_diagnostics if run.has_examples else None
    made_by = code.diagnostic_code(diagnostic, members_of(run.settings))
    to = run.diagnose[diagnostic].to
    other = [] if to is None else besides[to].identity
    found = digest([sha256(trained / "trajectory.csv"), settings, compute, made_by, BLOCK, *other])
    return f"{load_origin(trained).fingerprint}.{diagnostic}.{found[:16]}"


@contextmanager
def _open(run: Run, diagnostic: str, trained: Path, key: str, besides: Besides) -> Iterator[Work]:
    """The unfinished work of a diagnostic on a run, for this process alone."""
    settings = run.diagnose[diagnostic]
    with resuming.unfinished(diagnostics_folder(run.experiment, run.name) / diagnostic, key) as place:
        kept = snapshot_paths(trained / "snapshots")
        if len(kept) > 1 and all(int(path.stem) % settings.every for path in kept[1:]):
            print(
                f"Warning: {diagnostic} of {run.name} is found at iteration 0 alone: of its snapshots, one in "
                f"{run.snapshot_every} iterations, no other is divided by every: {settings.every}",
                file=sys.stderr,
            )
        yield Work(run, diagnostic, trained, place, None if settings.to is None else besides[settings.to])


def _assemble(work: Work, done: Iterable[list[Row] | None], found: Iterator[Iterable[Row]]) -> pd.DataFrame:
    """All rows of a diagnostic on a run: of the blocks that were done before, and of the others as they are found."""
    rows: list[Row] = []
    with progress(f"{work.diagnostic} of {work.run.name}", int(work.blocks[-1][-1].stem)) as report:
        for block in done:
            for row in next(found) if block is None else block:
                rows.append(row)
                step, *quantities = row
                report(row[step], **{quantity: row[quantity] for quantity in quantities[:2]})
    return pd.DataFrame(rows)


def _look(data: Dataset | None, task: tuple[Work, Sequence[Path]]) -> Iterator[Row]:
    """Run a diagnostic on one block of snapshots, and keep what it finds."""
    work, block = task
    data = data if work.run.has_examples else None
    ranked.call(_also_look, work.run, data, work, block)
    rows = []
    for row in _found(work, block, data):
        rows.append(row)
        yield row
    work.save(block, rows)


def _also_look(_run: Run, data: Dataset | None, work: Work, block: Sequence[Path]) -> None:
    """What another rank does while the first one looks at a block: the same, and it keeps nothing."""
    for _row in _found(work, block, data):
        pass


def _found(work: Work, block: Sequence[Path], data: Dataset | None) -> Iterator[Row]:
    run = work.run
    objective, start = problem(run, data)
    method = run.method
    facts: dict[str, Any] = {
        "step_size": float(run.setting.step_size),
        "minibatches": method.minibatches,
        "optimizer": method,
    }
    yields = member("diagnostics", run.diagnose[work.diagnostic])
    takes = inspect.signature(yields).parameters
    given = {key: value for key, value in facts.items() if key in takes}
    space = None
    # The row space holds less than all of what two runs differ by; and who knows what a member of others looks at.
    if work.beside or not is_ours("diagnostics", work.diagnostic):
        space = objective.row_space
        objective, start = problem(run, data, reduced=False)
    if "test" in takes:
        given["test"] = on_test_split(run, data, objective)
    if work.beside:
        given["other"] = work.beside.at_times_of(run, start, data)
    for row in yields(objective, (_at(start, path, space) for path in block), **given):
        yield row if isinstance(row, dict) else dataclasses.asdict(row)


def _at(start: Tensor, path: Path, space: RowSpace | None) -> Position:
    """A snapshot where the objective computes; with the row space that it is in, it is one of the network.

    On all ranks as the first one reads it.
    """
    step, *kept = from_first(lambda: load_snapshot(path))
    at = Position(step, *pytree.tree_map_only(torch.Tensor, lambda each: each.to(start.device), kept))
    at = space.position(at) if space else at
    return at._replace(theta=at.theta.to(start))

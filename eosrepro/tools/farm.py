"""All runs that are not up to date, computed by many processes into the store; then `dvc repro` links, draws, judges.

The store is where everybody meets: a run that another process has finished is found there, one that it works at is
waited for, one that it left unfinished goes on from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError, StoreError
from eosrepro.records.presence import present
from eosrepro.stages import work
from eosrepro.stages.progress import progress
from eosrepro.tools import hand, listing
from eosrepro.tools.ticket import Answer, ticket

MOST_KILLS = 3  # of the process of one run, in a worker that lives on: then it is most likely the run
WAIT_SECONDS = 1.0  # from one look to the next
ALONE_SECONDS = 20.0  # without a worker, until that is said
UP_TO_DATE = "up to date"


@dataclass(frozen=True)
class Due:
    """What is to be computed."""

    runs: list[Run]
    up_to_date: int  # how many other runs the names stand for
    data: Dataset | None


def due(config: Config, names: Sequence[str]) -> Due:
    """Of the runs that the names stand for, or of all, those that are not up to date.

    Raises:
        StoreError: stages/data is not what `dvc repro` would make.
    """
    chosen = {run.name: run for name in names for run in config.select(name)} if names else config.runs
    states = {stage: state.word for entry in listing.entries(config) for stage, state in entry.states.items()}
    # A clone has all that is up to date, and an empty store.
    fresh = {name for name in config.experiments if _is_fresh(name, states)}
    runs = [run for run in chosen.values() if run.experiment not in fresh]
    if any(run.has_examples for run in runs):
        data = work.data_now(config, runs)
        if states.get("data", UP_TO_DATE) != UP_TO_DATE:
            raise StoreError(f"stages/data is not what `dvc repro` would make: {work.REMEDY}")
    else:
        data = None
    open_ = [run for run in runs if not work.is_done(config, run, data)]
    return Due(open_, len(chosen) - len(open_), data)


def _is_fresh(experiment: str, states: Mapping[str, str]) -> bool:
    return all(states.get(f"{stage}@{experiment}") == UP_TO_DATE for stage in ("train", "diagnose"))


def farm(config: Config, params: Mapping[str, Any], todo: Due, *, jobs: int, scheduler_file: Path | None) -> None:
    """Compute it.

    Args:
        params: params.yaml as it was read, which `config` was made of.
        jobs: processes, on this machine.
        scheduler_file: of `dask scheduler`; then workers are started elsewhere.

    Raises:
        EosreproError: some runs failed, all others are computed; or a worker would not make what this process would.
    """
    if not todo.runs:
        return
    from eosrepro.tools import cluster

    # At the end this process is first no more present: those at work write their checkpoints. Then it waits for them.
    with cluster.pool(hand.compute, min(jobs, len(todo.runs)), scheduler_file) as pool, present() as presence:
        tickets = {run.name: ticket(config, params, run, todo.data, presence) for run in todo.runs}
        state, started = _State(config, todo), time.monotonic()
        with progress("farm", len(todo.runs), unit="run") as report:
            while state.is_open:
                for name in state.next(pool.room):
                    pool.submit(name, tickets[name].key, dataclasses.asdict(tickets[name]))
                report(len(state.ended), running=pool.running, failed=len(state.failures))
                for name, answer in pool.ended(WAIT_SECONDS):
                    state.take(name, Answer(**answer))
                if not pool.workers and time.monotonic() - started > ALONE_SECONDS:
                    _say(f"No worker is there: `dask worker --scheduler-file {scheduler_file}` starts one")
                    started = inf
            report(len(state.ended), running=0, failed=len(state.failures))
    if len(state.kinds) > 1:
        kinds = "; ".join(map(", ".join, sorted(state.kinds)))
        _say(f"Warning: workers are of several kinds ({kinds}), and last digits hang on that: see docs/cluster.md")
    if state.failures:
        raise EosreproError(f"{len(state.failures)} of {len(todo.runs)} runs failed: {', '.join(state.failures)}")


class _State:
    """How far a farm is."""

    def __init__(self, config: Config, todo: Due) -> None:
        self.ended: dict[str, str] = {}  # run → what was wrong
        self.kinds: set[tuple[str, ...]] = set()  # of workers
        self._config, self._data = config, todo.data
        self._runs = {run.name: run for run in todo.runs}
        self._waiting = deque(self._runs)
        self._elsewhere: list[str] = []  # processes of others work at them
        self._kills: Counter[tuple[str, object]] = Counter()

    @property
    def is_open(self) -> bool:
        """Whether some have not ended."""
        return len(self.ended) < len(self._runs)

    @property
    def failures(self) -> list[str]:
        """The runs that failed."""
        return [name for name, wrong in self.ended.items() if wrong]

    def next(self, room: int) -> list[str]:
        """At most so many that can be begun."""
        for name in [*self._elsewhere]:
            if not work.is_at_work(self._config, self._runs[name]):
                self._elsewhere.remove(name)
                if work.is_done(self._config, self._runs[name], self._data):
                    self.ended[name] = ""
                else:
                    self._waiting.append(name)
        return [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]

    def take(self, name: str, answer: Answer) -> None:
        """What came of one that was begun.

        Raises:
            EosreproError: its worker would not make what this process would.
        """
        for line in answer.told:
            _say(f"{name}: {line}")
        if answer.kind:
            self.kinds.add(tuple(answer.kind))
        match answer.state:
            case "done":
                self.ended[name] = ""
            case "failed":
                self._fail(name, answer.said)
            case "busy":
                _say(f"{name}: {answer.said.partition(':')[0]}; it is waited for")
                self._elsewhere.append(name)
            case "interrupted":
                self._waiting.append(name)
            case "killed":
                at = (name, work.how_far(self._config, self._runs[name]))
                self._kills[at] += 1
                if self._kills[at] < MOST_KILLS:
                    self._waiting.append(name)
                else:
                    self._fail(name, f"{answer.said}, {MOST_KILLS} times at one place, as for want of memory")
            case "refused":
                raise EosreproError(f"the worker on {answer.host} {answer.said}")

    def _fail(self, name: str, wrong: str) -> None:
        self.ended[name] = wrong
        _say(f"Error: {name}: {wrong}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""What a run takes at most, known before it starts: numbers of iterations and snapshots, disk, time.

All are upper bounds, since a run that reaches its accuracy, or diverges, ends early.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eosrepro.config.runs import Run
from eosrepro.core.device import dtype_of
from eosrepro.core.later import pytree, torch
from eosrepro.core.objective import Objective
from eosrepro.core.ranks import from_first
from eosrepro.core.steps import step
from eosrepro.core.types import Dataset, Iterate, Optimizer
from eosrepro.stages.build import n_coordinates
from eosrepro.stages.progress import duration

if TYPE_CHECKING:
    from torch import Tensor

TIMING_SECONDS = 0.2  # of iterations that are timed
MORE_ROOM = "free some space, or raise snapshot_every of the profile in params.yaml"
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))


@dataclass(frozen=True)
class Size:
    """A training of at most `steps` iterations that keeps every `every`-th iterate."""

    n_coordinates: int  # of θ
    steps: int
    every: int
    itemsize: int  # bytes a parameter
    vectors: int = 1  # of that many parameters in a snapshot: θ, and those in the state of the optimizer

    @property
    def snapshots(self) -> int:
        """How many are kept, the start included."""
        return self.steps // self.every + 1

    @property
    def bytes(self) -> int:
        """All snapshots on disk."""
        return self.snapshots * self.n_coordinates * self.itemsize * self.vectors


def of_run(run: Run, data: Dataset) -> Size:
    """The size of a run on these data; nothing is computed."""
    itemsize = dtype_of(run.compute.dtype).itemsize
    return Size(n_coordinates(run, data), run.stop.max_steps, run.snapshot_every, itemsize, _vectors(run.method))


def announce(run: Run, objective: Objective, theta: Tensor, *, done: int, folder: Path) -> None:
    """Say on stderr what a training takes at most, before hours are spent.

    Args:
        objective: of the run; one iteration of it is timed.
        theta: its start, (P,).
        done: iterations that an earlier attempt has made.
        folder: on the disk that takes the snapshots.
    """
    steps, vectors = run.stop.max_steps - done, _vectors(run.method)
    left = Size(len(theta), steps, run.snapshot_every, theta.element_size(), vectors)
    seconds = left.steps * seconds_an_iteration(objective, theta, run.method)
    print(
        f"train {run.name}: {_of_theta(objective, theta)}, {objective.n_examples:,} examples; "
        f"at most {left.steps:,} iterations (about {duration(seconds)}) "
        f"and {left.snapshots:,} snapshots ({in_words(left.bytes)})",
        file=sys.stderr,
        flush=True,
    )
    free = shutil.disk_usage(folder).free
    if left.bytes > free:
        found = f"the snapshots of {run.name} take up to {in_words(left.bytes)}, and the disk has {in_words(free)} free"
        print(f"Warning: {found}. They fit if the run ends early; else {MORE_ROOM}", file=sys.stderr)


def _of_theta(objective: Objective, theta: Tensor) -> str:
    space = objective.row_space
    if space is None:
        return f"{len(theta):,} parameters"
    return f"{space.n_parameters(len(theta)):,} parameters in {len(theta):,} coordinates of the row space of the inputs"


def _vectors(by: Optimizer) -> int:
    few = torch.zeros(10)
    kept = [leaf.numel() for leaf in pytree.tree_leaves(by.init(few)) if isinstance(leaf, torch.Tensor)]
    return 1 + sum(kept) // len(few)


def in_words(size: int) -> str:
    """A number of bytes: `1.7 GB`."""
    unit, power = next(((unit, power) for unit, power in _UNITS if size >= power), ("kB", 1000))
    return f"{size / power:,.3g} {unit}"


def seconds_an_iteration(objective: Objective, theta: Tensor, by: Optimizer) -> float:
    """Found by a few, as many on all ranks."""
    start = objective.value_and_grad(theta)
    here = Iterate(theta, start.grad, objective, start.loss)
    taken: list[float] = []
    while from_first(lambda: len(taken) < 2 or sum(taken) < TIMING_SECONDS):
        started = time.perf_counter()
        step(by, here, by.init(theta))
        objective.value_and_grad(theta)
        taken.append(time.perf_counter() - started)
    return min(taken)  # the first takes up to three times as long, and so does one beside other work

"""What it costs to do more at once: many runs over the cores of this machine, one run over ranks. For `growth`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]

from eosrepro.core import ranks
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.spread import Spread
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Stop
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.stages import engine

RUNS = (1, 2, 4, 8, 16)
STEPS = 300  # of each of them
FEW = 500  # examples of each, as in the setting of the paper's curves
RANKS = (1, 2, 4)
N_EXAMPLES, CHUNK = 20_000, 2500
REPEATS = 3  # the same number on all ranks: each waits for the others


def random_examples(n_examples: int, seed: int = 0) -> Dataset:
    """Of the shape of CIFAR-10: neither time nor memory hangs on their values."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n_examples, 3, 32, 32, generator=generator)
    return Dataset(inputs, torch.randint(0, 10, (n_examples,), generator=generator), 10, "random")


def many_runs(n_runs: int) -> dict[str, float]:
    """Seconds that so many runs take by as many processes as there are cores, with the start of these."""
    jobs = engine.default_jobs("cpu", threads=1)
    started = time.perf_counter()
    list(engine.map(_run, random_examples(FEW), range(n_runs), jobs=jobs))
    return {"runs": n_runs, "jobs": min(jobs, n_runs), "seconds": time.perf_counter() - started}


def _run(data: Dataset, seed: int) -> float:
    torch.set_num_threads(1)
    objective, theta = _problem(data, seed, chunk_size=FEW, reduced=True)
    return [row.loss for row in minimise(objective, theta, gd(step_size=2 / 100), stop=Stop(STEPS))][-1]


def over_ranks(size: int) -> dict[str, float]:
    """Milliseconds of a gradient and of a Hessian product over so many ranks of one thread, and their peak memory."""
    with tempfile.TemporaryDirectory() as meeting:
        command = [sys.executable, "-m", "benchmarks.growth", "--rank"]
        environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ}
        started = [
            subprocess.Popen(
                [*command, str(own), str(size), meeting], stdout=subprocess.PIPE, text=True, env=environment
            )
            for own in range(size)
        ]
        told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"one of {size} ranks failed: what it said stands above")
    found = [json.loads(each) for each in told]
    return {
        "ranks": size,
        "gradient_ms": found[-1]["gradient_ms"],
        "product_ms": found[-1]["product_ms"],
        "peak_mb": max(each["peak_mb"] for each in found),
    }


def rank(own: int, size: int, meeting: Path) -> dict[str, Any]:
    """What one of the ranks finds."""
    torch.set_num_threads(1)
    ranks.declare(own, size)
    if size > 1:
        ranks.join(FileStore(str(meeting / "store"), size), backend="gloo")
    spread = Spread.of(N_EXAMPLES, CHUNK)
    here = len(spread.here) if spread else N_EXAMPLES
    targets = torch.arange(N_EXAMPLES) % 10  # each rank has those of all
    data = Dataset(random_examples(here, seed=own).inputs, targets, 10, "random", spread=spread)
    objective, theta = _problem(data, 0, chunk_size=CHUNK, reduced=False)
    hvp, vector = objective.hvp(theta), torch.ones_like(theta)
    found = {
        "gradient_ms": _milliseconds(lambda: objective.value_and_grad(theta)),
        "product_ms": _milliseconds(lambda: hvp(vector)),
    }
    ranks.leave()
    return {**found, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    started = time.perf_counter()
    for _ in range(REPEATS):
        call()
    return (time.perf_counter() - started) / REPEATS * 1e3


def _problem(data: Dataset, seed: int, *, chunk_size: int, reduced: bool) -> tuple[Objective, torch.Tensor]:
    return network_problem(
        mlp,
        cross_entropy(),
        data,
        seed=seed,
        dtype=torch.float32,
        device="cpu",
        chunk_size=chunk_size,
        reduce_inputs=reduced,
    )

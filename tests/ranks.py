"""What several ranks compute, to be held to what one process computes.

    python -m tests.ranks FOLDER 1 2 4

Each world of so many ranks is forked from this process, which has imported PyTorch and not used it. Every rank of it
writes what it found to FOLDER/<size>_<rank>.pt: names, and bytes.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]

from eosrepro.core import ranks
from eosrepro.core.along import along, minibatch_steps
from eosrepro.core.lanczos import top_eigenpairs
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.ranks import Piece, ordered_sum
from eosrepro.core.row_space import on_own_row_space
from eosrepro.core.spread import Spread
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Loss, Optimizer, Position, Stop
from eosrepro.diagnostics.expected_progress import expected_progress
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.diagnostics.tau_scan import tau_scan
from eosrepro.errors import EosreproError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.central_flow import central_flow
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd

Found = dict[str, Any]


NETWORK = partial(mlp, width=6, depth=2, activation="tanh")


class Wrapped(nn.Module):
    """A network whose first layer nobody sees."""

    batch_statistics: str | int | None = None

    def __init__(self, shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.inner = mlp(shape, n_outputs, width=5, depth=2, activation="tanh")

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network inside."""
        outputs: Tensor = self.inner(inputs)
        return outputs


class InGroups(Wrapped):
    """The same with what batch normalisation takes away, in groups of ten."""

    batch_statistics: str | int | None = 10

    def forward(self, inputs: Tensor) -> Tensor:
        """Less the mean of the group."""
        outputs = super().forward(inputs)
        return outputs - outputs.mean(0)


class Together(InGroups):
    """All examples are one group."""

    batch_statistics = "whole"


def data(n_examples: int, *, side: int = 3, numbers: bool = False) -> tuple[Tensor, Tensor]:
    """Examples of 9 numbers, 36 bytes, or of 49: chunks of them begin anywhere in memory."""
    generator = torch.Generator().manual_seed(n_examples)
    inputs = torch.randn(n_examples, 1, side, side, generator=generator)
    if numbers:
        return inputs, torch.randn(n_examples, 3, generator=generator)
    return inputs, torch.randint(0, 3, (n_examples,), generator=generator)


def problem(
    n_examples: int,
    chunk_size: int,
    build: Callable[..., nn.Module] = NETWORK,
    *,
    side: int = 3,
    numbers: bool = False,
    dtype: torch.dtype = torch.float32,
    rough: bool = False,
) -> tuple[Objective, Tensor]:
    """Of which each rank has its own examples alone."""
    inputs, targets = data(n_examples, side=side, numbers=numbers)
    spread = Spread.of(n_examples, chunk_size)
    if spread:
        inputs = inputs[spread.here.start : spread.here.stop].clone()
    loss: Loss = mse() if numbers else cross_entropy()
    made = Dataset(inputs, targets, 3, "noise", spread=spread)
    objective, start = network_problem(
        build, loss, made, seed=0, dtype=dtype, device="cpu", chunk_size=chunk_size, reduce_inputs=True, rough=rough
    )
    kick = torch.randn(start.shape, generator=torch.Generator().manual_seed(1)).to(start)
    return objective, start + 0.5 * kick


def of_objective(objective: Objective, theta: Tensor) -> Iterator[tuple[str, Any]]:
    """All that is asked of one."""
    vectors = torch.randn(3, len(theta), generator=torch.Generator().manual_seed(2)).to(theta)
    yield "value", objective.value(theta)
    yield "gradient", list(objective.value_and_grad(theta))
    product = objective.hvp(theta)
    yield "gradient of products", product.grad
    yield "products", [product(vector) for vector in vectors]
    yield "third derivatives", objective.curvature_grads(theta, vectors[:2])
    yield "line", [list(point) for point in along(objective, theta, vectors[0], [-0.5, 0.0, 0.25])]


def of_minibatches(objective: Objective, theta: Tensor) -> Iterator[tuple[str, Any]]:
    """Minibatches of one chunk and of several, and one of a minibatch."""
    order = torch.randperm(objective.n_examples, generator=torch.Generator().manual_seed(3))
    batches = [*torch.split(order, objective.n_examples // 3), order[:3], torch.tensor([0, 0])]
    grad = objective.value_and_grad(theta).grad
    steps = minibatch_steps(objective, theta, grad, batches, step_size=0.3)
    yield "steps of minibatches", [list(step) for step in steps]
    for name, batch in (("a few", order[:3]), ("a half", order[: objective.n_examples // 2])):
        some = objective.batch(batch)
        yield from ((f"{name}: {what}", found) for what, found in of_objective(some, theta))
        yield f"{name}, again", list(some.batch(torch.tensor([2, 0])).value_and_grad(theta))


def of_runs(objective: Objective, theta: Tensor) -> Iterator[tuple[str, Any]]:
    """Trainings, and diagnostics on them."""
    methods = {
        "gd": gd(step_size=0.5),
        "sgd": sgd(step_size=0.1, batch_size=40, momentum=0.5),
        "central_flow": central_flow(step_size=0.5, substeps=2),
    }
    for name, method in methods.items():
        path: list[Position] = []
        steps = {"gd": 10, "sgd": 2, "central_flow": 1}[name]
        rows = list(minimise(objective, theta, method, stop=Stop(steps), on_iterate=path.append))
        yield f"{name}: rows", [[*row.columns.values()] for row in rows]
        yield f"{name}: end", path[-1].theta
        yield from of_diagnostics(name, objective, path[-2:], method)


def of_diagnostics(
    name: str, objective: Objective, path: list[Position], method: Optimizer
) -> Iterator[tuple[str, Any]]:
    """On a training by the method of this name."""
    if name == "gd":
        found = sharpness(objective, path, k=2, rtol=3e-3, max_products=200, audit_every=2, seed=0)
        yield "sharpness", [[*row.values()] for row in found]
        yield "tau_scan", [list(astuple(row)) for row in tau_scan(objective, path, optimizer=method)]
    if name == "sgd":
        assert method.minibatches
        rows = expected_progress(objective, path, step_size=0.1, minibatches=method.minibatches)
        yield "expected_progress", [list(astuple(row)) for row in rows]


def of_sums() -> Iterator[tuple[str, Any]]:
    """Sums of pieces of very different sizes, by ranks and by this process alone."""
    draw = random.Random(0)
    for n_parts in (1, 2, 3, 4, 5, 9):
        for size in (1, 17):
            pieces = [
                Piece(torch.tensor([_wild(draw) for _ in range(size)]), [_wild(draw) for _ in range(3)])
                for _ in range(n_parts)
            ]
            own = ranks.divide(n_parts)[ranks.world().rank]
            like = torch.empty(size)
            ours = ordered_sum([pieces[part] for part in own], like=like, n_numbers=3, over=n_parts)
            alone = ordered_sum(pieces, like=like, n_numbers=3, over=None)
            yield f"sum of {n_parts} pieces of {size}", list(ours)
            yield f"sum of {n_parts} pieces of {size}, alone", list(alone)
            assert ours.vector is not None
            yield (
                f"where that of {n_parts} pieces of {size} lies",
                ours.vector.data_ptr() % ranks.ALIGNMENT if size else 0,
            )


def _wild(draw: random.Random) -> float:
    return draw.uniform(-1, 1) * 10.0 ** draw.randint(-6, 6)


def refusals() -> Iterator[tuple[str, Any]]:
    """What is said where ranks cannot share the work; nothing where one process has it all."""
    asked: dict[str, Callable[[], object]] = {
        "few chunks": lambda: Spread.of(50, 50),
        "whole batch": lambda: problem(40, 10, Together),
        "groups across ranks": lambda: problem(40, 8, InGroups),
    }
    for name, ask in asked.items():
        try:
            ask()
            yield f"refused: {name}", ""
        except EosreproError as error:
            yield f"refused: {name}", str(error)


def everything() -> Iterator[tuple[str, Any]]:
    """What this rank computes: names and values."""
    yield from of_sums()
    problems = {
        "network": problem(40, 7),
        "wrapped": problem(40, 7, Wrapped),
        "numbers": problem(40, 7, numbers=True, dtype=torch.float64),
        "groups": problem(40, 10, InGroups),
        "a chunk each": problem(40, 10),
        "row space": problem(40, 7, side=7),
    }
    for name, (objective, theta) in problems.items():
        yield from ((f"{name}: {what}", found) for what, found in of_objective(objective, theta))
        if name != "groups":  # there minibatches are of other groups
            yield from ((f"{name}: {what}", found) for what, found in of_minibatches(objective, theta))
    yield from of_runs(*problem(601, 50))
    objective, theta = problem(40, 7, rough=True)
    found = sharpness(objective, [Position(0, theta, ())], k=1, rtol=3e-3, max_products=200, audit_every=1, seed=0)
    yield "sharpness that starts in bfloat16", [[*row.values()] for row in found]
    for rough in (False, True):
        objective, theta = problem(601, 150, side=8, rough=rough)
        found = sharpness(objective, [Position(0, theta, ())], k=2, rtol=3e-3, max_products=200, audit_every=1, seed=0)
        yield f"sharpness from the row space of a sketch{' in bfloat16' * rough}", [[*row.values()] for row in found]
    yield "the sketch has a row space", on_own_row_space(objective, torch.arange(60)) is not None
    objective, theta = problem(601, 150)
    pair = top_eigenpairs(objective.hvp(theta), theta, rtol=1e-3)[0]
    yield "has a row space", problem(40, 7, side=7)[0].row_space is not None
    yield "eigenpair", [pair.value, pair.vector, pair.residual, pair.products]
    yield "from the first", ranks.from_first(lambda: {"a": torch.arange(3), "b": "text"})
    yield from refusals()


def rank(folder: Path, store: str, own: int, size: int) -> None:
    """One process of a world."""
    torch.set_num_threads(1)
    ranks.declare(own, size)
    if size > 1:
        ranks.join(FileStore(store, size), backend="gloo")
    torch.save(dict(everything()), folder / f"{size}_{own}.pt")


def main(folder: Path, sizes: list[int]) -> None:
    """Each world in turn."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for size in sizes:
        with tempfile.TemporaryDirectory() as meeting:
            processes = []
            for own in range(size):
                if process := os.fork():
                    processes.append(process)
                    continue
                try:
                    rank(folder, f"{meeting}/store", own, size)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            if any(os.waitpid(process, 0)[1] for process in processes):
                sys.exit(f"a world of {size} ranks failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])

"""Small problems whose Hessians can be written down whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Position, Stop
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.views.mlflow.connection import connect

torch.set_num_threads(1)


def small_dataset(n_examples: int = 40, *, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n_examples, 1, 3, 3, generator=generator)
    targets = torch.randint(0, 3, (n_examples,), generator=generator)
    return Dataset(inputs, targets, 3, "noise")


def small_problem(
    activation: str = "tanh", *, dtype: torch.dtype = torch.float64, chunk_size: int = 40, seed: int = 0
) -> tuple[Objective, Tensor]:
    """A 9-6-6-3 network on 40 examples (123 parameters), away from its start so that nothing is small by accident."""
    objective, start = network_problem(
        partial(mlp, width=6, depth=2, activation=activation),
        cross_entropy(),
        small_dataset(),
        seed=seed,
        dtype=dtype,
        device="cpu",
        chunk_size=chunk_size,
    )
    kick = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return objective, start + 0.5 * kick.to(start)


def interpolated() -> tuple[Objective, Tensor]:
    """Two examples, and where steps of 20,000 end: the loss and its gradient are exactly 0."""
    objective, start = network_problem(
        partial(mlp, width=4, depth=1),
        cross_entropy(),
        Dataset(torch.tensor([5.0, -5.0]).reshape(2, 1, 1, 1), torch.tensor([0, 1]), 2, "two"),
        seed=0,
        dtype=torch.float64,
        device="cpu",
        chunk_size=40,
    )
    path: list[Position] = []
    rows = list(minimise(objective, start, gd(step_size=20_000), stop=Stop(20), on_iterate=path.append))
    assert rows[-1].loss == rows[-1].grad_norm == 0
    return objective, path[-1].theta


def dense_hessian(objective: Objective, theta: Tensor) -> Tensor:
    """∇²f(θ) by PyTorch's own double differentiation, (P, P)."""

    def f(point: Tensor) -> Tensor:
        return torch.stack([part(point)[0] for part in objective.parts]).sum()

    return torch.autograd.functional.hessian(f, theta)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables and nothing else; making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def matrix_with() -> Callable[[list[float]], Tensor]:
    """A symmetric float64 matrix with the given eigenvalues, in a random basis."""

    def build(eigenvalues: list[float]) -> Tensor:
        generator = torch.Generator().manual_seed(len(eigenvalues))
        basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=generator).double())[0]
        return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T

    return build

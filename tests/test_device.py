"""Placement and transfers: what of a GPU can be tested without one, and the rest where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eosrepro import catalog
from eosrepro.core.networks import as_function, flattened
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Row, Stop
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from tests.conftest import small_dataset

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
IMAGES = ("cnn", "deep_linear", "mlp", "resnet", "vgg", "vit")


class Transfers(TorchDispatchMode):
    """Counts what makes a GPU wait for the program: numbers that Python reads."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transfers]:
    counter, tolist = Transfers(), Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        counter.count += 1
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    with counter:
        yield counter


def small(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Objective:
    make = partial(network_problem, partial(mlp, width=6), cross_entropy(), small_dataset(), seed=0, dtype=dtype)
    return make(device=device, chunk_size=40)[0]


def test_a_step_of_gd_reads_numbers_twice(transfers: Transfers) -> None:
    """The loss with its score, and the inner products of the step."""
    objective, counted = small(), []
    transfers.count = 0
    for _ in minimise(objective, objective.start, gd(step_size=0.1), stop=Stop(10)):
        counted.append(transfers.count)
    steps = {after - before for before, after in pairwise(counted[:-1])}
    assert steps == {2}


@pytest.mark.parametrize("loss", catalog.names("losses"))
@pytest.mark.parametrize("model", IMAGES)
def test_models_and_losses_make_no_tensor_on_another_device(model: str, loss: str) -> None:
    """On `meta`, where nothing is computed and every operation with a tensor of the CPU fails."""
    if model == "deep_linear" and loss != "mse":
        pytest.skip("its outputs are one number each")
    with torch.device("meta"):
        n_outputs = 1 if loss == "logistic" else 3
        module = catalog.find("models", model)((3, 32, 32), n_outputs)
        inputs = torch.empty(4, 3, 32, 32)
        targets = torch.zeros(4, dtype=torch.int64)
    theta = flattened(module).requires_grad_()
    value = catalog.find("losses", loss)()(as_function(module)(inputs, theta).double(), targets).sum()
    (grad,) = torch.autograd.grad(value, theta, create_graph=True)
    (product,) = torch.autograd.grad(grad.dot(torch.empty_like(theta)), theta)
    assert (product.device.type, product.shape) == ("meta", theta.shape)


def rows_on(device: str) -> list[Row]:
    objective = small(device)
    return list(minimise(objective, objective.start, gd(step_size=0.5), stop=Stop(20)))


@needs_gpu
def test_the_first_steps_on_a_gpu_are_those_on_the_cpu() -> None:
    for here, there in zip(rows_on("cpu"), rows_on("cuda"), strict=True):
        assert there.columns == pytest.approx(here.columns, rel=1e-4, abs=1e-6, nan_ok=True)


@needs_gpu
def test_two_runs_on_a_gpu_are_equal_to_the_byte() -> None:
    assert repr(rows_on("cuda")) == repr(rows_on("cuda"))


@needs_gpu
def test_products_on_a_gpu_are_not_in_tf32() -> None:
    """In TF32, with ten bits, the sharpness would be off by more than 1e-4."""
    objective, exact = small("cuda"), small("cpu", torch.float64)
    torch.backends.cuda.matmul.allow_tf32 = True
    objective = small("cuda")  # switches it off
    options = {"k": 1, "rtol": 1e-5, "max_products": 200, "audit_every": 1, "seed": 0}
    found, expected = (
        next(iter(sharpness(each, [(0, each.start, None)], **options)))["sharpness"]  # type: ignore[list-item,arg-type]
        for each in (objective, exact)
    )
    assert found == pytest.approx(expected, rel=2e-5)

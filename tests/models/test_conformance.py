"""What every model must do, whichever files lie in eosrepro/models."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eosrepro import catalog
from eosrepro.core.objective import Objective, network_problem
from eosrepro.core.types import Dataset
from eosrepro.losses.cross_entropy import cross_entropy
from tests.conftest import dense_hessian
from tests.members import identify, variants

IMAGE = (3, 4, 4)
N_CLASSES = 3

every_variant = pytest.mark.parametrize(("name", "options"), variants("models"), ids=identify)


def small(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that make an instance small enough to write its Hessian down."""
    sized = "width" in inspect.signature(catalog.find("models", name)).parameters
    return ({"width": 4} if sized else {}) | {**options}


def dataset(n_examples: int = 7) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n_examples, *IMAGE, generator=generator)
    return Dataset(inputs, torch.arange(n_examples) % N_CLASSES, N_CLASSES, "noise")


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    module = catalog.find("models", name)(IMAGE, N_CLASSES, **small(name, options))
    assert isinstance(module, nn.Module)
    return module


def problem(name: str, options: Mapping[str, Any], dtype: torch.dtype) -> tuple[Objective, Tensor]:
    return network_problem(
        partial(catalog.find("models", name), **small(name, options)),
        cross_entropy(),
        dataset(),
        seed=0,
        dtype=dtype,
        device="cpu",
        chunk_size=7,
    )


@every_variant
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_outputs_are_one_number_a_class(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    module = catalog.find("models", name)(shape, 10, **options)
    assert module(torch.rand(5, *shape)).shape == (5, 10)


@every_variant
def test_the_flat_vector_is_the_network(name: str, options: dict[str, Any]) -> None:
    module, data = build(name, options), dataset()
    objective, theta = problem(name, options, torch.float32)

    assert objective.n_params == theta.numel() == sum(p.numel() for p in module.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), theta)
    direct = cross_entropy()(module(data.inputs).double(), data.targets).mean().item()
    assert objective.loss(theta) == pytest.approx(direct, rel=1e-12)


@every_variant
def test_the_outputs_depend_on_the_parameters_and_the_example_alone(name: str, options: dict[str, Any]) -> None:
    module, data = build(name, options), dataset()
    if getattr(module, "batch_statistics", None) is not None:
        pytest.skip("it says which other examples it depends on")
    buffers = [buffer.clone() for buffer in module.buffers()]
    outputs = module(data.inputs)

    assert all(map(torch.equal, module.buffers(), buffers))  # running means would make f depend on its history
    assert torch.equal(module(data.inputs), outputs)
    alone = torch.cat([module(example[None]) for example in data.inputs])
    assert torch.allclose(alone, outputs, rtol=1e-5, atol=1e-6)


@every_variant
def test_the_seed_alone_decides_the_start(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(99)
    one = problem(name, options, torch.float32)[1]
    torch.manual_seed(7)
    assert torch.equal(problem(name, options, torch.float32)[1], one)
    assert torch.equal(problem(name, options, torch.float64)[1], one.double())


@every_variant
def test_hessian_products_are_those_of_the_dense_hessian(name: str, options: dict[str, Any]) -> None:
    objective, start = problem(name, options, torch.float64)
    assert objective.n_params < 1000, f"{name} is too large to write its Hessian down: call its size width"
    theta = start + 0.3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    hessian, hvp = dense_hessian(objective, theta), objective.hvp(theta)
    products = torch.stack([hvp(vector) for vector in torch.eye(len(theta), dtype=torch.float64)])

    assert hessian.abs().max() > 1e-3
    assert torch.allclose(products, hessian, rtol=1e-9, atol=1e-12)
    assert torch.allclose(hvp.grad, objective.value_and_grad(theta).grad, rtol=1e-9, atol=1e-12)

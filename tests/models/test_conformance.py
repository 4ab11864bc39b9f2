"""What every model must do, whichever files lie in eosrepro/models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from eosrepro import catalog
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.types import Dataset, Loss
from eosrepro.losses.cross_entropy import cross_entropy
from tests.members import identify
from tests.models.samples import build, dataset_for, inputs_for, models, small

every_variant = pytest.mark.parametrize(("name", "options"), models(), ids=identify)


def problem(
    name: str, options: Mapping[str, Any], dtype: torch.dtype, loss: Loss | None = None
) -> tuple[Objective, Tensor]:
    return network_problem(
        partial(catalog.find("models", name), **small(name, options)),
        loss or cross_entropy(),
        dataset_for(name, options),
        seed=0,
        dtype=dtype,
        device="cpu",
        chunk_size=7,
    )


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [(name, small(name, options), (1, 8, 8)) for name, options in models()]
    + [(name, {}, (3, 32, 32)) for name in catalog.names("models")],
    ids=identify,
)
def test_outputs_are_one_number_a_class(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    inputs = inputs_for(name, 5, shape=shape)
    module = catalog.find("models", name)(tuple(inputs.shape[1:]), 10, **options)
    outputs = module(inputs)
    assert (len(outputs), outputs.shape[-1]) == (5, 10)
    assert outputs.ndim == 2 or outputs.shape[1:-1] == inputs.shape[1:]  # one for each token


@every_variant
def test_the_flat_vector_is_the_network(name: str, options: dict[str, Any]) -> None:
    module, data = build(name, options), dataset_for(name, options)
    objective, theta = problem(name, options, torch.float32)

    assert objective.n_params == theta.numel() == sum(p.numel() for p in module.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), theta)
    losses = [cross_entropy()(module(x).double(), y) for x, y in groups(module, data)]
    assert objective.loss(theta) == pytest.approx(torch.cat(losses).mean().item(), rel=1e-12)


@every_variant
def test_the_outputs_depend_on_the_parameters_and_the_example_alone(name: str, options: dict[str, Any]) -> None:
    module, data = build(name, options), dataset_for(name, options)
    if getattr(module, "batch_statistics", None) is not None:
        pytest.skip("it says which other examples it depends on")
    buffers = [buffer.clone() for buffer in module.buffers()]
    outputs = module(data.inputs)

    assert all(map(torch.equal, module.buffers(), buffers))  # running means would make f depend on its history
    assert torch.equal(module(data.inputs), outputs)
    alone = torch.cat([module(example[None]) for example in data.inputs])
    assert torch.allclose(alone, outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", catalog.names("models"))
def test_the_seed_alone_decides_the_start(name: str) -> None:
    torch.manual_seed(99)
    one = problem(name, {}, torch.float32)[1]
    torch.manual_seed(7)
    assert torch.equal(problem(name, {}, torch.float32)[1], one)
    assert torch.equal(problem(name, {}, torch.float64)[1], one.double())


# --- Hessian products -------------------------------------------------------------------------------------------------


def groups(module: nn.Module, data: Dataset) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of the examples that are normalised together."""
    size = getattr(module, "batch_statistics", None)
    sizes = {None: [7], "whole": [7], 3: [3, 4]}[size]
    return list(zip(data.inputs.split(sizes), data.targets.split(sizes), strict=True))


def by_hand(module: nn.Module, loss: Loss, data: Dataset, theta: Tensor) -> Tensor:
    """The mean loss, ()."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    pieces = theta.split([shape.numel() for shape in shapes.values()])
    values = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
    losses = [
        loss(functional_call(copy.deepcopy(module), values, (inputs.double(),)), targets)
        for inputs, targets in groups(module, data)
    ]
    return torch.cat(losses).mean()


@every_variant
def test_hessian_products_are_those_of_a_dense_hessian(name: str, options: dict[str, Any]) -> None:
    """Those of other losses: tests/test_every_combination.py."""
    function = cross_entropy()
    objective, start = problem(name, options, torch.float64, function)
    assert objective.n_params < 1000, (
        f"{name} is too large to write its Hessian down: see SMALL, or call its size width"
    )
    generator = torch.Generator().manual_seed(2)
    theta = start + 0.3 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    directions = torch.randn(5, len(theta), generator=generator, dtype=torch.float64)

    f = partial(by_hand, build(name, options).double(), function, dataset_for(name, options))
    hessian, hvp = torch.autograd.functional.hessian(f, theta, vectorize=True), objective.hvp(theta)
    (grad,) = torch.autograd.grad(f(leaf := theta.clone().requires_grad_()), leaf)

    assert hessian.abs().max() > 1e-3
    assert torch.allclose(hessian, hessian.T, rtol=1e-9, atol=1e-12 * hessian.abs().max())
    assert objective.loss(theta) == pytest.approx(f(theta).item(), rel=1e-12)
    torch.testing.assert_close(hvp.grad, grad, rtol=1e-9, atol=1e-12)
    rounding = 1e-12 * hessian.abs().max().item()
    torch.testing.assert_close(torch.stack([*map(hvp, directions)]), directions @ hessian, rtol=1e-9, atol=rounding)

"""Every model with every loss under every optimizer: products and eigenvalues against a Hessian that is written down.

The Hessian is of the module itself, example by example, or group by group where they are normalised together, and by
forward differentiation of its gradient: nothing of `core/objective.py` is in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from math import isnan
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

from eosrepro import catalog
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Loss, Optimizer, Position, Stop
from eosrepro.diagnostics.effective_sharpness import effective_sharpness
from tests.members import identify, variants
from tests.models.samples import build, dataset_for, models, small

N_EXAMPLES = 7
STEPS = 3  # until a method has a state
OF_PRODUCTS, OF_EIGENVALUES = 1e-8, 1e-6  # largest relative differences

Member = tuple[str, dict[str, Any]]


def switched_on(name: str) -> Iterator[Member]:
    """An optimizer with each of its options that is 0 or off as it comes, or the reverse."""
    for option in inspect.signature(catalog.find("optimizers", name)).parameters.values():
        if isinstance(option.default, bool):
            yield name, {option.name: not option.default}
        elif isinstance(option.default, float) and not option.default:
            yield name, {option.name: 0.1}


MODELS, LOSSES = models(), variants("losses")
OPTIMIZERS = [*variants("optimizers"), *(each for name in catalog.names("optimizers") for each in switched_on(name))]

Case = tuple[Member, Member, list[Member]]  # a model, a loss, and the optimizers that are tried with them

ALL: list[Case] = [(model, loss, OPTIMIZERS) for model, loss in product(MODELS, LOSSES)]


def turns() -> list[Case]:
    """Each model as it comes with each loss, and each with batch statistics of groups: the optimizers take turns."""
    pairs = [(model, loss) for model, loss in product(MODELS, LOSSES) if not model[1]]
    pairs += [(model, LOSSES[0]) for model in MODELS if model[1].get("batch_norm") == 3]
    rounds = -(-len(OPTIMIZERS) // len(pairs))
    return [
        (*pair, [OPTIMIZERS[(turn + i * len(pairs)) % len(OPTIMIZERS)] for i in range(rounds)])
        for turn, pair in enumerate(pairs)
    ]


# --- by hand ----------------------------------------------------------------------------------------------------------


class Dense(NamedTuple):
    """f, ∇f and ∇²f at one θ."""

    loss: float
    grad: Tensor  # (P,)
    hessian: Tensor  # (P, P)


def normal(inputs: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """(x − mean) / √(variance + ε) over these dimensions.

    PyTorch's own layers, differentiated forwards after backwards, give a Hessian that is not symmetric.
    """
    centred = inputs - inputs.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()


def batch_norm(layer: nn.BatchNorm2d, images: Tensor) -> Tensor:
    return normal(images, (0, 2, 3), layer.eps) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)


def group_norm(layer: nn.GroupNorm, images: Tensor) -> Tensor:
    groups = torch.unflatten(images, 1, (layer.num_groups, -1))
    return normal(groups, (2, 3, 4), layer.eps).flatten(1, 2) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)


def layer_norm(layer: nn.LayerNorm, inputs: Tensor) -> Tensor:
    return normal(inputs, (-1,), layer.eps) * layer.weight + layer.bias


@contextmanager
def normalisation_by_hand() -> Iterator[None]:
    with (
        mock.patch.object(nn.BatchNorm2d, "forward", batch_norm),
        mock.patch.object(nn.LayerNorm, "forward", layer_norm),
        mock.patch.object(nn.GroupNorm, "forward", group_norm),
        sdpa_kernel(SDPBackend.MATH),  # the others have no second derivatives
    ):
        yield


def together(module: nn.Module) -> list[range]:
    """The examples that are normalised together: what is left over is in the last group."""
    size = getattr(module, "batch_statistics", None)
    sizes = {None: [1] * N_EXAMPLES, "whole": [N_EXAMPLES], 3: [3, 4]}[size]
    ends = np.cumsum(sizes).tolist()
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def dense(model: Member, loss: Loss, theta: Tensor) -> Dense:
    module, data = build(*model).double(), dataset_for(*model, N_EXAMPLES)
    parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
    sizes = [each.numel() for each in parameters.values()]

    def summed(theta: Tensor, examples: range) -> Tensor:
        pieces = zip(parameters.items(), torch.split(theta, sizes), strict=True)
        values = {name: piece.view(each.shape) for (name, each), piece in pieces}
        outputs = functional_call(module, values, (data.inputs[examples].double(),))
        return loss(outputs, data.targets[examples]).sum()

    value, slope, curvature = 0.0, torch.zeros_like(theta), theta.new_zeros(len(theta), len(theta))
    with normalisation_by_hand():
        for examples in together(module):
            f = partial(summed, examples=examples)
            value += f(theta).item() / N_EXAMPLES
            slope += grad(f)(theta) / N_EXAMPLES
            curvature += hessian(f)(theta) / N_EXAMPLES
    return Dense(value, slope, curvature)


def top(matrix: np.ndarray) -> float:
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


# --- the project ------------------------------------------------------------------------------------------------------


def problem(model: Member, loss: Loss) -> tuple[Objective, Tensor]:
    """The objective, and a point away from its start, so that nothing is small by accident."""
    objective, start = network_problem(
        partial(catalog.find("models", model[0]), **small(*model)),
        loss,
        dataset_for(*model, N_EXAMPLES),
        seed=0,
        dtype=torch.float64,
        device="cpu",
        chunk_size=3,
    )
    return objective, start + 0.3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(2)).to(start)


def state_of(optimizer: Optimizer, objective: Objective, theta: Tensor) -> Any:
    """What a method keeps after a few steps that end near θ."""
    seen: list[Position] = []
    list(minimise(objective, theta, optimizer, stop=Stop(STEPS), on_iterate=seen.append))
    assert len(seen) == STEPS + 1
    return seen[-1].state


def found(objective: Objective, optimizer: Optimizer, at: Position) -> tuple[float, float]:
    """The effective sharpness, and that of the audit."""
    options: dict[str, Any] = {"k": 1, "rtol": 1e-9, "max_products": objective.n_params, "audit_every": 1, "seed": 0}
    (row,) = effective_sharpness(objective, [at], optimizer=optimizer, **options)
    return row["effective_sharpness"], row["effective_audit_sharpness"]


def off(number: float, expected: float) -> float:
    return abs(number - expected) / abs(expected)


def compare(case: Case) -> dict[str, float]:
    """Largest relative differences, of Hessian products and of the effective sharpness under each optimizer."""
    model, (loss, of_loss), optimizers = case
    function: Loss = catalog.find("losses", loss)(**of_loss)
    objective, theta = problem(model, function)
    reference = dense(model, function, theta)
    assert off(objective.loss(theta), reference.loss) < 1e-12
    assert (reference.hessian - reference.hessian.T).abs().max() < 1e-11 * reference.hessian.abs().max()

    hvp = objective.hvp(theta)
    torch.testing.assert_close(hvp.grad, reference.grad, rtol=1e-9, atol=1e-12)
    vectors = torch.randn(4, len(theta), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = vectors @ reference.hessian
    products = torch.stack([*map(hvp, vectors)])
    errors = {"Hessian products": float(((products - expected).norm(dim=1) / expected.norm(dim=1)).max())}
    for name, options in optimizers:
        optimizer: Optimizer = catalog.find("optimizers", name)(step_size=0.005, **options)
        state = state_of(optimizer, objective, theta)
        here = Iterate(theta, reference.grad, objective, reference.loss)
        geometry = optimizer.geometry(here, state)
        assert isnan(geometry.threshold) == (not optimizer.threshold_formula)
        assert (geometry.preconditioner is not None) == optimizer.preconditioned
        scale = np.ones(len(theta))
        if geometry.preconditioner is not None:
            scale /= np.sqrt(np.asarray(geometry.preconditioner))
        edge = top(scale[:, None] * reference.hessian.numpy() * scale)
        numbers = found(objective, optimizer, Position(STEPS, theta, state))
        errors[f"{name} {identify(options)}"] = max(off(number, edge) for number in numbers)
    return errors


def check(case: Case) -> None:
    errors = compare(case)
    of_products = errors.pop("Hessian products")
    print(f"{label(case)}: {of_products:.1e} of products, {max(errors.values()):.1e} of eigenvalues")
    assert of_products < OF_PRODUCTS
    assert {name: error for name, error in errors.items() if not error < OF_EIGENVALUES} == {}
    assert len(errors) == len(case[2]) > 0  # none is refused


def label(case: Case) -> str:
    return "-".join(f"{name}-{identify(options)}" for name, options in case[:2])


@pytest.mark.parametrize("case", turns(), ids=label)
def test_some_of_them_are_those_of_a_dense_hessian(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.very_slow
@pytest.mark.parametrize("case", ALL, ids=label)
def test_all_are_those_of_a_dense_hessian(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("cases", [turns(), ALL], ids=["some", "all"])
def test_no_member_is_left_out(cases: list[Case]) -> None:
    tried = [(model, loss, each) for model, loss, optimizers in cases for each in optimizers]
    assert len(tried) == len({str(each) for each in tried})
    for place, kind in enumerate(("models", "losses", "optimizers")):
        assert {each[place][0] for each in tried} == {*catalog.names(kind)}
    assert all(any(each[2] == optimizer for each in tried) for optimizer in OPTIMIZERS)


def test_all_are_every_combination() -> None:
    assert sum(len(optimizers) for *_, optimizers in ALL) == len(MODELS) * len(LOSSES) * len(OPTIMIZERS)
    assert len(MODELS) > len(catalog.names("models"))
    assert any(options.get("batch_norm") == "whole" for _, options in MODELS)

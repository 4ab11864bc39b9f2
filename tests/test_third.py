"""Third derivatives against dense ones and finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from tests.conftest import small_dataset, small_problem


def directions(size: int, count: int = 3) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("chunk_size", [40, 15])
@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu", "softplus"])
def test_of_a_network_against_differences_of_hessian_products(activation: str, chunk_size: int) -> None:
    """d/dt of ⟨v_i, ∇²f(θ + td) v_j⟩ in a random direction d, by differences of fourth order."""
    objective, theta = small_problem(activation, chunk_size=chunk_size)
    vectors, along = directions(len(theta)), directions(len(theta), 4)[3]
    assert_third_derivatives(objective, theta, vectors, along)


def assert_third_derivatives(objective: Objective, theta: Tensor, vectors: Tensor, along: Tensor) -> None:
    found = objective.curvature_grads(theta, vectors)
    assert found.shape == (len(vectors), len(vectors), len(theta))
    assert torch.equal(found, found.transpose(0, 1))

    def curvatures(time: float) -> Tensor:
        hvp = objective.hvp(theta + time * along)
        return vectors @ torch.stack([hvp(vector) for vector in vectors], dim=1)

    step = 1e-3
    near, far = (curvatures(time) - curvatures(-time) for time in (step, 2 * step))
    torch.testing.assert_close(found @ along, (8 * near - far) / (12 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("statistics", ["whole", 20, None])
def test_of_a_network_with_batch_normalisation(statistics: int | str | None) -> None:
    """PyTorch has no third derivatives of its own layer, in training mode; None: with running statistics."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    data = small_dataset()
    module(data.inputs.double())
    objective = Objective.of(
        module.train(statistics is not None),
        nn.functional.cross_entropy,
        data.inputs,
        data.targets,
        batch_statistics=statistics,  # type: ignore[arg-type]
    )
    vectors, along = directions(objective.n_params, 2), directions(objective.n_params, 3)[2]
    assert_third_derivatives(objective, objective.start, vectors, along)


def cubic(objective: Objective, theta: Tensor) -> Tensor:
    """∇³f, (P, P, P), by PyTorch's own differentiation."""

    def hessian(point: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(lambda at: objective.parts[0](at)[0], point, create_graph=True)

    return torch.autograd.functional.jacobian(hessian, theta)


def test_of_a_function_against_the_dense_tensor() -> None:
    objective, theta = function_problem(
        lambda t: (t[..., 0] * t[..., 1]).tanh() + t[..., 2] ** 3 * t[..., 0], [0.3, -0.7, 0.5]
    )
    vectors = directions(3, 2)
    expected = torch.einsum("ai,bj,ijp->abp", vectors, vectors, cubic(objective, theta))
    torch.testing.assert_close(objective.curvature_grads(theta, vectors), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("f", [lambda t: (t**2).sum(-1), lambda t: t.sum(-1)], ids=["quadratic", "affine"])
def test_where_there_is_none_it_is_0(f: object) -> None:
    objective = Objective(torch.zeros(2), [lambda theta: (f(theta).double(), theta.new_tensor(torch.nan))], 1)  # type: ignore[operator]
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert not objective.curvature_grads(theta, torch.eye(2, dtype=torch.float64)).any()

"""What every problem must do, whichever files lie in eosrepro/problems."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eosrepro import catalog
from eosrepro.core.problem import function_problem
from eosrepro.core.types import Function
from tests.conftest import dense_hessian
from tests.members import identify, variants

THREE = {"quadratic": {"curvatures": (3.0, 2.0, 1.0)}, "tanh_quadratic": {"curvatures": (3.0, 2.0, 1.0)}}
N_NUMBERS = 2  # what every problem's defaults are for


@pytest.fixture(params=variants("problems"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def f(request: pytest.FixtureRequest) -> Function:
    name, options = request.param
    made: Function = catalog.find("problems", name)(**options)
    return made


def points(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*shape, N_NUMBERS, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_the_last_axis_is_the_vector_and_the_others_are_a_batch(f: Function, shape: tuple[int, ...]) -> None:
    thetas = points(*shape)
    values = f(thetas)
    assert (values.shape, values.dtype) == (shape, torch.float64)
    one_by_one = torch.stack([f(theta) for theta in thetas.reshape(-1, N_NUMBERS)])
    assert torch.allclose(values.reshape(-1), one_by_one, rtol=1e-14)


def test_derivatives_are_those_of_finite_differences(f: Function) -> None:
    thetas = points(3).mul(0.3).requires_grad_()
    assert torch.autograd.gradcheck(f, thetas)
    assert torch.autograd.gradgradcheck(f, thetas)


def test_hessian_products_are_finite_and_those_of_the_dense_hessian(f: Function) -> None:
    for theta in [points() * 0.3, torch.zeros(N_NUMBERS, dtype=torch.float64)]:
        objective, _ = function_problem(f, theta.tolist())
        hvp = objective.hvp(theta)
        products = torch.stack([hvp(vector) for vector in torch.eye(N_NUMBERS, dtype=torch.float64)])
        assert torch.isfinite(products).all()
        assert torch.allclose(products, dense_hessian(objective, theta), rtol=1e-12)


def test_it_is_a_function(f: Function) -> None:
    thetas = points(3)
    before = thetas.clone()
    assert torch.equal(f(thetas), f(thetas))
    assert torch.equal(thetas, before)


@pytest.mark.parametrize("name", catalog.names("problems"))
def test_it_takes_as_many_numbers_as_it_says(name: str) -> None:
    """So that params.yaml is checked without an evaluation."""
    for options in ({}, THREE.get(name, {})):
        for numbers in range(1, 7):
            try:
                value = catalog.find("problems", name)(**options)(torch.ones(numbers, dtype=torch.float64))
            except (RuntimeError, ValueError, IndexError):
                taken = False
            else:
                taken = value.ndim == 0
            assert catalog.takes(name, options, numbers) is taken, numbers

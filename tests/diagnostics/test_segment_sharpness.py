"""λ_max along the gradient step: dense Hessians at its points, and the bound of Corollary 1."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Position, Stop
from eosrepro.diagnostics.segment_sharpness import SegmentSharpness, segment_sharpness
from eosrepro.optimizers.gd import gd
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, interpolated, small_problem


def measured(objective: Objective, theta: Tensor, step_size: float, *, points: int = 5) -> SegmentSharpness:
    settings = {"points": points, "rtol": 1e-8, "max_products": 300, "seed": 0}
    (found,) = segment_sharpness(objective, [Position(4, theta, None)], optimizer=gd(step_size=step_size), **settings)  # type: ignore[arg-type]
    assert found.step == 4
    return found


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_extremes_are_those_of_the_dense_hessians_at_the_points(activation: str) -> None:
    objective, theta = small_problem(activation)
    grad = objective.value_and_grad(theta).grad
    values = [
        float(torch.linalg.eigvalsh(dense_hessian(objective, theta - share * 0.8 * grad))[-1])
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    found = measured(objective, theta, 0.8)
    assert found.segment_sharpness_max == pytest.approx(max(values), rel=1e-6)
    assert found.segment_sharpness_min == pytest.approx(min(values), rel=1e-6)


def test_the_bound_is_that_of_the_recorded_relative_progress() -> None:
    objective, theta = small_problem()
    row = next(minimise(objective, theta, gd(step_size=0.8), stop=Stop(1)))
    found = measured(objective, theta, 0.8, points=2)
    assert found.segment_sharpness_bound == pytest.approx(2 / 0.8 * (row.relative_progress + 1), rel=1e-9)
    assert found.segment_sharpness_excess == pytest.approx(
        found.segment_sharpness_max - found.segment_sharpness_bound, rel=1e-12
    )


def test_on_a_quadratic_along_its_top_eigenvector_the_bound_is_reached() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.0])
    found = measured(objective, theta, 0.05)
    assert found.segment_sharpness_max == pytest.approx(40)
    assert found.segment_sharpness_excess == pytest.approx(0, abs=1e-9)


def test_where_the_gradient_is_exactly_0_there_is_no_bound() -> None:
    objective, theta = interpolated()
    found = measured(objective, theta, 20_000)
    assert isnan(found.segment_sharpness_bound)
    assert isnan(found.segment_sharpness_excess)
    assert found.segment_sharpness_max == found.segment_sharpness_min == 0


def test_below_the_rounding_of_the_losses_and_of_theta_there_is_no_bound() -> None:
    objective, theta = function_problem(lambda point: 1e9 + point.square().sum(), [1e-4])
    assert isnan(measured(objective, theta, 0.25).segment_sharpness_bound)
    objective, theta = function_problem(lambda point: (point - 1e8).square().sum(), [1e8 + 1])
    lost, kept = measured(objective, theta, 1e-10), measured(objective, theta, 0.25)
    assert isnan(lost.segment_sharpness_bound)
    assert kept.segment_sharpness_bound == pytest.approx(2)


@given(st.integers(0, 30), st.floats(0.05, 3))
@settings(max_examples=20, deadline=None)
def test_the_largest_of_many_points_is_above_the_bound(seed: int, step_size: float) -> None:
    """Corollary 1: (2/η)(RP + 1) ≤ sup λ_max over the segment."""
    objective, theta = small_problem("softplus", seed=seed)
    found = measured(objective, theta, step_size, points=9)
    assert found.segment_sharpness_excess >= -1e-6 * abs(found.segment_sharpness_bound)


@pytest.mark.parametrize("finite_points", [1, 3])
def test_where_the_hessian_is_not_finite_at_a_point_the_extremes_are_empty(finite_points: int) -> None:
    """f = θ²/2 up to some point of the step, and not a number beyond."""
    end = 1 - 0.2 * (finite_points - 0.5) / 4  # between two of the five points from 1 to 0.8

    def f(theta: Tensor) -> Tensor:
        return theta[0] ** 2 / 2 * (1 if theta[0] >= end else torch.nan)

    objective, theta = function_problem(f, [1.0])
    found = measured(objective, theta, 0.2)

    assert isnan(found.segment_sharpness_max)
    assert isnan(found.segment_sharpness_min)
    assert isnan(found.segment_sharpness_excess)
    assert found.segment_products == finite_points + 1


def test_a_top_eigenvector_that_changes_along_the_step_is_found() -> None:
    """Of two curvatures one falls and the other grows: the start is nearly the eigenvector of the former alone."""
    growing = torch.linspace(0.1, 1.0, 60, dtype=torch.float64)

    def f(theta: Tensor) -> Tensor:  # along axis 1 the curvature is θ₀ + 7, along axis 2 it is 9 − θ₀
        return theta[0] + ((theta[0] + 7) * theta[1] ** 2 + (9 - theta[0]) * theta[2] ** 2 + growing @ theta**2) / 2

    objective, theta = function_problem(f, [1.5, *[0.0] * 59])
    end = theta - 1.5 * objective.value_and_grad(theta).grad
    before, after = (torch.linalg.eigh(dense_hessian(objective, point)) for point in (theta, end))
    (found,) = segment_sharpness(
        objective, [Position(0, theta, None)], optimizer=gd(step_size=1.5), points=2, rtol=1e-2, max_products=60, seed=0
    )

    assert abs(before.eigenvectors[:, -1] @ after.eigenvectors[:, -1]) < 1e-9
    assert found.segment_sharpness_max == pytest.approx(after.eigenvalues[-1].item(), rel=1e-3)
    assert found.segment_sharpness_min == pytest.approx(before.eigenvalues[-1].item(), rel=1e-3)

"""The critical step size: in closed form on quadratics, and by its definition on networks."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.types import Geometry, Iterate, Optimizer, Position
from eosrepro.diagnostics.critical_step_size import CriticalStepSize, critical_step_size
from eosrepro.optimizers.gd import gd
from eosrepro.problems.quadratic import quadratic
from tests.conftest import interpolated, small_problem


def measured(objective: Objective, theta: Tensor, optimizer: Optimizer, **options: float) -> CriticalStepSize:
    (found,) = critical_step_size(objective, [Position(4, theta, None)], optimizer=optimizer, **options)
    assert found.step == 4
    return found


def along(direction: Tensor) -> Optimizer:
    """It always takes the same step."""

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        return direction.to(at.theta), state

    return Optimizer(lambda _theta: None, update, lambda _at, _state: Geometry(1.0), "1")


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-2, 2), st.floats(1e-4, 1e2))
@settings(max_examples=60, deadline=None)
def test_on_a_quadratic_it_is_the_closed_form(first: float, second: float, angle: float, step_size: float) -> None:
    objective, theta = function_problem(quadratic(curvatures=(first, second)), [np.cos(angle), np.sin(angle)])
    grad, curvatures = objective.value_and_grad(theta).grad, 2 * torch.tensor([first, second], dtype=torch.float64)
    rayleigh = float(grad.square() @ curvatures / (grad @ grad))
    found = measured(objective, theta, gd(step_size), rtol=1e-9, most=1e9)
    assert found.critical_step_factor == pytest.approx(2 / (step_size * rayleigh), rel=1e-6)
    assert found.critical_sharpness == pytest.approx(rayleigh, rel=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(4))
def test_on_a_network_f_is_lower_all_the_way_and_no_higher_at_the_end(activation: str, seed: int) -> None:
    objective, theta = small_problem(activation, seed=seed)
    here = objective.value_and_grad(theta)
    found = measured(objective, theta, gd(0.1), rtol=1e-8)
    end = found.critical_step_factor * 0.1
    assert objective.loss(theta - end * here.grad) == pytest.approx(here.loss, rel=1e-8)
    inside = [objective.loss(theta - share * end * here.grad) for share in np.linspace(0.01, 0.99, 99)]
    assert max(inside) < here.loss
    # no larger than the greatest curvature between the ends, and here between the extremes along g
    unit = here.grad / here.grad.norm()
    bends = [float(unit @ objective.hvp(theta - t * end * here.grad)(unit)) for t in np.linspace(0, 1, 41)]
    assert min(bends) <= found.critical_sharpness <= max(bends)
    assert found.critical_evaluations < 30


def test_the_first_of_several_roots_is_taken() -> None:
    """−x(x − 1)(x − 3)(x − 4) comes back at 1, and again at 3 and 4."""
    objective, theta = function_problem(lambda x: (x * (x - 1) * (x - 3) * (x - 4)).sum(), [0.0])
    found = measured(objective, theta, along(torch.tensor([-1.0])), rtol=1e-9)
    assert found.critical_step_factor == pytest.approx(1, rel=1e-6)


def test_where_f_rises_at_once_it_is_0_and_where_it_falls_for_ever_there_is_none() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.2])
    assert measured(objective, theta, along(torch.tensor([-1.0, 0.0]))).critical_step_factor == 0
    falling, start = function_problem(lambda x: x.exp().sum(), [0.0])
    found = measured(falling, start, gd(0.5))
    assert isnan(found.critical_step_factor)
    assert isnan(found.critical_sharpness)


def test_beyond_most_there_is_none_and_just_within_there_is() -> None:
    objective, theta = function_problem(quadratic(curvatures=(1.0,)), [1.0])  # c = 1/η
    assert isnan(measured(objective, theta, gd(0.001), most=999).critical_step_factor)
    assert measured(objective, theta, gd(0.001), most=1001).critical_step_factor == pytest.approx(1000, rel=1e-3)


def test_where_the_gradient_is_0_or_rounding_hides_the_step_there_is_none() -> None:
    assert isnan(measured(*interpolated(), gd(0.1)).critical_step_factor)
    objective, theta = function_problem(lambda point: 1e9 + point.square().sum(), [1e-4])
    assert isnan(measured(objective, theta, gd(0.25)).critical_step_factor)
    away, far = function_problem(lambda point: (point - 1e8).square().sum() / 8, [1e8 + 1])
    assert isnan(measured(away, far, gd(1e-10)).critical_step_factor)


def test_float32_gives_the_same_to_its_tolerance() -> None:
    double, single = small_problem(), small_problem(dtype=torch.float32)
    exact = measured(*double, gd(0.3), rtol=1e-8)
    found = measured(single[0], double[1].float(), gd(0.3))
    assert found.critical_step_factor == pytest.approx(exact.critical_step_factor, rel=2e-3)

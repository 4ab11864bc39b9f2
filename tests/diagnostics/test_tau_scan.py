"""L along the gradient step: closed forms, full gradients, and the interpolation's promise."""

from __future__ import annotations

from functools import partial
from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Position, Stop
from eosrepro.diagnostics import tau_scan as module
from eosrepro.diagnostics.tau_scan import TauScan, tau_scan
from eosrepro.optimizers.gd import gd
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.tanh_product import tanh_product
from tests.conftest import interpolated, small_problem


def scan(
    objective: Objective, theta: Tensor, step_size: float, *, n_taus: int = 100, tolerance: float = 0.0
) -> TauScan:
    (found,) = tau_scan(
        objective, [Position(7, theta, None)], optimizer=gd(step_size=step_size), n_taus=n_taus, tolerance=tolerance
    )
    assert found.step == 7
    return found


def by_definition(objective: Objective, theta: Tensor, step_size: float, tau: float) -> float:
    """L(θ; ητ∇f) = ⟨v, ∇f(θ) − ∇f(θ − v)⟩ / ‖v‖², v = ητ∇f (Definition 2), from two full gradients."""
    grad = objective.value_and_grad(theta).grad
    v = step_size * tau * grad
    return float(v @ (grad - objective.value_and_grad(theta - v).grad) / (v @ v))


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_on_a_quadratic_l_is_the_curvature_along_the_gradient_whatever_tau(tolerance: float) -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.1])
    grad = np.array([4.0, 0.2])
    curvature = float(grad @ np.diag([40.0, 2.0]) @ grad / (grad @ grad))
    found = scan(objective, theta, 0.05, tolerance=tolerance)
    assert found.directional_smoothness_mean == pytest.approx(curvature, rel=1e-10)
    assert found.directional_smoothness_min == pytest.approx(found.directional_smoothness_max, rel=1e-8)
    assert found.directional_smoothness_std < 1e-8 * curvature
    # ∫ τ L dτ = L/2, and RP = −1 + ηL/2 exactly.
    assert found.relative_progress_of_step == pytest.approx(-1 + 0.05 * curvature / 2, abs=1e-10)
    assert found.relative_progress_by_integral == pytest.approx(
        -1 + 0.05 * curvature / 2, abs=2e-4 if not tolerance else 1e-9
    )


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
@pytest.mark.parametrize("chunk_size", [40, 13])
def test_statistics_are_those_of_l_from_full_gradients(activation: str, chunk_size: int) -> None:
    objective, theta = small_problem(activation, chunk_size=chunk_size)
    values = np.array([by_definition(objective, theta, 0.8, tau) for tau in np.arange(1, 21) / 20])
    found = scan(objective, theta, 0.8, n_taus=20)
    assert found.slopes == 20
    assert found.directional_smoothness_mean == pytest.approx(values.mean(), rel=1e-10)
    assert found.directional_smoothness_std == pytest.approx(values.std(), rel=1e-8)
    assert (found.directional_smoothness_min, found.directional_smoothness_max) == pytest.approx(
        (values.min(), values.max()), rel=1e-10
    )


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "elu"])
def test_interpolation_keeps_its_tolerance_with_fewer_slopes(activation: str, tolerance: float) -> None:
    objective, theta = small_problem(activation)
    every, few = scan(objective, theta, 0.8), scan(objective, theta, 0.8, tolerance=tolerance)
    for statistic in ("mean", "std", "min", "max"):
        name = f"directional_smoothness_{statistic}"
        assert abs(getattr(few, name) - getattr(every, name)) <= 2 * tolerance * 2 / 0.8
    assert activation == "elu" or few.slopes <= 33  # elu has a kink in its second derivative


def test_where_l_is_near_0_float32_still_needs_few_slopes() -> None:
    """A flat bowl: L is 1e-3 of 2/η, and its float32 noise at small τ a large share of L, but not of 2/η."""
    objective, theta = small_problem(dtype=torch.float32)
    assert scan(objective, theta, 1e-3, tolerance=1e-3).slopes == 9


def test_smooth_activations_need_few_slopes_and_kinks_need_all() -> None:
    smooth, kinked = (small_problem(activation) for activation in ("tanh", "relu"))
    assert scan(*smooth, 0.3, tolerance=1e-4).slopes <= 17
    found, every = scan(*kinked, 0.8, tolerance=1e-6), scan(*kinked, 0.8)
    assert found.slopes > 100
    assert found.directional_smoothness_std == every.directional_smoothness_std


@given(st.integers(0, 50), st.floats(0.05, 1.5))
@settings(max_examples=25, deadline=None)
def test_relative_progress_is_the_integral_of_l(seed: int, step_size: float) -> None:
    """Eq. 4.2 of Ahn et al. 2022, exactly: RP = −1 + η ∫₀¹ τ L(θ; ητ∇f) dτ."""
    objective, theta = small_problem(seed=seed)
    found = scan(objective, theta, step_size, tolerance=1e-9)
    # Where no polynomial is good enough, the trapezoids of 100 τ leave an error of η(τL)''/12 · 1e-4.
    error = 1e-9 if found.slopes <= max(module.NODES) else 1e-4
    assert found.relative_progress_by_integral == pytest.approx(found.relative_progress_of_step, abs=error)


def test_the_integral_agrees_with_an_independent_quadrature() -> None:
    objective, theta = function_problem(tanh_product(), [13.0, 0.3])
    found = scan(objective, theta, 2 / 150, tolerance=1e-8)
    integral, _ = quad(lambda tau: tau * by_definition(objective, theta, 2 / 150, tau), 1e-6, 1)
    assert found.relative_progress_by_integral == pytest.approx(-1 + 2 / 150 * integral, abs=1e-6)


def test_along_a_run_the_last_tau_is_the_recorded_smoothness() -> None:
    objective, theta = small_problem()
    path: list[Position] = []
    rows = list(minimise(objective, theta, gd(step_size=0.4), stop=Stop(20), on_iterate=path.append))
    found = list(tau_scan(objective, path, optimizer=gd(step_size=0.4), n_taus=2, tolerance=0))
    assert [each.step for each in found] == list(range(21))
    for each, row in zip(found[:-1], rows[:-1], strict=True):
        assert each.relative_progress_of_step == pytest.approx(row.relative_progress, rel=1e-9)
        # two τ: 1/2 and 1
        low, high = sorted([by_definition(objective, path[each.step].theta, 0.4, 0.5), row.directional_smoothness])
        assert each.directional_smoothness_min == pytest.approx(low, rel=1e-8)
        assert each.directional_smoothness_max == pytest.approx(high, rel=1e-8)


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e-6]))
@settings(max_examples=50, deadline=None)
def test_an_interpolant_is_within_its_tolerance_of_a_smooth_function(seed: int, error: float) -> None:
    generator = np.random.default_rng(seed)
    frequency, phase, shift = generator.uniform(0, 4), generator.uniform(0, 6), generator.uniform(-2, 2)
    f = partial(lambda x: shift + np.sin(frequency * x + phase))
    polynomial = module._interpolant(f, low=0.01, error=error)
    assert polynomial is not None
    grid = np.linspace(0.01, 1, 500)
    assert np.abs(polynomial(grid) - f(grid)).max() <= 2 * error


def test_no_interpolant_is_returned_that_was_not_foretold() -> None:
    assert module._interpolant(lambda x: np.sign(x - 0.377), low=0.01, error=1e-3) is None


def test_points_are_nested_and_hold_both_ends() -> None:
    for few, many in zip(module.NODES, module.NODES[1:], strict=False):
        np.testing.assert_allclose(module._points(many, 0.01)[::2], module._points(few, 0.01), rtol=1e-14)
    assert module._points(5, 0.01)[[0, -1]].tolist() == pytest.approx([1.0, 0.01])


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_where_the_gradient_is_exactly_0_nothing_is_measured(tolerance: float) -> None:
    objective, theta = interpolated()
    found = scan(objective, theta, 20_000, tolerance=tolerance)
    assert found.slopes == 0
    assert all(isnan(value) for name, value in vars(found).items() if name not in ("step", "slopes"))
    here, there = tau_scan(
        small_problem()[0],
        [Position(0, small_problem()[1], None)] * 2,
        optimizer=gd(step_size=0.8),
        n_taus=2,
        tolerance=tolerance,
    )  # and what comes after is
    assert here == there


def test_progress_below_the_rounding_of_the_losses_is_not_defined() -> None:
    objective, theta = small_problem(dtype=torch.float32)
    tiny, small = (scan(objective, theta, step_size) for step_size in (1e-8, 1e-3))
    assert isnan(tiny.relative_progress_of_step)
    assert small.relative_progress_of_step == pytest.approx(-1, abs=0.05)


def test_a_step_that_rounding_takes_from_theta_has_no_smoothness() -> None:
    objective, theta = function_problem(lambda point: (point - 1e8).square().sum() / 8, [1e8 + 1])
    assert isnan(scan(objective, theta, 1e-10).directional_smoothness_mean)
    assert scan(objective, theta, 1 + 1e-9).directional_smoothness_mean == pytest.approx(0.25)


def test_float32_gives_the_same_l_to_its_precision() -> None:
    double, single = small_problem(), small_problem(dtype=torch.float32)
    exact, found = scan(*double, 0.8, tolerance=1e-6), scan(single[0], double[1].float(), 0.8, tolerance=1e-4)
    assert found.directional_smoothness_mean == pytest.approx(exact.directional_smoothness_mean, rel=1e-4)

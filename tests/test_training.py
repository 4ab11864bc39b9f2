"""The loop against definitions evaluated afresh, closed forms and the paper's examples on functions of two numbers."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import atanh, cosh, inf, isnan, nan, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Dataset, Function, Geometry, Row, Stop
from eosrepro.data._preprocessing import preprocess
from eosrepro.data.digits import digits
from eosrepro.errors import ConfigError, DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.problems.product import product
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.tanh_product import tanh_product
from eosrepro.problems.tanh_quadratic import tanh_quadratic
from tests.conftest import small_problem


def descend(
    objective: Objective, theta: Tensor, step_size: Fraction | float, stop: Stop
) -> tuple[list[Row], np.ndarray]:
    """Rows of a GD run and its iterates, (steps + 1, P)."""
    path: list[Tensor] = []
    optimizer = gd(step_size=float(step_size))
    rows = list(minimise(objective, theta, optimizer, stop=stop, on_iterate=lambda at: path.append(at.theta)))
    return rows, torch.stack(path).numpy()


def descended(f: Function, start: list[float], step_size: Fraction, steps: int) -> tuple[list[Row], np.ndarray]:
    return descend(*function_problem(f, start), step_size, Stop(steps))


# The paper's examples on functions of two numbers


def test_example_1_above_the_threshold_zigzags_out_of_the_frame_at_step_32_or_33() -> None:
    _, path = descended(quadratic(), [0.1, 0.1], Fraction(2, 39), 100)

    assert int(np.argmax(np.abs(path[:, 0]) > 0.5)) in (32, 33)


def test_example_1_at_the_threshold_oscillates_forever_between_plus_and_minus_one_tenth() -> None:
    _, path = descended(quadratic(), [0.1, 0.1], Fraction(2, 40), 100)

    np.testing.assert_allclose(path[:, 0], [0.1 * (-1) ** t for t in range(101)], rtol=1e-12)


def test_example_1_below_the_threshold_converges() -> None:
    _, path = descended(quadratic(), [0.1, 0.1], Fraction(2, 41), 100)

    np.testing.assert_allclose(np.abs(path[:, 0]), 0.1 * (39 / 41) ** np.arange(101), rtol=1e-9)


def test_example_2_the_quadratic_leaves_the_frame_at_step_79() -> None:
    _, path = descended(quadratic(), [0.01, 0.1], Fraction(2, 39), 100)

    assert int(np.argmax(np.abs(path[:, 0]) > 0.5)) == 79


def test_example_2_under_a_tanh_settles_in_the_two_cycle_of_the_closed_form() -> None:
    """|θ₁| = 0.0893, where sech²(20θ₁²) = 39/40."""
    _, path = descended(tanh_quadratic(), [0.01, 0.1], Fraction(2, 39), 400)
    closed_form = sqrt(atanh(sqrt(1 / 40)) / 20)

    assert closed_form == pytest.approx(0.0893, abs=5e-5)
    assert cosh(20 * closed_form**2) ** -2 == pytest.approx(39 / 40)
    np.testing.assert_allclose(np.abs(path[-10:, 0]), closed_form, rtol=1e-3)
    assert (np.sign(path[-10:-1, 0]) == -np.sign(path[-9:, 0])).all()


def test_example_3_the_linear_valley_explodes_within_about_six_steps() -> None:
    rows, path = descended(product(), [13.0, 0.01], Fraction(2, 150), 400)

    assert outcome(rows[-1], Stop(400)).reason == "diverged"
    assert int(np.argmax(np.abs(path[:, 1]) > 13)) == 6


def test_example_3_under_a_tanh_walks_to_where_the_sharpness_is_just_below_the_threshold() -> None:
    rows, path = descended(tanh_product(), [13.0, 0.01], Fraction(2, 150), 2000)

    assert outcome(rows[-1], Stop(2000)).reason == "max_steps"
    assert abs(path[-1, 0]) == pytest.approx(8.6165, abs=5e-4)
    assert 2 * path[-1, 0] ** 2 == pytest.approx(148.5, abs=0.05)


def test_example_4_directional_smoothness_of_a_quadratic_at_the_threshold_tends_to_the_threshold() -> None:
    rows, _ = descended(quadratic(), [0.1, 0.1], Fraction(2, 40), 100)

    assert rows[-2].directional_smoothness == pytest.approx(40, rel=1e-6)


# Definitions and relations


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_recorded_measures_are_the_definitions_evaluated_afresh_in_float64(activation: str) -> None:
    """A float32 run; Definitions 1 and 2 at its iterates in float64. η is large enough for RP to be of order one."""
    single, theta = small_problem(activation, dtype=torch.float32)
    double, _ = small_problem(activation)
    step_size = 0.3
    rows, path = descend(single, theta, step_size, Stop(30))
    for row, iterate in zip(rows[:-1], path, strict=False):
        point = torch.from_numpy(iterate).double()
        here = double.value_and_grad(point)
        following = double.value_and_grad(point - step_size * here.grad)
        v = step_size * here.grad
        progress = (following.loss - here.loss) / (step_size * (here.grad @ here.grad))
        smoothness = v @ (here.grad - following.grad) / (v @ v)

        assert row.loss == pytest.approx(here.loss, rel=1e-6)
        assert row.grad_norm == pytest.approx(here.grad.norm().item(), rel=1e-5)
        assert row.relative_progress == pytest.approx(progress.item(), abs=2e-5)
        assert row.directional_smoothness == pytest.approx(smoothness.item(), rel=1e-4, abs=1e-4)


def test_the_exact_relation_4_2_holds_on_a_function() -> None:
    """RP = −1 + η ∫₀¹ τ L(θ; ητ∇f) dτ, the integral by scipy, L by Definition 2."""
    objective, theta = function_problem(tanh_product(), [9.0, 0.05])
    step_size = 2 / 150
    row = next(minimise(objective, theta, gd(step_size=step_size), stop=Stop(1)))
    grad = objective.value_and_grad(theta).grad

    def integrand(tau: float) -> float:
        v = step_size * tau * grad
        return tau * ((v @ (grad - objective.value_and_grad(theta - v).grad)) / (v @ v)).item() if tau else 0.0

    integral = quad(integrand, 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
    assert row.relative_progress == pytest.approx(-1 + step_size * integral, abs=1e-8)


@settings(deadline=None, max_examples=50)
@given(
    curvatures=st.lists(st.floats(0.1, 50), min_size=1, max_size=6),
    step_size=st.floats(1e-3, 0.1),
    seed=st.integers(0, 2**16),
)
def test_on_every_quadratic_relation_4_3_is_exact(curvatures: list[float], step_size: float, seed: int) -> None:
    """RP = −1 + ηL/2, because the curvature along a segment is constant."""
    start = np.random.default_rng(seed).uniform(0.5, 1.0, len(curvatures)).tolist()
    objective, theta = function_problem(quadratic(curvatures=tuple(curvatures)), start)
    row = next(minimise(objective, theta, gd(step_size=step_size), stop=Stop(1)))

    assert row.relative_progress == pytest.approx(-1 + step_size * row.directional_smoothness / 2, abs=1e-9)
    assert row.directional_smoothness <= 2 * max(curvatures) * (1 + 1e-9)


# How runs end


def test_a_run_stops_at_the_accuracy_asked_for() -> None:
    objective, theta = small_problem()
    stop = Stop(500, accuracy=0.8)
    rows, _ = descend(objective, theta, 0.3, stop)
    ended = outcome(rows[-1], stop)

    assert ended.reason == "accuracy"
    assert rows[-2].accuracy < 0.8 <= rows[-1].accuracy == ended.accuracy
    assert ended.steps == rows[-1].step < 500


def test_the_last_row_of_a_run_takes_no_step() -> None:
    objective, theta = small_problem()
    rows, path = descend(objective, theta, 0.1, Stop(5))

    assert [row.step for row in rows] == list(range(6))
    assert len(path) == 6
    assert isnan(rows[-1].relative_progress)
    assert isnan(rows[-1].update_sq_norm)
    assert not isnan(rows[-2].relative_progress)
    assert outcome(rows[-1], Stop(5)).reason == "max_steps"


def test_a_diverging_run_is_recorded_up_to_its_last_finite_iterate() -> None:
    rows, path = descended(quadratic(), [0.1, 0.1], Fraction(2, 10), 10_000)

    assert outcome(rows[-1], Stop(10_000)).reason == "diverged"
    assert np.isfinite([row.loss for row in rows]).all()
    assert np.isfinite(path).all()
    assert len(path) == len(rows) < 10_000


def test_a_loss_above_the_bound_counts_as_divergence() -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.1])
    stop = Stop(100, loss_above=10.0)
    rows, _ = descend(objective, theta, Fraction(2, 30), stop)

    assert rows[-2].loss <= 10 < rows[-1].loss
    assert outcome(rows[-1], stop).reason == "diverged"


def test_a_loss_that_is_nan_at_the_start_is_an_error_that_names_the_data() -> None:
    objective, theta = function_problem(quadratic(), [nan, 0.1])

    with pytest.raises(DataError, match=r"at initialisation is nan.*training data"):
        next(minimise(objective, theta, gd(step_size=0.1), stop=Stop(1)))


def test_a_first_loss_above_the_bound_is_an_error_and_not_a_run_that_diverged() -> None:
    objective, theta = small_problem()
    with pytest.raises(ConfigError, match=r"initialisation is 1\..*above loss_above = 0\.1"):
        next(minimise(objective, theta, gd(step_size=0.1), stop=Stop(5, loss_above=0.1)))


def test_a_run_that_goes_on_where_its_loss_has_passed_the_bound_ends_there() -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.1])
    stop, path = Stop(100, loss_above=10.0), []
    rows = list(minimise(objective, theta, gd(step_size=2 / 30), stop=stop, on_iterate=path.append))
    (last,) = minimise(objective, path[-1], gd(step_size=2 / 30), stop=stop)
    assert (last.step, last.loss) == (rows[-1].step, rows[-1].loss)
    assert outcome(last, stop).reason == "diverged"


def test_at_a_bound_of_just_the_first_loss_a_run_begins() -> None:
    objective, theta = small_problem()
    rows = list(minimise(objective, theta, gd(step_size=0.1), stop=Stop(2, loss_above=objective.loss(theta))))
    assert len(rows) == 3


# Where rounding leaves nothing to measure


def digits_problem(n_examples: int, dtype: torch.dtype) -> tuple[Objective, Tensor]:
    data = preprocess(digits(n_examples=n_examples, seed=0), scale="unit", standardise="none", statistics="subset")
    build = partial(mlp, width=4, depth=1)
    return network_problem(build, cross_entropy(), data, seed=0, dtype=dtype, device="cpu", chunk_size=5000)


def test_progress_below_the_rounding_of_the_losses_is_not_defined() -> None:
    """η = 1e-8: a step promises 1e-9 of a loss of 2.4, and float32 resolves 3e-7 of it. In float64 RP is −1."""
    for dtype, check in ((torch.float32, isnan), (torch.float64, lambda value: abs(value + 1) < 1e-5)):
        rows = list(minimise(*digits_problem(60, dtype), gd(step_size=1e-8), stop=Stop(20)))
        assert all(check(row.relative_progress) for row in rows[:-1])


def test_progress_of_the_smallest_steps_that_are_defined_is_still_nearer_to_minus_1_than_to_0() -> None:
    step_size, found = 1e-3, []
    while not found or not isnan(found[-1]):
        rows = list(minimise(*digits_problem(60, torch.float32), gd(step_size=step_size), stop=Stop(10)))
        found += [row.relative_progress for row in rows[:-1]]
        step_size /= 4
    defined = [value for value in found if not isnan(value)]
    assert len(defined) >= 20
    assert max(defined) < -0.5
    assert step_size > 1e-8


def test_a_step_that_rounding_takes_from_theta_has_neither_progress_nor_smoothness() -> None:
    """At θ = 1e8 + 1 numbers are 1.5e-8 apart. The loss is exact, and did not change since θ did not."""
    objective, theta = function_problem(lambda point: (point - 1e8).square().sum(), [1e8 + 1])
    lost, kept = (next(minimise(objective, theta, gd(step_size=eta), stop=Stop(1))) for eta in (1e-10, 0.25))
    assert isnan(lost.relative_progress)
    assert isnan(lost.directional_smoothness)
    assert (kept.relative_progress, kept.directional_smoothness) == (-0.75, 2.0)


def test_of_a_large_loss_small_progress_is_not_defined_and_its_smoothness_is() -> None:
    objective, theta = function_problem(lambda point: 1e9 + point.square().sum(), [1e-4])
    row = next(minimise(objective, theta, gd(step_size=0.25), stop=Stop(1)))
    assert isnan(row.relative_progress)
    assert row.directional_smoothness == pytest.approx(2)


def test_a_cross_entropy_of_1e_15_is_too_coarse_for_progress() -> None:
    """It is the difference of two numbers of order 1 in float64; its gradient is not."""
    data = Dataset(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), torch.tensor([0, 1]), 2, "two")
    build = partial(mlp, width=4, depth=1)
    objective, theta = network_problem(
        build, cross_entropy(), data, seed=0, dtype=torch.float64, device="cpu", chunk_size=2
    )
    rows = list(minimise(objective, theta, gd(step_size=20_000), stop=Stop(5)))
    assert 0 < rows[1].loss < 1e-14
    assert rows[1].update_dot_grad > 0
    assert [isnan(row.relative_progress) for row in rows[:-1]] == [False, True, True, True, True]


def test_a_loss_that_explodes_is_a_progress_however_small_the_promise() -> None:
    objective, theta = function_problem(lambda point: point.pow(4).sum(), [1.0])
    row = next(minimise(objective, theta, gd(step_size=1e6), stop=Stop(1)))
    assert row.relative_progress == pytest.approx((1 - 4e6) ** 4 / 16e6)


def test_a_step_onto_a_minimum_of_exactly_0_has_its_progress() -> None:
    objective, theta = function_problem(lambda point: point.square().sum(), [0.25])
    row = next(minimise(objective, theta, gd(step_size=0.5), stop=Stop(1)))
    assert (row.relative_progress, row.directional_smoothness) == (-0.5, 2.0)


def test_without_a_gradient_nothing_is_measured() -> None:
    objective, theta = function_problem(quadratic(), [0.0, 0.0])
    row = next(minimise(objective, theta, gd(step_size=0.1), stop=Stop(1)))
    assert row.loss == row.grad_norm == 0
    assert isnan(row.relative_progress)
    assert isnan(row.directional_smoothness)


def test_the_same_run_twice_is_bitwise_the_same() -> None:
    objective, theta = small_problem(dtype=torch.float32)
    first, _ = descend(objective, theta, 0.5, Stop(50))
    second, _ = descend(objective, theta, 0.5, Stop(50))

    assert first[:-1] == second[:-1]


@pytest.mark.parametrize("threshold", [nan, 0.0, -2.0, inf])
def test_a_threshold_that_nothing_can_be_divided_by_is_refused(threshold: float) -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.1])
    wrong = gd(step_size=0.01)._replace(geometry=lambda _at, _state: Geometry(threshold))
    with pytest.raises(ConfigError, match="stability threshold is"):
        list(minimise(objective, theta, wrong, stop=Stop(3)))

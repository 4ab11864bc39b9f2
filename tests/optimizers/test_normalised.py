"""The toys of Arora, Li, Panigrahi (2022): where the methods go, and the law of two steps that they end in."""

from __future__ import annotations

from math import hypot

import numpy as np
import pytest
import torch

from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Function, Optimizer, Row, Stop
from eosrepro.observations.two_step import two_step
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.normalised_gd import normalised_gd
from eosrepro.optimizers.sqrt_loss_gd import sqrt_loss_gd
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.valley import valley
from tests.conftest import dense_hessian, small_problem

LAW = ("sharpness_by_sqrt_loss", "sharpness_by_grad_norm")


def walk(f: Function, start: list[float], optimizer: Optimizer, steps: int) -> tuple[np.ndarray, list[Row]]:
    """The iterates, (steps + 1, P), and what is recorded."""
    objective, theta = function_problem(f, start)
    kept: list[np.ndarray] = []
    rows = minimise(
        objective,
        theta,
        optimizer,
        stop=Stop(steps),
        on_iterate=lambda at: kept.append(at.theta.numpy()),
        observe=[two_step],
    )
    recorded = list(rows)
    return np.array(kept), recorded


def by_hand(start: tuple[float, float], step_size: float, steps: int, *, root: bool) -> np.ndarray:
    """The same down f = (1 + x²)y², in plain numbers: −∇√f = −(x|y|, (1 + x²) sign y)/√(1 + x²), or −∇f/‖∇f‖."""
    x, y = start
    found = [(x, y)]
    for _ in range(steps):
        slope = (2 * x * y * y, 2 * (1 + x * x) * y)
        length = 2 * abs(y) * hypot(1, x) if root else hypot(*slope)
        x, y = x - step_size * slope[0] / length, y - step_size * slope[1] / length
        found.append((x, y))
    return np.array(found)


def test_gd_on_the_root_goes_down_the_valley_as_in_figure_1() -> None:
    thetas, _ = walk(valley(), [14.7, 3.0], sqrt_loss_gd(0.5), 200)
    wanted = {1: (13.203, -4.367), 5: (7.430, -2.471), 11: (3.142, -1.082)}
    for step, there in wanted.items():
        assert thetas[step] == pytest.approx(there, abs=6e-4)
    np.testing.assert_allclose(thetas[:30], by_hand((14.7, 3.0), 0.5, 29, root=True), rtol=1e-9)
    assert abs(thetas[-2:, 0]).max() < 1e-6  # the flattest place of the valley
    assert abs(thetas[-2:, 1]).min() == pytest.approx(0.18875, abs=5e-6)


def test_normalised_gd_goes_down_the_valley_as_in_figure_1() -> None:
    thetas, _ = walk(valley(), [14.7, -3.0], normalised_gd(5.0), 10)
    wanted = {1: (13.705, 1.900), 5: (9.795, 1.689), 10: (2.816, -3.891)}
    for step, there in wanted.items():
        assert thetas[step] == pytest.approx(there, abs=6e-4)
    np.testing.assert_allclose(thetas, by_hand((14.7, -3.0), 5.0, 10, root=False), rtol=1e-9)


def test_two_losses_of_gd_on_the_root_make_the_sharpness() -> None:
    """√f_t + √f_{t+1} = ηλ₁/2 once it alternates across the valley."""
    step_size = 0.5
    thetas, rows = walk(valley(), [14.7, 3.0], sqrt_loss_gd(step_size), 200)
    objective, _ = function_problem(valley(), [0.0, 0.0])
    for row, following, theta in zip(rows[100:], rows[101:], thetas[100:], strict=False):
        sharpness = float(torch.linalg.eigvalsh(dense_hessian(objective, torch.as_tensor(theta)))[-1])
        assert sharpness == pytest.approx(2, abs=1e-6)
        assert row.loss**0.5 + following.loss**0.5 == pytest.approx(step_size * sharpness / 2, abs=1e-5)
        assert row.observed["sharpness_by_sqrt_loss"] == pytest.approx(sharpness, abs=1e-5)


def test_normalised_gd_turns_to_the_top_eigenvector_of_a_quadratic() -> None:
    """Figure 2: with x̃ = ∇f/η, |⟨v₁, x̃⟩| grows at each step from ‖x̃‖ < λ₁/2, and 1/S_t + 1/S_{t+1} tends to 1."""
    thetas, rows = walk(quadratic(curvatures=(0.5, 0.2)), [5e-5, 0.0025], normalised_gd(1.0), 60)
    sizes = np.array([row.grad_norm for row in rows])
    grows = np.diff(abs(thetas[:, 0])) > 0
    assert (grows == (sizes[:-1] < 0.5)).all()
    assert (np.diff(grows[2:].astype(int)) != 0).all()  # then in and out of the half by turns
    assert abs(thetas[-1, 1] / thetas[-1, 0]) < 1e-6
    stableness = 1 / sizes
    assert 1 / stableness[-2] + 1 / stableness[-1] == pytest.approx(1, abs=1e-10)
    assert rows[-2].observed["sharpness_by_grad_norm"] == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(("optimizer", "own"), [(sqrt_loss_gd(0.02), LAW[0]), (normalised_gd(0.02), LAW[1])])
def test_what_two_steps_say_is_the_preconditioners_of_both_over_the_step_size(optimizer: Optimizer, own: str) -> None:
    """(P_t + P_{t+1})/η, by the geometry of each method: the law has one form for both."""
    objective, theta = small_problem()
    rows = list(minimise(objective, theta, optimizer, stop=Stop(5), observe=[two_step]))
    weights = [2 * row.loss**0.5 if own == LAW[0] else row.grad_norm for row in rows]
    for row, here, there in zip(rows, weights, weights[1:], strict=False):
        assert row.observed[own] == pytest.approx((here + there) / 0.02, rel=1e-9)


def test_at_a_minimum_two_steps_say_nothing() -> None:
    _, rows = walk(quadratic(), [0.0, 0.0], gd(0.01), 2)
    assert all(np.isnan(rows[0].observed[name]) for name in LAW)

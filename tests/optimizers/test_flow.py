"""Gradient flow against closed forms."""

from __future__ import annotations

import pytest
import torch

from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Position, Stop
from eosrepro.optimizers.gradient_flow import gradient_flow
from tests.conftest import small_problem


@pytest.mark.parametrize("step_size", [0.01, 0.3])
def test_on_a_quadratic_it_decays_exponentially(step_size: float) -> None:
    """At 0.3 gradient descent would diverge, as 0.3 · 20 > 2; the flow takes shorter steps."""
    curvatures = torch.tensor([20.0, 1.0], dtype=torch.float64)
    objective, theta = function_problem(lambda theta: (curvatures * theta.square()).sum() / 2, [1.0, 1.0])
    path: list[Position] = []
    list(minimise(objective, theta, gradient_flow(step_size, alpha=0.1), stop=Stop(4), on_iterate=path.append))
    for at in path:
        exact = torch.exp(-curvatures * at.step * step_size)
        torch.testing.assert_close(at.theta, exact, rtol=0, atol=1e-6)


def test_its_error_is_of_the_fourth_order() -> None:
    objective, theta = small_problem("tanh")
    ends = []
    for alpha in (1e-3, 0.5, 0.25):
        path: list[Position] = []
        list(minimise(objective, theta, gradient_flow(2.0, alpha=alpha), stop=Stop(1), on_iterate=path.append))
        ends.append(path[-1].theta)
    exact, wide, close = ends
    assert float((wide - exact).norm() / (close - exact).norm()) > 8  # 16, but for whole numbers of steps


def test_it_has_no_threshold_and_its_loss_falls_at_any_step_size() -> None:
    objective, theta = small_problem()
    rows = list(minimise(objective, theta, gradient_flow(50.0), stop=Stop(10)))
    assert all(row.stability_threshold != row.stability_threshold for row in rows)
    losses = [row.loss for row in rows]
    assert losses == sorted(losses, reverse=True)

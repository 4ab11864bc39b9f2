"""The central flow where it is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Position, Stop
from eosrepro.diagnostics.predicted_loss import predicted_loss
from eosrepro.errors import ConfigError
from eosrepro.optimizers.central_flow import central_flow
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.gradient_flow import gradient_flow
from tests.conftest import small_problem

STEP_SIZE = 0.1


def valley(theta: Tensor) -> Tensor:
    """−3x + ½x y²: on its floor y = 0 the sharpness is x, and gradient flow raises it by 3 in a time of 1."""
    x, y = theta.unbind(-1)
    return -3 * x + x * y.square() / 2


def round_valley(theta: Tensor) -> Tensor:
    """The same with two directions as sharp as each other."""
    x, y, z = theta.unbind(-1)
    return -3 * x + x * (y.square() + z.square()) / 2


def two_valleys(theta: Tensor) -> Tensor:
    """Two of them side by side, of slopes 3 and 1."""
    x, y, u, v = theta.unbind(-1)
    return -3 * x + x * y.square() / 2 - u + u * v.square() / 2


def follow(objective: Objective, start: Tensor, steps: int) -> list[Position]:
    kept: list[Position] = []
    list(minimise(objective, start, central_flow(STEP_SIZE), stop=Stop(steps), on_iterate=kept.append))
    return kept


@pytest.mark.parametrize(
    ("f", "start", "sharp", "variance", "at_edge"),
    [
        (valley, [19.0, 0.0], [0], 6, 1),
        (round_valley, [19.0, 0.0, 0.0], [0], 6, 2),
        (two_valleys, [19.0, 0.0, 19.7, 0.0], [0, 2], 8, 2),
    ],
)
def test_it_stays_where_the_sharpness_is_at_the_edge(
    f: Callable[[Tensor], Tensor], start: list[float], sharp: list[int], variance: float, at_edge: int
) -> None:
    """In a valley of slope a, d(sharpness)/dt = a − ½Σ: Σ = 2a holds it at 2/η. The mean loss is −ax + ½x·2a = 0."""
    objective, theta = function_problem(f, start)
    path = follow(objective, theta, 6)
    for i in sharp:
        assert path[-1].theta[i].item() == pytest.approx(2 / STEP_SIZE, rel=1e-7)
        assert all(here.theta[i] <= 2 / STEP_SIZE * (1 + 1e-7) for here in path)
    found = list(predicted_loss(objective, path[-1:], optimizer=central_flow(STEP_SIZE)))
    assert found[0].step == 6
    assert found[0].oscillation_variance == pytest.approx(variance, rel=1e-6)
    assert found[0].predicted_loss == pytest.approx(0, abs=1e-5)
    assert found[0].at_edge == at_edge


def test_gradient_descent_oscillates_as_it_says() -> None:
    """In the valley it alternates between y = ±√Σ where x = 2/η, and the loss is the one predicted."""
    objective, theta = function_problem(valley, [2 / STEP_SIZE, 6**0.5])
    kept: list[Position] = []
    rows = list(minimise(objective, theta, gd(STEP_SIZE), stop=Stop(2), on_iterate=kept.append))
    turned = theta * torch.tensor([1.0, -1.0])
    for here, expected in zip(kept, (theta, turned, theta), strict=True):
        torch.testing.assert_close(here.theta, expected, rtol=1e-12, atol=1e-12)
    assert [row.loss for row in rows] == pytest.approx([0, 0, 0], abs=1e-12)


def test_below_the_edge_it_is_gradient_flow() -> None:
    objective, theta = small_problem()

    def end(optimizer: object) -> Tensor:
        kept: list[Position] = []
        list(minimise(objective, theta, optimizer, stop=Stop(8), on_iterate=kept.append))  # type: ignore[arg-type]
        return kept[-1].theta

    exact = end(gradient_flow(0.02))
    errors = [float((end(central_flow(0.02, substeps=count)) - exact).norm()) for count in (2, 4, 8)]
    assert errors[0] < 0.02 * float((exact - theta).norm())
    for coarse, fine in pairwise(errors):
        assert fine / coarse == pytest.approx(0.5, rel=0.1)  # Euler's method


def test_where_nothing_holds_the_edge_it_says_so() -> None:
    objective, theta = function_problem(lambda theta: 15 * theta.square().sum(-1), [1.0, 1.0])
    with pytest.raises(ConfigError, match="nothing holds gradient descent at its edge"):
        follow(objective, theta, 1)


def test_a_prediction_is_of_the_central_flow_alone() -> None:
    objective, theta = function_problem(valley, [19.0, 0.0])
    with pytest.raises(ConfigError, match="central_flow"):
        list(predicted_loss(objective, [Position(0, theta, None)], optimizer=gd(STEP_SIZE)))

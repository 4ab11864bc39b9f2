"""The optimizer on the Taylor model: dense Hessians, closed forms on quadratics, and both sides of the edge."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Optimizer, Position, Stop
from eosrepro.diagnostics.taylor_model import TaylorModel, TaylorRow, taylor_model
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from eosrepro.optimizers.sqrt_loss_gd import sqrt_loss_gd
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.tanh_product import tanh_product
from tests.conftest import dense_hessian, small_problem


def measured(objective: Objective, theta: Tensor, optimizer: Optimizer, steps: int) -> TaylorRow:
    at = Position(4, theta, optimizer.init(theta))
    (found,) = taylor_model(objective, [at], optimizer=optimizer, steps=steps)
    assert found.step == 4
    return found


def test_the_model_is_the_quadratic_of_the_dense_hessian() -> None:
    objective, theta = small_problem(chunk_size=13)
    away = torch.randn(theta.shape, generator=torch.Generator().manual_seed(5), dtype=theta.dtype)
    for part in (objective, objective.batch(torch.tensor([3, 1, 4]))):
        here, hessian = part.value_and_grad(theta), dense_hessian(part, theta)
        model = TaylorModel(objective, theta)
        model = model if part is objective else model.batch(torch.tensor([3, 1, 4]))
        found = model.value_and_grad(theta + away)
        assert found.loss == pytest.approx(float(here.loss + here.grad @ away + away @ hessian @ away / 2), rel=1e-10)
        torch.testing.assert_close(found.grad, here.grad + hessian @ away, rtol=1e-9, atol=1e-12)
        product = model.hvp(theta + away)
        torch.testing.assert_close(product(away), hessian @ away, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(product.grad, found.grad, rtol=0, atol=0)


def test_gradient_descent_on_the_model_is_in_closed_form() -> None:
    """θ_t − θ₀ = −Σ_{s<t} (1 − ηH)^s ηg."""
    objective, theta = small_problem()
    here, hessian = objective.value_and_grad(theta), dense_hessian(objective, theta)
    away, losses = torch.zeros_like(theta), [here.loss]
    for _ in range(8):
        away = away - 0.5 * (here.grad + hessian @ away)
        losses.append(float(here.loss + here.grad @ away + away @ hessian @ away / 2))
    found = measured(objective, theta, gd(0.5), 8)
    assert found.taylor_loss == pytest.approx(losses[-1], rel=1e-9)
    assert found.taylor_growth == pytest.approx(max(losses) / losses[0], rel=1e-9)
    assert found.taylor_steps == 8


def test_a_quadratic_is_its_model_for_any_optimizer(optimizer: Optimizer) -> None:
    if optimizer.minibatches:
        pytest.skip("a function has no minibatches")
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.2])
    found = measured(objective, theta, optimizer, 10)
    assert found.taylor_loss == pytest.approx(found.true_loss, rel=1e-9)
    assert found.taylor_growth == pytest.approx(found.true_growth, rel=1e-9)
    assert found.taylor_loss < objective.loss(theta)


def test_the_steps_on_f_are_those_of_the_run_with_the_state_of_the_snapshot(optimizer: Optimizer) -> None:
    objective, theta = small_problem()
    path: list[Position] = []
    rows = list(minimise(objective, theta, optimizer, stop=Stop(3), on_iterate=path.append))
    for found, row in zip(taylor_model(objective, path[:2], optimizer=optimizer, steps=2), rows[2:], strict=True):
        assert found.true_loss == row.loss
        assert found.taylor_loss == pytest.approx(found.true_loss, rel=0.02)  # the steps are small
        losses = [each.loss for each in rows[found.step : found.step + 3]]
        assert found.true_growth == max(losses) / losses[0]


def test_past_the_edge_the_model_diverges_and_the_loss_does_not() -> None:
    """The valley of log cosh of a product at a sharpness above 2/η."""
    objective, start = function_problem(tanh_product(), [13.0, 0.3])
    for step_size, diverges in ((2 / 150, True), (1 / 400, False)):
        found = measured(objective, start, gd(step_size), 60)
        assert (found.taylor_growth > 1e3) == diverges
        assert found.true_growth < 10


def test_where_the_model_is_no_longer_finite_its_loss_is_not_defined() -> None:
    objective, theta = function_problem(lambda x: 1 - torch.cos(x).sum(), [0.1])
    found = measured(objective, theta, gd(50.0), 400)
    assert isnan(found.taylor_loss)
    assert found.taylor_steps < 400
    assert found.taylor_growth > 1e290
    assert 0 <= found.true_loss <= 2


def test_a_method_without_a_meaning_below_0_ends_on_the_model_there() -> None:
    """cos has the model ½(1 + cos θ) − ... below 0 far out, and √ of it is not defined."""
    objective, theta = function_problem(lambda x: (1 + torch.cos(x)).sum(), [1.0])
    found = measured(objective, theta, sqrt_loss_gd(0.3), 30)
    assert found.taylor_steps < 30
    assert isnan(found.taylor_loss)
    assert found.true_loss < 0.05


def test_where_f_is_not_positive_there_is_no_growth() -> None:
    objective, theta = function_problem(lambda x: torch.sin(x).sum() - 3, [0.1])
    found = measured(objective, theta, gd(0.1), 3)
    assert isnan(found.taylor_growth)
    assert isnan(found.true_growth)
    assert found.true_loss < -3


def test_minibatches_have_models_of_their_own() -> None:
    objective, theta = small_problem()
    optimizer = sgd(0.1, batch_size=20, order="fixed")
    away, expected = torch.zeros_like(theta), objective.value_and_grad(theta)
    for indices in optimizer.minibatches(40, 0):  # type: ignore[misc]
        part = objective.batch(indices)
        away = away - 0.1 * (part.value_and_grad(theta).grad + dense_hessian(part, theta) @ away)
    loss = float(expected.loss + expected.grad @ away + away @ dense_hessian(objective, theta) @ away / 2)
    assert measured(objective, theta, optimizer, 1).taylor_loss == pytest.approx(loss, rel=1e-10)

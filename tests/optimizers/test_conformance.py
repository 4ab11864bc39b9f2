"""What every optimizer must do, whichever files lie in eosrepro/optimizers."""

from __future__ import annotations

import copy
from math import nan
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro import catalog
from eosrepro.core.types import Evaluation, Iterate, Optimizer
from eosrepro.optimizers.gd import gd
from tests.members import identify, variants

CURVATURES = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)


class Quadratic:
    """½ Σ c_i θ_i² as the mean over examples, all alike: optimizers with minibatches see the same function."""

    n_examples = 5

    def batch(self, indices: Tensor) -> Quadratic:
        assert len(indices) > 0
        assert set(indices.tolist()) <= set(range(self.n_examples))
        return self

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        grad = CURVATURES.to(theta) * theta
        return Evaluation(float(grad @ theta / 2), grad, nan)


def at(theta: Tensor) -> Iterate:
    return Iterate(theta, Quadratic().value_and_grad(theta).grad, Quadratic())


@pytest.fixture(params=variants("optimizers"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def make(request: pytest.FixtureRequest) -> Any:
    name, options = request.param
    return lambda step_size: catalog.find("optimizers", name)(step_size=step_size, **options)


def descend(optimizer: Optimizer, theta: Tensor, steps: int) -> list[Tensor]:
    """Iterates on the quadratic ½ Σ c_i θ_i²."""
    state, path = optimizer.init(theta), [theta]
    for _ in range(steps):
        update, state = optimizer.update(at(path[-1]), state)
        path.append(path[-1] - update)
    return path


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([1.0, -2.0, 3.0], dtype=dtype)


def test_update_changes_neither_iterate_nor_state(make: Any) -> None:
    optimizer, here = make(0.1), at(start())
    state = optimizer.update(here, optimizer.init(start()))[1]
    before = copy.deepcopy((here.theta, here.grad, state))
    one, other = optimizer.update(here, state), optimizer.update(here, state)
    torch.testing.assert_close((here.theta, here.grad, state), before, rtol=0, atol=0)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_runs_that_alternate_on_one_optimizer_do_not_meet(make: Any) -> None:
    optimizer = make(0.1)
    alone = descend(optimizer, start(), 5)
    states = [optimizer.init(start()), optimizer.init(-7 * start())]
    thetas = [start(), -7 * start()]
    for step in range(1, 6):
        for i in (0, 1):
            update, states[i] = optimizer.update(at(thetas[i]), states[i])
            thetas[i] = thetas[i] - update
        assert torch.equal(thetas[0], alone[step])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_have_the_shape_and_precision_of_the_gradient(make: Any, dtype: torch.dtype) -> None:
    optimizer = make(0.1)
    update, _ = optimizer.update(at(start(dtype)), optimizer.init(start(dtype)))
    assert (update.shape, update.dtype) == ((3,), dtype)


def test_a_small_step_size_minimises_a_quadratic(make: Any) -> None:
    path = descend(make(0.1), start(), 1500)
    assert path[-1].norm() < 1e-3 * path[0].norm()


def test_gradient_descent_takes_eta_times_the_gradient() -> None:
    path = descend(gd(step_size=0.5), start(), 3)
    assert torch.allclose(path[3], start() * (1 - 0.5 * CURVATURES) ** 3, rtol=1e-14)


def test_the_threshold_is_where_the_method_loses_its_stability_on_a_quadratic(make: Any) -> None:
    """0.1 % below it the iterates shrink, 0.1 % above they grow."""
    assert make(0.1).threshold_formula
    for factor, shrinks in ((0.999, True), (1.001, False)):
        assert (growth(make(0.1), make, factor) < 1) == shrinks


def growth(optimizer: Optimizer, make: Any, factor: float) -> float:
    """Of a distance from the minimum of a quadratic whose top curvature is the factor times the threshold."""
    if optimizer.preconditioned:
        return _growth_at_a_held_preconditioner(optimizer, factor)
    here = start()
    threshold, preconditioner = optimizer.geometry(optimizer.init(here), at(here).grad)
    assert preconditioner is None
    # The largest curvature is 1: this step size puts the threshold of the method there, times the factor.
    path = descend(make(0.1 * threshold * factor), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 4000)
    return float(path[-1].norm() / path[0].norm())


def _growth_at_a_held_preconditioner(optimizer: Optimizer, factor: float) -> float:
    """Two runs see the same large gradients, which hold the preconditioner, and one the quadratic about the other too.

    The large ones have the period 4, and the edge of stability 2. That leaves of the small ones in the preconditioner
    1 over the number of steps that it averages over: it takes 1,000 or more.
    """
    pushes = torch.tensor([[1.0, 0.3, 3.0]], dtype=torch.float64) * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    held, state = start(), optimizer.init(start())
    for step in range(1000):
        update, state = optimizer.update(Iterate(held, pushes[step % 4], Quadratic()), state)
        held = held - update
    threshold, preconditioner = optimizer.geometry(state, pushes[0])
    assert preconditioner is not None
    curvatures = factor * threshold * torch.as_tensor(preconditioner) * CURVATURES
    kick = torch.tensor([1e-9, 0.0, 0.0], dtype=torch.float64)
    other, state_of_other = held + kick, state
    for step in range(400):
        push = pushes[step % 4]
        seen = push + curvatures * (other - held)
        update, state = optimizer.update(Iterate(held, push, Quadratic()), state)
        held = held - update
        update, state_of_other = optimizer.update(Iterate(other, seen, Quadratic()), state_of_other)
        other = other - update
    return float((other - held).norm() / kick.norm())

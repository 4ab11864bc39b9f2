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
    for factor, shrinks in ((0.999, True), (1.001, False)):
        step_size = 0.1
        optimizer = make(step_size)
        here = start()
        geometry = optimizer.geometry(optimizer.init(here), at(here).grad)
        if (
            optimizer.preconditioned
        ):  # its geometry changes with the iterates: each has a test of its own, with it frozen
            assert geometry.preconditioner is not None
            return
        # The largest curvature is 1: this step size puts the threshold of the method there, times the factor.
        scaled = make(step_size * geometry.threshold * factor)
        path = descend(scaled, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), 4000)
        assert (path[-1].norm() < path[0].norm()) == shrinks
        assert scaled.threshold_formula

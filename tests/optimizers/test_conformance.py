"""What every optimizer must do, whichever files lie in eosrepro/optimizers."""

from __future__ import annotations

import copy
import inspect
from math import nan
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro import catalog
from eosrepro.core.types import Evaluation, HessianProduct, Iterate, Optimizer
from eosrepro.optimizers.gd import gd
from tests.members import identify, variants

CURVATURES = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)


class Quadratic:
    """⟨push, θ⟩ + ½ Σ c_i (θ_i − centre_i)² as the mean over examples, all alike: minibatches see the same function."""

    n_examples = 5

    def __init__(self, curvatures: Tensor = CURVATURES, centre: Tensor | None = None, push: Tensor | None = None):
        self._curvatures, self._centre, self._push = curvatures, centre, push

    def batch(self, indices: Tensor) -> Quadratic:
        assert len(indices) > 0
        assert set(indices.tolist()) <= set(range(self.n_examples))
        return self

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        curvatures = self._curvatures.to(theta)
        moved = theta if self._centre is None else theta - self._centre
        push = torch.zeros_like(theta) if self._push is None else self._push
        return Evaluation(float(curvatures @ moved**2 / 2 + push @ theta), curvatures * moved + push, nan)

    def hvp(self, theta: Tensor) -> HessianProduct:
        class Product:
            grad = self.value_and_grad(theta).grad

            def __call__(_self, vector: Tensor) -> Tensor:  # noqa: N805
                return self._curvatures.to(theta) * vector

        return Product()

    def curvature_grads(self, theta: Tensor, vectors: Tensor) -> Tensor:
        return theta.new_zeros(len(vectors), *vectors.shape)


def at(theta: Tensor, of: Quadratic | None = None) -> Iterate:
    of = of or Quadratic()
    here = of.value_and_grad(theta)
    return Iterate(theta, here.grad, of, here.loss)


@pytest.fixture(params=variants("optimizers"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def make(request: pytest.FixtureRequest) -> Any:
    name, options = request.param
    member = catalog.find("optimizers", name)
    # Where a preconditioner averages over fewer steps, small gradients move it.
    averaged = {"beta2": 0.999} if "beta2" in inspect.signature(member).parameters else {}
    return lambda step_size: member(step_size=step_size, **averaged, **options)


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
    """Up to a step, for those whose steps do not shrink with the gradient."""
    path = descend(make(0.1), start(), 1500)
    assert path[-1].norm() < max(1e-3 * path[0].norm(), 2 * 0.1)


def test_gradient_descent_takes_eta_times_the_gradient() -> None:
    path = descend(gd(step_size=0.5), start(), 3)
    assert torch.allclose(path[3], start() * (1 - 0.5 * CURVATURES) ** 3, rtol=1e-14)


def test_the_threshold_is_where_the_method_loses_its_stability_on_a_quadratic(make: Any) -> None:
    """0.1 % below it the iterates shrink, 0.1 % above they grow."""
    if not make(0.1).threshold_formula:
        pytest.skip("it has no threshold")
    for factor, shrinks in ((0.999, True), (1.001, False)):
        assert (growth(make(0.1), factor) < 1) == shrinks


def growth(optimizer: Optimizer, factor: float) -> float:
    """Of a distance from the minimum of a quadratic whose top curvature is the factor times the threshold."""
    here = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    state = optimizer.init(here)
    if state is None:  # the step is a function of where it is taken, and so may the threshold be
        return _growth_in_a_step(optimizer, factor)
    if optimizer.preconditioned:
        return _growth_at_a_held_preconditioner(optimizer, factor)
    threshold, preconditioner = optimizer.geometry(at(here), state)
    assert preconditioner is None
    quadratic, path = Quadratic(threshold * factor * CURVATURES), [here]
    for _ in range(4000):
        update, state = optimizer.update(at(path[-1], quadratic), state)
        path.append(path[-1] - update)
    return float(path[-1].norm() / path[0].norm())


def _growth_in_a_step(optimizer: Optimizer, factor: float) -> float:
    """Where on the top eigenvector the curvature is at the threshold is found by bisection: a nearer point is flatter.

    A method whose threshold is the same everywhere has it nowhere or everywhere: its curvature is scaled instead.
    """
    unit = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

    def excess(curvature: float) -> float:
        threshold, preconditioner = optimizer.geometry(at(unit, Quadratic(curvature * CURVATURES)), None)
        return curvature / (1.0 if preconditioner is None else float(preconditioner)) / threshold - factor

    low, high = 1e-9, 1e9
    if excess(low) * excess(high) > 0:  # P grows with the curvature: what hangs on the distance is the ratio
        return _growth_by_distance(optimizer, factor)
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    quadratic = Quadratic(low * CURVATURES)
    update, _ = optimizer.update(at(unit, quadratic), None)
    return float((unit - update).norm())


def _growth_by_distance(optimizer: Optimizer, factor: float) -> float:
    """The same at a distance from the minimum: nearer to it, the gradient that divides is smaller."""
    unit, quadratic = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), Quadratic()

    def excess(distance: float) -> float:
        threshold, preconditioner = optimizer.geometry(at(distance * unit, quadratic), None)
        assert preconditioner is not None
        return 1 / float(preconditioner) / threshold - factor

    near, far = 1e-9, 1e9
    assert excess(near) > 0 > excess(far)
    for _ in range(200):
        middle = (near * far) ** 0.5
        near, far = (middle, far) if excess(middle) > 0 else (near, middle)
    update, _ = optimizer.update(at(near * unit, quadratic), None)
    return float((near * unit - update).norm() / near)


def _growth_at_a_held_preconditioner(optimizer: Optimizer, factor: float) -> float:
    """Two runs see the same large gradients, which hold the preconditioner, and one the quadratic about the other too.

    The large ones have the period 4, and the edge of stability 2. That leaves of the small ones in the preconditioner
    1 over the number of steps that it averages over, 1,000, and 8,000 are enough to settle it.
    """
    pushes = torch.tensor([[1.0, 0.3, 3.0]], dtype=torch.float64) * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    held, state = start(), optimizer.init(start())
    flat = torch.zeros(3, dtype=torch.float64)
    for step in range(8000):
        update, state = optimizer.update(at(held, Quadratic(flat, push=pushes[step % 4])), state)
        held = held - update
    threshold, preconditioner = optimizer.geometry(at(held, Quadratic(flat, push=pushes[0])), state)
    assert preconditioner is not None
    curvatures = factor * threshold * torch.as_tensor(preconditioner) * CURVATURES
    kick = torch.tensor([1e-9, 0.0, 0.0], dtype=torch.float64)
    other, state_of_other = held + kick, state
    for step in range(400):
        push = pushes[step % 4]
        seen = at(other, Quadratic(curvatures, centre=held, push=push))
        update, state = optimizer.update(at(held, Quadratic(flat, push=push)), state)
        held = held - update
        update, state_of_other = optimizer.update(seen, state_of_other)
        other = other - update
    return float((other - held).norm() / kick.norm())

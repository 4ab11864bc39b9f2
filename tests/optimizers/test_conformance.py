"""What every optimizer must do, whichever files lie in eosrepro/optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro import catalog
from eosrepro.optimizers.gd import gd
from eosrepro.types import Optimizer
from tests.members import identify, variants

CURVATURES = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)


@pytest.fixture(params=variants("optimizers"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def make(request: pytest.FixtureRequest) -> Any:
    name, options = request.param
    return lambda step_size: catalog.find("optimizers", name)(step_size=step_size, **options)


def descend(optimizer: Optimizer, theta: Tensor, steps: int) -> list[Tensor]:
    """Iterates on the quadratic ½ Σ c_i θ_i²."""
    state, path = optimizer.init(theta), [theta]
    for _ in range(steps):
        update, state = optimizer.update(CURVATURES * path[-1], state)
        path.append(path[-1] - update)
    return path


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([1.0, -2.0, 3.0], dtype=dtype)


def test_update_changes_neither_gradient_nor_state(make: Any) -> None:
    optimizer, grad = make(0.1), start()
    state = optimizer.update(grad, optimizer.init(start()))[1]
    before = copy.deepcopy((grad, state))
    one, other = optimizer.update(grad, state), optimizer.update(grad, state)
    torch.testing.assert_close((grad, state), before, rtol=0, atol=0)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_runs_that_alternate_on_one_optimizer_do_not_meet(make: Any) -> None:
    optimizer = make(0.1)
    alone = descend(optimizer, start(), 5)
    states = [optimizer.init(start()), optimizer.init(-7 * start())]
    thetas = [start(), -7 * start()]
    for step in range(1, 6):
        for i in (0, 1):
            update, states[i] = optimizer.update(CURVATURES * thetas[i], states[i])
            thetas[i] = thetas[i] - update
        assert torch.equal(thetas[0], alone[step])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_have_the_shape_and_precision_of_the_gradient(make: Any, dtype: torch.dtype) -> None:
    optimizer = make(0.1)
    update, _ = optimizer.update(start(dtype), optimizer.init(start(dtype)))
    assert (update.shape, update.dtype) == ((3,), dtype)


def test_a_small_step_size_minimises_a_quadratic(make: Any) -> None:
    path = descend(make(0.1), start(), 1500)
    assert path[-1].norm() < 1e-3 * path[0].norm()


def test_gradient_descent_takes_eta_times_the_gradient() -> None:
    path = descend(gd(step_size=0.5), start(), 3)
    assert torch.allclose(path[3], start() * (1 - 0.5 * CURVATURES) ** 3, rtol=1e-14)

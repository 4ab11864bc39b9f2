"""The first steps of our optimizers are those of torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro.core.schedules import scheduled
from eosrepro.core.training import minimise
from eosrepro.core.types import Optimizer, Position, Stop
from eosrepro.optimizers.adamw import adamw
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.momentum import momentum
from eosrepro.optimizers.rmsprop import rmsprop
from eosrepro.optimizers.sgd import sgd
from tests.conftest import small_problem

LR = 0.02
PAIRS: dict[str, tuple[Callable[..., Optimizer], Any]] = {
    "gd": (gd, torch.optim.SGD),
    "gd, decay": (partial(gd, weight_decay=0.1), partial(torch.optim.SGD, weight_decay=0.1)),
    "polyak": (partial(momentum, beta=0.8), partial(torch.optim.SGD, momentum=0.8)),
    "polyak, decay": (
        partial(momentum, weight_decay=0.1),
        partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
    ),
    "nesterov": (partial(momentum, kind="nesterov"), partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "ema": (partial(momentum, kind="ema"), partial(torch.optim.SGD, momentum=0.9)),  # at a tenth of the step size
    "rmsprop": (rmsprop, torch.optim.RMSprop),
    "adamw": (partial(adamw, weight_decay=0.1), partial(torch.optim.AdamW, weight_decay=0.1)),
}


def path_of(optimizer: Optimizer, steps: int = 20) -> list[Tensor]:
    path: list[Position] = []
    objective, theta = small_problem()
    list(minimise(objective, theta, optimizer, stop=Stop(steps), on_iterate=path.append))
    return [at.theta for at in path]


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_20_steps_are_those_of_torch(name: str) -> None:
    ours, theirs = PAIRS[name]
    objective, theta = small_problem()
    parameter = torch.nn.Parameter(theta.clone())
    optimizer = theirs([parameter], lr=LR / 10 if name == "ema" else LR)
    for at in path_of(ours(LR)):
        torch.testing.assert_close(at, parameter.detach(), rtol=1e-10, atol=1e-12)
        parameter.grad = objective.value_and_grad(parameter.detach()).grad
        optimizer.step()


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_first_epochs_of_sgd_with_momentum_are_those_of_torch(*, nesterov: bool) -> None:
    objective, theta = small_problem()
    ours = sgd(LR, batch_size=16, momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    assert ours.minibatches
    parameter = torch.nn.Parameter(theta.clone())
    theirs = torch.optim.SGD([parameter], lr=LR, momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    path = path_of(ours, steps=7)  # of 3 minibatches each
    for epoch, at in enumerate(path):
        torch.testing.assert_close(at, parameter.detach(), rtol=1e-10, atol=1e-12)
        for indices in ours.minibatches(objective.n_examples, epoch):
            parameter.grad = objective.batch(indices).value_and_grad(parameter.detach()).grad
            theirs.step()


@pytest.mark.parametrize("name", ["gd", "polyak", "adamw", "rmsprop"])
def test_a_schedule_is_that_of_torch(name: str) -> None:
    """Steps 0 to 4 warm up, from step 10 on the step size is halved."""
    factor = lambda step: min(1.0, (step + 1) / 5) * (0.5 if step >= 10 else 1.0)  # noqa: E731
    ours, theirs = PAIRS[name]
    objective, theta = small_problem()
    parameter = torch.nn.Parameter(theta.clone())
    optimizer = theirs([parameter], lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for at in path_of(scheduled(lambda share: ours(LR * share), factor)):
        torch.testing.assert_close(at, parameter.detach(), rtol=1e-10, atol=1e-12)
        parameter.grad = objective.value_and_grad(parameter.detach()).grad
        optimizer.step()
        schedule.step()


def test_the_threshold_of_a_schedule_is_that_of_the_step_at_hand() -> None:
    objective, theta = small_problem()
    optimizer = scheduled(lambda share: gd(0.1 * share), lambda step: 0.5 if step >= 3 else 1.0)
    rows = list(minimise(objective, theta, optimizer, stop=Stop(5)))
    assert [row.stability_threshold for row in rows] == [20, 20, 20, 40, 40, 40]
    assert optimizer.threshold_formula == "2/ηₜ"
    assert not optimizer.takes_gradient_steps  # no one η is that of all its steps

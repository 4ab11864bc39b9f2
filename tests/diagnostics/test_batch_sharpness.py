"""Batch sharpness, against dense Hessians of the minibatches."""

from __future__ import annotations

from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Optimizer, Position, Stop
from eosrepro.diagnostics.batch_sharpness import BatchSharpness, batch_sharpness
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, interpolated, small_problem


def measured(objective: Objective, theta: Tensor, optimizer: Optimizer, step: int = 2, **options: Any) -> Any:
    (found,) = batch_sharpness(objective, [Position(step, theta, None)], optimizer=optimizer, **options)
    assert found.step == step
    return found


def ratio(objective: Objective, theta: Tensor) -> float:
    grad = objective.value_and_grad(theta).grad
    return float(grad @ dense_hessian(objective, theta) @ grad / (grad @ grad))


@pytest.mark.parametrize("order", ["fixed", "reshuffled", "replacement"])
def test_it_is_the_mean_of_the_ratios_over_the_minibatches_to_come(order: Any) -> None:
    objective, theta = small_problem()
    optimizer = sgd(0.1, batch_size=10, order=order, seed=3)
    batches = optimizer.minibatches(40, 2)  # type: ignore[misc]
    ratios = np.array([ratio(objective.batch(each), theta) for each in batches])
    found = measured(objective, theta, optimizer)
    assert found.batch_sharpness_draws == len(ratios) == 4
    assert found.batch_sharpness == pytest.approx(ratios.mean(), rel=1e-10)
    assert found.batch_sharpness_se == pytest.approx(ratios.std(ddof=1) / 2, rel=1e-8)
    first = measured(objective, theta, optimizer, sample=2)
    assert first.batch_sharpness == pytest.approx(ratios[:2].mean(), rel=1e-10)


def test_the_smaller_minibatch_at_the_end_of_an_epoch_is_left_out() -> None:
    objective, theta = small_problem()
    optimizer = sgd(0.1, batch_size=16)
    batches = optimizer.minibatches(40, 2)  # type: ignore[misc]
    assert [len(each) for each in batches] == [16, 16, 8]
    found = measured(objective, theta, optimizer)
    assert found.batch_sharpness == pytest.approx(np.mean([ratio(objective.batch(b), theta) for b in batches[:2]]))


@pytest.mark.parametrize("optimizer", [gd(0.1), sgd(0.1, batch_size=40)], ids=["gd", "sgd"])
def test_of_all_examples_at_once_it_is_the_curvature_along_the_gradient(optimizer: Optimizer) -> None:
    objective, theta = small_problem()
    found = measured(objective, theta, optimizer)
    assert found.batch_sharpness == pytest.approx(ratio(objective, theta), rel=1e-10)
    assert found.batch_sharpness_draws == 1
    assert found.batch_sharpness_se == 0 if optimizer.minibatches is None else isnan(found.batch_sharpness_se)
    assert measured(objective, theta, gd(0.1), batch_size=99).batch_sharpness == pytest.approx(found.batch_sharpness)


def test_random_minibatches_have_the_mean_of_all_pairs_and_an_honest_standard_error() -> None:
    objective, theta = small_problem()
    few = objective.batch(torch.arange(6))
    pairs = [few.batch(torch.tensor([i, j])) for i in range(6) for j in range(i)]
    exact = np.mean([ratio(pair, theta) for pair in pairs])
    found = [measured(few, theta, gd(0.1), batch_size=2, sample=12, seed=seed) for seed in range(15)]
    means = np.array([each.batch_sharpness for each in found])
    assert all(each.batch_sharpness_draws == 12 for each in found)
    assert means.mean() == pytest.approx(exact, abs=4 * means.std() / sqrt(15))
    claimed = np.mean([each.batch_sharpness_se**2 for each in found])
    assert 0.4 < means.var(ddof=1) / claimed < 2


def test_random_minibatches_hang_on_seed_and_step_alone() -> None:
    objective, theta = small_problem()
    one = measured(objective, theta, gd(0.1), batch_size=8, seed=1)
    assert one == measured(objective, theta, sgd(0.3, batch_size=4), batch_size=8, seed=1)
    assert one.batch_sharpness_draws == 5
    others = [measured(objective, theta, gd(0.1), step, batch_size=8, seed=seed) for step, seed in ((2, 2), (3, 1))]
    assert one.batch_sharpness not in [each.batch_sharpness for each in others]


def test_along_a_run_with_momentum_it_is_that_of_each_epoch() -> None:
    """The state is the epoch and m."""
    objective, theta = small_problem()
    path: list[Position] = []
    optimizer = sgd(0.02, batch_size=10, momentum=0.9)
    list(minimise(objective, theta, optimizer, stop=Stop(1), on_iterate=path.append))
    found = list(batch_sharpness(objective, path, optimizer=optimizer))
    for each, at in zip(found, path, strict=True):
        batches = optimizer.minibatches(40, at.step)  # type: ignore[misc]
        ratios = [ratio(objective.batch(b), at.theta) for b in batches]
        assert each.batch_sharpness == pytest.approx(np.mean(ratios), rel=1e-9)


def test_a_problem_has_one_minibatch_and_where_the_gradient_is_0_there_is_no_ratio() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.0])
    assert measured(objective, theta, gd(0.1)).batch_sharpness == pytest.approx(40)
    flat = measured(*interpolated(), sgd(0.1, batch_size=1))
    assert isnan(flat.batch_sharpness)
    assert isnan(flat.batch_sharpness_se)
    assert flat == BatchSharpness(2, flat.batch_sharpness, flat.batch_sharpness_se, 0)

"""E[RP] and both sides of eq. 5.1, against their definitions and against sampling theory."""

from __future__ import annotations

from itertools import combinations
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.types import Position
from eosrepro.diagnostics.expected_progress import ExpectedProgress, expected_progress
from eosrepro.optimizers.sgd import sgd
from tests.conftest import interpolated, small_problem

STEP_SIZE = 0.7


def expected(
    objective: Objective,
    theta: Tensor,
    *,
    batch_size: int,
    step: int = 3,
    sample: int | None = None,
    order: Any = "reshuffled",
    seed: int = 1,
) -> ExpectedProgress:
    minibatches = sgd(step_size=STEP_SIZE, batch_size=batch_size, order=order, seed=seed).minibatches
    assert minibatches is not None
    (found,) = expected_progress(
        objective, [Position(step, theta, None)], step_size=STEP_SIZE, minibatches=minibatches, sample=sample
    )
    return found


def definitions(
    objective: Objective, theta: Tensor, batches: list[Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each minibatch: its weight, its RP and its term of eq. 5.1, from full gradients."""
    here = objective.value_and_grad(theta)
    rows = []
    for indices in batches:
        grad = objective.batch(indices).value_and_grad(theta).grad
        there = objective.value_and_grad(theta - STEP_SIZE * grad)
        sq_norm = float(here.grad @ here.grad)
        progress = (there.loss - here.loss) / (STEP_SIZE * sq_norm)
        # (η/2) (‖g‖²/‖∇f‖²) L(θ; ηg), with L from Definition 2 and v = ηg
        v = STEP_SIZE * grad
        smoothness = float(v @ (here.grad - there.grad) / (v @ v))
        term = STEP_SIZE / 2 * float(grad @ grad) / sq_norm * smoothness
        rows.append((len(indices) / objective.n_examples, progress, term))
    weights, progress, terms = np.array(rows).T
    return weights, progress, terms


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("batch_size", [16, 7])
def test_both_sides_are_their_definitions_over_the_next_epoch(activation: str, batch_size: int) -> None:
    objective, theta = small_problem(activation)
    batches = list(sgd(step_size=STEP_SIZE, batch_size=batch_size, seed=1).minibatches(40, 3))  # type: ignore[misc]
    weights, progress, terms = definitions(objective, theta, batches)
    found = expected(objective, theta, batch_size=batch_size)
    assert found.step == 3
    assert found.minibatches == len(batches)
    assert found.expected_relative_progress == pytest.approx(weights @ progress, rel=1e-9)
    assert found.predicted_expected_progress == pytest.approx(-1 + weights @ terms, rel=1e-9)
    assert found.expected_relative_progress_se == found.predicted_expected_progress_se == 0


def test_a_minibatch_of_everything_has_the_relative_progress_of_gradient_descent_and_no_noise() -> None:
    objective, theta = small_problem()
    here = objective.value_and_grad(theta)
    sq_norm = float(here.grad @ here.grad)
    there = objective.value_and_grad(theta - STEP_SIZE * here.grad)
    found = expected(objective, theta, batch_size=40)
    assert found.expected_relative_progress == pytest.approx((there.loss - here.loss) / (STEP_SIZE * sq_norm), rel=1e-9)
    assert found.gradient_noise == pytest.approx(0, abs=1e-9)


def test_noise_is_the_variance_of_the_minibatch_gradient() -> None:
    objective, theta = small_problem()
    full = objective.value_and_grad(theta).grad
    batches = sgd(step_size=1.0, batch_size=16, seed=1).minibatches(40, 3)  # type: ignore[misc]
    variance = sum(
        len(indices) / 40 * float((objective.batch(indices).value_and_grad(theta).grad - full).square().sum())
        for indices in batches
    )
    found = expected(objective, theta, batch_size=16)
    assert found.gradient_noise == pytest.approx(variance / float(full @ full), rel=1e-9)


def test_the_epoch_is_the_one_that_starts_at_the_snapshot() -> None:
    objective, theta = small_problem()
    by_epoch = [expected(objective, theta, batch_size=4, step=step).expected_relative_progress for step in range(4)]
    assert len(set(by_epoch)) == 4


def test_a_sample_is_the_first_minibatches_and_its_standard_error_that_of_sampling_without_replacement() -> None:
    objective, theta = small_problem()
    batches = list(sgd(step_size=STEP_SIZE, batch_size=4, seed=1).minibatches(40, 3))  # type: ignore[misc]
    _, progress, terms = definitions(objective, theta, batches)
    found = expected(objective, theta, batch_size=4, sample=4)
    assert found.minibatches == 4
    assert found.expected_relative_progress == pytest.approx(progress[:4].mean(), rel=1e-9)
    error = sqrt((1 - 4 / 10) / 4) * progress[:4].std(ddof=1)
    assert found.expected_relative_progress_se == pytest.approx(error, rel=1e-9)
    assert found.predicted_expected_progress_se == pytest.approx(
        sqrt((1 - 4 / 10) / 4) * terms[:4].std(ddof=1), rel=1e-9
    )
    # Over all samples of four, the squared error is what the squared standard error says on average.
    means = np.array([progress[list(chosen)].mean() for chosen in combinations(range(10), 4)])
    claimed = np.mean([0.6 / 4 * progress[list(chosen)].var(ddof=1) for chosen in combinations(range(10), 4)])
    assert means.var() == pytest.approx(claimed, rel=1e-9)


def test_a_sample_as_large_as_the_epoch_is_the_epoch() -> None:
    objective, theta = small_problem()
    assert expected(objective, theta, batch_size=7, sample=100) == expected(objective, theta, batch_size=7)


def test_with_a_fixed_order_every_epoch_is_the_same() -> None:
    objective, theta = small_problem()
    found = [expected(objective, theta, batch_size=7, step=step, order="fixed") for step in (0, 1, 300)]
    assert len({each.expected_relative_progress for each in found}) == 1
    first = expected(objective, theta, batch_size=7, step=0)
    assert found[0] == first
    assert first.expected_relative_progress_se == 0


def test_with_replacement_the_standard_error_is_that_of_independent_draws() -> None:
    objective, theta = small_problem()
    drawn = [expected(objective, theta, batch_size=8, order="replacement", seed=seed) for seed in range(200)]
    batches = list(sgd(step_size=STEP_SIZE, batch_size=8, order="replacement", seed=0).minibatches(40, 3))  # type: ignore[misc]
    _, progress, terms = definitions(objective, theta, batches)
    assert drawn[0].expected_relative_progress == pytest.approx(progress.mean(), rel=1e-9)
    assert drawn[0].expected_relative_progress_se == pytest.approx(progress.std(ddof=1) / sqrt(5), rel=1e-9)
    assert drawn[0].predicted_expected_progress_se == pytest.approx(terms.std(ddof=1) / sqrt(5), rel=1e-9)
    # The scatter of the means over many draws is what the squared standard error says on average (n = 200: ± 15 %).
    for name in ("expected_relative_progress", "predicted_expected_progress"):
        scatter = np.var([getattr(each, name) for each in drawn], ddof=1)
        claimed = np.mean([getattr(each, f"{name}_se") ** 2 for each in drawn])
        assert scatter == pytest.approx(claimed, rel=0.3)


def test_where_the_gradient_is_exactly_0_nothing_is_measured() -> None:
    objective, theta = interpolated()
    found = expected(objective, theta, batch_size=1)
    assert found.minibatches == 2
    assert all(isnan(value) for name, value in vars(found).items() if not name.endswith(("step", "minibatches", "_se")))


def test_progress_below_the_rounding_of_the_losses_is_not_defined() -> None:
    objective, theta = small_problem(dtype=torch.float32)
    minibatches = sgd(step_size=1e-8, batch_size=16, seed=1).minibatches
    assert minibatches is not None
    (tiny,) = expected_progress(objective, [Position(3, theta, None)], step_size=1e-8, minibatches=minibatches)
    assert isnan(tiny.expected_relative_progress)
    assert tiny.gradient_noise == pytest.approx(expected(objective, theta, batch_size=16).gradient_noise)


def test_float32_is_good_to_a_hundred_thousandth() -> None:
    objective, theta = small_problem()
    single, _ = small_problem(dtype=torch.float32)
    exact, found = expected(objective, theta, batch_size=16), expected(single, theta.float(), batch_size=16)
    assert found.predicted_expected_progress == pytest.approx(exact.predicted_expected_progress, rel=1e-5)
    assert found.expected_relative_progress == pytest.approx(exact.expected_relative_progress, rel=1e-5)

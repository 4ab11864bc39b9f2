"""SGD: which minibatches, in which order, and the steps on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Stop
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from tests.conftest import small_problem

ORDERS = ("fixed", "reshuffled", "replacement")


def batches(
    n_examples: int, epoch: int, *, batch_size: int = 32, order: Any = "reshuffled", seed: int = 0
) -> list[list[int]]:
    minibatches = sgd(step_size=1.0, batch_size=batch_size, order=order, seed=seed).minibatches
    assert minibatches is not None
    return [indices.tolist() for indices in minibatches(n_examples, epoch)]


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 1000), st.sampled_from(["fixed", "reshuffled"]))
def test_an_epoch_uses_every_example_once(n_examples: int, batch_size: int, epoch: int, order: str) -> None:
    made = batches(n_examples, epoch, batch_size=batch_size, order=order)
    assert sorted(index for batch in made for index in batch) == list(range(n_examples))
    assert {len(batch) for batch in made[:-1]} <= {batch_size}
    assert 0 < len(made[-1]) <= batch_size


def test_the_papers_epoch_has_157_minibatches_and_the_last_one_is_of_8() -> None:
    made = batches(5000, 0)
    assert (len(made), len(made[0]), len(made[-1])) == (157, 32, 8)


@pytest.mark.parametrize("order", ORDERS)
def test_the_seed_draws_another_order(order: str) -> None:
    assert len({str(batches(50, 0, order=order, seed=seed)) for seed in range(5)}) == 5


def test_a_fixed_order_is_the_same_in_every_epoch_and_is_shuffled() -> None:
    first = batches(50, 0, order="fixed", seed=4)
    assert all(batches(50, epoch, order="fixed", seed=4) == first for epoch in (1, 2, 299))
    assert first == batches(50, 0, order="reshuffled", seed=4)
    assert [index for batch in first for index in batch] != list(
        range(50)
    )  # images of a folder may come sorted by their class


def test_a_fixed_order_takes_a_run_elsewhere_from_the_second_epoch_on() -> None:
    objective, theta = small_problem()
    losses = {
        order: [
            row.loss for row in minimise(objective, theta, sgd(step_size=0.4, batch_size=7, order=order), stop=Stop(3))
        ]
        for order in ORDERS
    }
    assert losses["fixed"][:2] == losses["reshuffled"][:2]
    assert losses["fixed"][2] != losses["reshuffled"][2]
    assert losses["replacement"][1] != losses["fixed"][1]


def test_with_replacement_each_minibatch_is_a_draw_of_its_own() -> None:
    made = batches(50, 3, batch_size=16, order="replacement")
    assert [len(batch) for batch in made] == [16] * 4  # as many as an epoch would take, and the last one is full
    assert made == batches(50, 3, batch_size=16, order="replacement")
    assert made != batches(50, 4, batch_size=16, order="replacement")
    drawn = [
        index
        for epoch in range(500)
        for batch in batches(50, epoch, batch_size=16, order="replacement")
        for index in batch
    ]
    counts = np.bincount(drawn, minlength=50)
    assert len(counts) == 50
    # 32,000 draws of 50 examples: chi-squared with 49 degrees of freedom, and some minibatch holds an example twice.
    assert 20 < ((counts - 640) ** 2 / 640).sum() < 95
    assert any(len(set(batch)) < 16 for batch in made)


def test_the_shuffling_depends_on_seed_and_epoch_alone_and_on_both() -> None:
    assert batches(50, 3) == batches(50, 3)
    orders = {str(batches(50, epoch, seed=seed)) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_the_shuffling_is_the_one_that_recorded_runs_were_made_with() -> None:
    assert batches(8, 2, batch_size=3, seed=7) == PINNED


PINNED = [[6, 0, 2], [3, 7, 5], [1, 4]]


def test_an_epoch_is_gradient_descent_on_each_minibatch_in_turn() -> None:
    objective, theta = small_problem()
    optimizer = sgd(step_size=0.3, batch_size=16, seed=5)
    start = objective.value_and_grad(theta)
    here = Iterate(theta, start.grad, objective, start.loss)
    update, epoch = optimizer.update(here, 4)

    expected = theta
    for indices in batches(40, 4, batch_size=16, seed=5):
        # A gradient of the loss over the chosen examples, from the parts of a problem with one example a chunk.
        single, _ = small_problem(chunk_size=1)
        point = expected.clone().requires_grad_()
        mean = sum(single.parts[index](point)[0] * 40 for index in indices) / len(indices)
        expected = expected - 0.3 * torch.autograd.grad(mean, point)[0]
    assert epoch == 5
    torch.testing.assert_close(theta - update, expected, rtol=1e-12, atol=1e-12)


def test_one_minibatch_of_all_examples_is_gradient_descent() -> None:
    objective, theta = small_problem()
    stochastic = list(minimise(objective, theta, sgd(step_size=0.4, batch_size=40, seed=0), stop=Stop(30)))
    full = list(minimise(objective, theta, gd(step_size=0.4), stop=Stop(30)))
    assert [row.loss for row in stochastic] == pytest.approx([row.loss for row in full], rel=1e-10)
    assert [row.accuracy for row in stochastic] == [row.accuracy for row in full]


def test_a_run_that_goes_on_from_an_epoch_is_the_run_that_never_stopped() -> None:
    objective, theta = small_problem()
    optimizer = sgd(step_size=0.4, batch_size=7, seed=3)
    path = {}
    list(minimise(objective, theta, optimizer, stop=Stop(6), on_iterate=lambda at: path.update({at.step: at.theta})))
    point, epoch = path[3], 3
    while epoch < 6:
        here = objective.value_and_grad(point)
        update, epoch = optimizer.update(Iterate(point, here.grad, objective, here.loss), epoch)
        point = point - update
    assert torch.equal(point, path[6])


def test_a_recorded_iteration_is_an_epoch_with_the_loss_over_all_examples() -> None:
    objective, theta = small_problem()
    path = {}
    keep = lambda at: path.update({at.step: at.theta})  # noqa: E731
    rows = list(minimise(objective, theta, sgd(step_size=0.4, batch_size=7), stop=Stop(3), on_iterate=keep))
    assert [row.step for row in rows] == [0, 1, 2, 3]
    assert [row.loss for row in rows] == [objective.loss(path[step]) for step in range(4)]

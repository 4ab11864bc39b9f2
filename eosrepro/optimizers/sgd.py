"""Stochastic gradient descent on shuffled minibatches, an epoch a recorded iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from eosrepro.types import AtLeast, Iterate, Optimizer


def sgd(
    *, step_size: float, batch_size: Annotated[int, AtLeast(1)] = 32, seed: Annotated[int, AtLeast(0)] = 0
) -> Optimizer:
    """θ ← θ − ηg for the gradient g of each minibatch in turn. An iteration is an epoch: each example is used once.

    The examples are shuffled anew in every epoch, by `seed` and the number of the epoch alone: an interrupted run goes
    on as if it had not been, and a diagnostic knows the minibatches to come. The state is that number. The last
    minibatch of an epoch is smaller where `batch_size` does not divide the number of examples.
    """

    def init(_theta: Tensor) -> int:
        return 0

    def update(at: Iterate, epoch: int) -> tuple[Tensor, int]:
        theta = at.theta
        for indices in minibatches(at.examples.n_examples, epoch):
            theta = theta - step_size * at.examples.batch(indices).value_and_grad(theta).grad
        return at.theta - theta, epoch + 1

    def minibatches(n_examples: int, epoch: int) -> Sequence[Tensor]:
        order = np.random.default_rng([seed, epoch]).permutation(n_examples)
        return torch.split(torch.from_numpy(order), batch_size)

    return Optimizer(init, update, minibatches)

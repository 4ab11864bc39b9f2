"""Stochastic gradient descent on minibatches, an epoch a recorded iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from eosrepro.core.types import AtLeast, Geometry, Iterate, Optimizer, Seed


def sgd(
    step_size: float,
    *,
    batch_size: Annotated[int, AtLeast(1)] = 32,
    order: Literal["fixed", "reshuffled", "replacement"] = "reshuffled",
    seed: Seed = 0,
) -> Optimizer:
    """θ ← θ − ηg for the gradient g of each minibatch in turn. An iteration is an epoch.

    The minibatches of an epoch follow from `seed` and the number of the epoch alone. So an interrupted run goes on as
    if it had not been, and a diagnostic knows the minibatches to come. The state is the number of the epoch.

    Args:
        order: `fixed`: the examples are shuffled once, and every epoch takes the same minibatches in the same order;
            `reshuffled`: they are shuffled anew for each epoch; `replacement`: every minibatch is a new draw of
            `batch_size` examples with replacement. With the first two an epoch uses each example once, and its last
            minibatch is smaller where `batch_size` does not divide the number of examples.
        seed: of the shuffling or drawing.
    """

    def init(_theta: Tensor) -> int:
        return 0

    def update(at: Iterate, epoch: int) -> tuple[Tensor, int]:
        theta = at.theta
        for indices in minibatches(at.examples.n_examples, epoch):
            theta = theta - step_size * at.examples.batch(indices).value_and_grad(theta).grad
        return at.theta - theta, epoch + 1

    def geometry(_epoch: int, _grad: Tensor) -> Geometry:
        return Geometry(2 / step_size)

    def minibatches(n_examples: int, epoch: int) -> Sequence[Tensor]:
        generator = np.random.default_rng([seed, 0 if order == "fixed" else epoch])
        if order == "replacement":
            size = (-(-n_examples // batch_size), batch_size)
            return list(torch.from_numpy(generator.integers(n_examples, size=size)))
        return torch.split(torch.from_numpy(generator.permutation(n_examples)), batch_size)

    return Optimizer(init, update, geometry, threshold_formula="2/η", minibatches=minibatches)

"""Stochastic gradient descent on minibatches, an epoch a recorded iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Geometry, Iterate, Optimizer, Seed, Share
from eosrepro.optimizers.momentum import edge

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = "int | tuple[int, Tensor]"  # the epoch; with momentum also m


def sgd(
    step_size: float,
    *,
    batch_size: Annotated[int, AtLeast(1)] = 32,
    order: Literal["fixed", "reshuffled", "replacement"] = "reshuffled",
    momentum: Share = 0.0,
    nesterov: bool = False,
    weight_decay: Annotated[float, AtLeast(0)] = 0.0,
    seed: Seed = 0,
) -> Optimizer:
    """θ ← θ − ηg for the gradient g of each minibatch in turn, as `torch.optim.SGD`. An iteration is an epoch.

    The minibatches of an epoch follow from `seed` and the number of the epoch alone. So an interrupted run goes on as
    if it had not been, and a diagnostic knows the minibatches to come. The state is the number of the epoch, with
    momentum also m. The threshold is that of one minibatch of all examples, see `optimizers/momentum.py`.

    Args:
        order: `fixed`: the examples are shuffled once, and every epoch takes the same minibatches in the same order;
            `reshuffled`: they are shuffled anew for each epoch; `replacement`: every minibatch is a new draw of
            `batch_size` examples with replacement. With the first two an epoch uses each example once, and its last
            minibatch is smaller where `batch_size` does not divide the number of examples.
        momentum: β of m ← βm + g, along which the steps are.
        nesterov: steps are along g + βm.
        weight_decay: λ, coupled: g has λθ in it.
        seed: of the shuffling or drawing.
    """
    number = edge("nesterov" if nesterov else "polyak", momentum)

    def init(theta: Tensor) -> State:
        return (0, torch.zeros_like(theta)) if momentum else 0

    def update(at: Iterate, state: State) -> tuple[Tensor, State]:
        epoch, mean = (state, None) if isinstance(state, int) else state
        theta = at.theta
        for indices in minibatches(at.examples.n_examples, epoch):
            grad = at.examples.batch(indices).value_and_grad(theta).grad
            if weight_decay:
                grad = grad + weight_decay * theta
            if mean is not None:
                mean = momentum * mean + grad
                grad = grad + momentum * mean if nesterov else mean
            theta = theta - step_size * grad
        return at.theta - theta, epoch + 1 if mean is None else (epoch + 1, mean)

    def geometry(_at: Iterate, _state: State) -> Geometry:
        return Geometry(number / step_size - weight_decay)

    def minibatches(n_examples: int, epoch: int) -> Sequence[Tensor]:
        generator = np.random.default_rng([seed, 0 if order == "fixed" else epoch])
        if order == "replacement":
            size = (-(-n_examples // batch_size), batch_size)
            return list(torch.from_numpy(generator.integers(n_examples, size=size)))
        return torch.split(torch.from_numpy(generator.permutation(n_examples)), batch_size)

    formula = f"{number:.4g}/η" + (" − λ" if weight_decay else "")
    return Optimizer(init, update, geometry, formula, minibatches, spans_gradients=not weight_decay)

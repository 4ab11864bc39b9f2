"""Curvature of the loss of a minibatch along its own gradient (Andreyev, Beneventano 2024, arXiv 2412.20553)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import TYPE_CHECKING, Annotated

import numpy as np

from eosrepro.core.along import dot
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Optimizer, Position, Seed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BatchSharpness:
    """At one θ, with gradient g_B and Hessian H_B of the loss on a minibatch B. NaN where every g_B is 0."""

    step: int
    batch_sharpness: float  # E_B[⟨g_B, H_B g_B⟩ / ‖g_B‖²], the mean of the ratios
    batch_sharpness_se: float  # its standard error; 0 over all examples at once, NaN of one minibatch
    batch_sharpness_draws: int  # minibatches that the mean is over


def batch_sharpness(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    batch_size: Annotated[int, AtLeast(1)] | None = None,
    sample: Annotated[int, AtLeast(2)] | None = None,
    seed: Seed = 0,
) -> Iterator[BatchSharpness]:
    """The mean over minibatches of the curvature of the loss of each along its own gradient.

    They are those of the epoch that starts at the snapshot, and of a method without minibatches the one of all
    examples: then it is the curvature along the gradient. The last minibatch of an epoch is left out where it is
    smaller than the others, as its expectation is another one; so is one whose gradient is 0, where there is no ratio.
    The standard error is that of independent draws. (The minibatches of an epoch share no example: its mean may
    scatter less.)

    Args:
        batch_size: random minibatches of so many examples instead, drawn one by one. With as many as there are or more,
            all examples at once.
        sample: the number of minibatches; None: as many as an epoch has. Of the method's own there are no more.
        seed: of the random minibatches.
    """
    for step, theta, _state in snapshots:
        batches = _batches(objective.n_examples, step, optimizer, batch_size, sample, seed)
        parts = [objective] if batches is None else map(objective.batch, batches)
        ratios = np.array([ratio for part in parts if not isnan(ratio := _along_gradient(part, theta))])
        n = len(ratios)
        error = ratios.std(ddof=1) / sqrt(n) if n > 1 else nan if batches else 0.0
        yield BatchSharpness(step, ratios.mean().item() if n else nan, float(error), n)


def _batches(
    n_examples: int, step: int, optimizer: Optimizer, batch_size: int | None, sample: int | None, seed: int
) -> Sequence[Tensor] | None:
    """Indices of the examples of each minibatch, all of one size; None: the one of all examples."""
    if batch_size is None:
        own = optimizer.minibatches(n_examples, step) if optimizer.minibatches else None
        return own and [each for each in own if len(each) == len(own[0])][:sample]
    if batch_size >= n_examples:
        return None
    generator = np.random.default_rng([seed, step])
    draws = (generator.choice(n_examples, batch_size, replace=False) for _ in range(sample or n_examples // batch_size))
    return [torch.from_numpy(draw) for draw in draws]


def _along_gradient(part: Objective, theta: Tensor) -> float:
    """⟨g, Hg⟩/‖g‖²; NaN where g is 0."""
    hvp = part.hvp(theta)
    sq_norm = dot(hvp.grad, hvp.grad)
    return dot(hvp.grad, hvp(hvp.grad)) / sq_norm if sq_norm else nan

"""Relative progress of a random minibatch step, and what eq. 5.1 says it is (Experiments 7-9 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import TYPE_CHECKING, Annotated

import numpy as np

from eosrepro.core.along import dot, minibatch_steps
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Position

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ExpectedProgress:
    """Both sides of eq. 5.1 at one θ, f and ∇f being over all examples and g over a random minibatch.

    NaN where ∇f = 0; of E[RP] also where the losses are too coarse for RP.
    """

    step: int
    expected_relative_progress: float  # E[RP] = (E f(θ − ηg) − f(θ)) / (η‖∇f‖²)
    expected_relative_progress_se: float  # standard error; 0 over all minibatches of an epoch of each example once
    predicted_expected_progress: float  # −1 + E⟨g, ∇f(θ) − ∇f(θ − ηg)⟩ / (2‖∇f‖²), the right side of eq. 5.1
    predicted_expected_progress_se: float
    gradient_noise: float  # E‖g − ∇f‖² / ‖∇f‖²
    minibatches: int  # that the expectations were taken over


def expected_progress(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    step_size: float,
    minibatches: Callable[[int, int], Sequence[Tensor]],
    sample: Annotated[int, AtLeast(2)] | None = None,
) -> Iterator[ExpectedProgress]:
    """E over the minibatches of the epoch that starts at the snapshot, each weighted by its number of examples.

    All of them are enumerated. Where they hold each example once, E g = ∇f exactly, and the standard errors are 0. With
    `sample`, the first so many are taken: a random sample without replacement, since the examples are shuffled.
    Minibatches that are drawn with replacement are a sample of all that could be drawn.

    Args:
        minibatches: (number of examples, epoch) → indices of its minibatches, from the optimizer.
        sample: number of minibatches; None: all.
    """
    for step, theta, _state in snapshots:
        here = objective.value_and_grad(theta)
        sq_norm = dot(here.grad, here.grad)
        batches = minibatches(objective.n_examples, step)
        chosen = batches[:sample]
        steps = list(minibatch_steps(objective, theta, here.grad, chosen, step_size=step_size))
        weights = np.array([each.weight for each in steps])
        promised = step_size * sq_norm
        progress = np.array([objective.relative_progress(here, each.next_loss, promised) for each in steps])
        bends = _over(2 * sq_norm, [each.grad_dot_full - each.grad_dot_next_full for each in steps])
        noise = _over(sq_norm, [each.grad_sq_norm - 2 * each.grad_dot_full + sq_norm for each in steps])
        share = len(chosen) / len(batches) if _holds_each_once(batches, objective.n_examples) else 0.0
        yield ExpectedProgress(
            step=step,
            expected_relative_progress=float(np.average(progress, weights=weights)),
            expected_relative_progress_se=_standard_error(progress, weights, share),
            predicted_expected_progress=float(np.average(bends, weights=weights)) - 1,
            predicted_expected_progress_se=_standard_error(bends, weights, share),
            gradient_noise=float(np.average(noise, weights=weights)),
            minibatches=len(steps),
        )


def _holds_each_once(batches: Sequence[Tensor], n_examples: int) -> bool:
    return bool((torch.cat(list(batches)).bincount(minlength=n_examples) == 1).all())


def _over(denominator: float, values: Sequence[float]) -> np.ndarray:
    return np.array(values) / (denominator or nan)


def _standard_error(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Of the weighted mean of a sample that is this share of its population: 1 for all of it, 0 of an infinite one.

    (Cochran, Sampling Techniques, 3rd ed., eq. 6.13: the mean is a ratio of two sums.)
    """
    n = len(values)
    if share == 1 or n < 2:
        return 0.0
    deviations = weights / weights.mean() * (values - np.average(values, weights=weights))
    return sqrt((1 - share) * float((deviations**2).sum()) / (n * (n - 1)))

"""What the sharpness is by the two-step laws of methods that do not come to rest."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

from eosrepro.core.along import dot
from eosrepro.core.types import Visited


@dataclass(frozen=True)
class TwoStep:
    """Of θ_t and θ_{t+1}, in the unit of the sharpness, loss/θ²."""

    # (2/η)[√f(θ_t) + √f(θ_{t+1})], η being that of a step −η∇√f; NaN where f ≤ 0 or ∇f = 0
    sharpness_by_sqrt_loss: float
    # [‖∇f(θ_t)‖ + ‖∇f(θ_{t+1})‖]/η, η being that of a step −η∇f/‖∇f‖: its length; NaN where it is 0
    sharpness_by_grad_norm: float


def two_step(here: Visited, following: Visited) -> TwoStep:
    """Near a valley, along the top eigenvector, both are λ_max (Arora, Li, Panigrahi 2022, arXiv 2205.09745).

    The first is about gradient descent on √f, the second about normalised gradient descent, whose stableness S_t =
    ηλ_max/‖∇f(θ_t)‖ then has 1/S_t + 1/S_{t+1} = 1. Both alternate, and their sums over two steps do not.
    """
    step = here.theta - following.theta
    length, slopes = sqrt(dot(step, step)), [sqrt(dot(at.grad, at.grad)) for at in (here, following)]
    step_size = 2 * sqrt(here.loss) * length / slopes[0] if here.loss > 0 and slopes[0] else 0
    roots = sqrt(max(here.loss, 0)) + sqrt(max(following.loss, 0))
    return TwoStep(2 * roots / step_size if step_size else nan, sum(slopes) / length if length else nan)

"""Gradient descent on the square root of the loss."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from eosrepro.core.later import torch
from eosrepro.core.types import Geometry, Iterate, Optimizer
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def sqrt_loss_gd(step_size: float) -> Optimizer:
    """θ_{t+1} = θ_t − η∇√f(θ_t) = θ_t − η∇f/(2√f): gradient descent with P = 2√f.

    On a quadratic with the minimum 0, along its top eigenvector, it comes nearer while λ_max(∇²f)/(2√f) < 2/η. Near
    the minimum it alternates with √f(θ_t) + √f(θ_{t+1}) = ηλ_max/2 (Arora, Li, Panigrahi 2022, arXiv 2205.09745).
    """

    def init(_theta: Tensor) -> None:
        return None

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        return step_size * at.grad / _slope(at), state

    def geometry(at: Iterate, _state: None) -> Geometry:
        return Geometry(2 / step_size, _slope(at))

    return Optimizer(init, update, geometry, threshold_formula="2/η", preconditioned=True, spans_gradients=True)


def _slope(at: Iterate) -> float:
    """2√f; a positive number even at a minimum.

    Raises:
        ConfigError: f is negative.
    """
    if at.loss < 0:
        raise ConfigError(f"f is {at.loss:g}, and sqrt_loss_gd takes its root: give it a loss that is never negative")
    return max(2 * sqrt(at.loss), torch.finfo(at.grad.dtype).tiny)

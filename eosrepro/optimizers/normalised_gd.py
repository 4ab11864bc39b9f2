"""Normalised gradient descent: every step has the same length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Geometry, Iterate, Optimizer
from eosrepro.optimizers._norms import norm

if TYPE_CHECKING:
    from torch import Tensor


def normalised_gd(step_size: float) -> Optimizer:
    """θ_{t+1} = θ_t − η∇f/‖∇f‖: gradient descent with P = ‖∇f‖.

    On a quadratic along its top eigenvector it comes nearer to the minimum while λ_max/‖∇f‖ < 2/η: while the
    stableness ηλ_max/‖∇f‖ of Arora, Li, Panigrahi (2022, arXiv 2205.09745) is below 2.
    """

    def init(_theta: Tensor) -> None:
        return None

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        return step_size * at.grad / norm(at.grad), state

    def geometry(at: Iterate, _state: None) -> Geometry:
        return Geometry(2 / step_size, norm(at.grad))

    return Optimizer(init, update, geometry, threshold_formula="2/η", preconditioned=True, spans_gradients=True)

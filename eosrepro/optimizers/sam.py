"""Sharpness-aware minimisation."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Annotated

from eosrepro.core.types import Above, Geometry, Iterate, Optimizer
from eosrepro.optimizers._norms import norm

if TYPE_CHECKING:
    from torch import Tensor


def sam(step_size: float, *, rho: Annotated[float, Above(0)] = 0.05) -> Optimizer:
    """θ ← θ − η∇f(θ + ρ∇f/‖∇f‖), the gradients of all examples. It keeps no state.

    Its edge (Long, Bartlett 2024, arXiv 2309.12488) depends on the gradient: the sharpness λ at which
    ηλ(1 + ρλ/‖∇f‖) = 2. Below it a step along the top eigenvector of a quadratic comes nearer to the minimum.
    """

    def init(_theta: Tensor) -> None:
        return None

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        ahead = at.theta + (rho / norm(at.grad)) * at.grad
        return step_size * at.examples.value_and_grad(ahead).grad, state

    def geometry(at: Iterate, _state: None) -> Geometry:
        size = norm(at.grad)
        return Geometry(size / (2 * rho) * (sqrt(1 + 8 * rho / (step_size * size)) - 1))

    return Optimizer(init, update, geometry, threshold_formula="SAM edge", spans_gradients=True)

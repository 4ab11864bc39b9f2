"""Gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from eosrepro.core.types import AtLeast, Geometry, Iterate, Optimizer

if TYPE_CHECKING:
    from torch import Tensor


def gd(step_size: float, *, weight_decay: Annotated[float, AtLeast(0)] = 0.0) -> Optimizer:
    """θ_{t+1} = θ_t − η(∇f(θ_t) + λθ_t). It keeps no state.

    The decay λ is of ½λ‖θ‖² in the loss, or decoupled from it: for GD they are the same. f is the loss without it, and
    so is the sharpness: stable on a quadratic while λ_max(∇²f) < 2/η − λ.
    """

    def init(_theta: Tensor) -> None:
        return None

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        grad = at.grad + weight_decay * at.theta if weight_decay else at.grad
        return step_size * grad, state

    def geometry(_at: Iterate, _state: None) -> Geometry:
        return Geometry(2 / step_size - weight_decay)

    formula = "2/η − λ" if weight_decay else "2/η"
    return Optimizer(init, update, geometry, threshold_formula=formula, spans_gradients=not weight_decay)

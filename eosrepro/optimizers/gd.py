"""Gradient descent with a constant step size."""

from __future__ import annotations

from torch import Tensor

from eosrepro.core.types import Geometry, Iterate, Optimizer


def gd(step_size: float) -> Optimizer:
    """θ_{t+1} = θ_t − η∇f(θ_t). It keeps no state."""

    def init(_theta: Tensor) -> None:
        return None

    def update(at: Iterate, state: None) -> tuple[Tensor, None]:
        return step_size * at.grad, state

    def geometry(_state: None, _grad: Tensor) -> Geometry:
        return Geometry(2 / step_size)

    return Optimizer(init, update, geometry, threshold_formula="2/η")

"""Gradient flow, dθ/dt = −∇f(θ), by the classical Runge-Kutta method."""

from __future__ import annotations

from math import ceil, isfinite, nan
from typing import TYPE_CHECKING, Annotated

from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.types import Above, Geometry, Iterate, Optimizer

if TYPE_CHECKING:
    from torch import Tensor

RTOL = 0.05  # of the sharpness that sets the length of the steps
WEIGHT_OF_RANDOM = 0.1  # beside the top eigenvector of the iteration before, where a solve starts


def gradient_flow(step_size: float, *, alpha: Annotated[float, Above(0)] = 1.0) -> Optimizer:
    """The flow over a time η an iteration: at equal iterations it is at the time of gradient descent with that η.

    An iteration is cut into equal Runge-Kutta steps of at most α/λ_max(∇²f(θ_t)) (Cohen et al. 2021, appendix). It has
    no stability threshold. The state is the top eigenvector, from which the next solve starts.
    """

    def init(theta: Tensor) -> Tensor:
        return random_unit(theta, torch.Generator().manual_seed(0))

    def update(at: Iterate, start: Tensor) -> tuple[Tensor, Tensor]:
        start = start + WEIGHT_OF_RANDOM * random_unit(start, torch.Generator().manual_seed(1))
        top = top_eigenpairs(at.examples.hvp(at.theta), start, rtol=RTOL, max_products=1000)[0]
        pieces = max(1, ceil(step_size * top.value / alpha)) if isfinite(top.value) else 1
        theta, grad, time = at.theta, at.grad, step_size / pieces
        for piece in range(pieces):
            grad = at.examples.value_and_grad(theta).grad if piece else grad
            theta = theta - time * _slope(at, theta, grad, time)
        return at.theta - theta, top.vector

    def geometry(_at: Iterate, _state: Tensor) -> Geometry:
        return Geometry(nan)

    return Optimizer(init, update, geometry, threshold_formula="", spans_gradients=True)


def _slope(at: Iterate, theta: Tensor, first: Tensor, time: float) -> Tensor:
    """The mean of ∇f over a Runge-Kutta step from θ, where it is `first`."""

    def after(part: float, slope: Tensor) -> Tensor:
        return at.examples.value_and_grad(theta - part * time * slope).grad

    second = after(0.5, first)
    third = after(0.5, second)
    return (first + 2 * second + 2 * third + after(1.0, third)) / 6

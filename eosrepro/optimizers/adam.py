"""Adam, in torch's conventions."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Annotated, TypeAlias

from eosrepro.core.later import torch
from eosrepro.core.types import Above, Geometry, Iterate, Optimizer, Share

if TYPE_CHECKING:
    from torch import Tensor

# Means of the gradient and of its square, and the number of steps taken.
Moments: TypeAlias = "tuple[Tensor, Tensor, int]"


def adam(
    step_size: float, *, beta1: Share = 0.9, beta2: Share = 0.999, eps: Annotated[float, Above(0)] = 1e-8
) -> Optimizer:
    """θ ← θ − η m̂/(√v̂ + ε), as `torch.optim.Adam`.

    With P as it is at one step, it is momentum by a moving average, preconditioned: stable on a quadratic while
    λ_max(P⁻¹∇²f) < (2 + 2β₁)/((1 − β₁)η), where P = (1 − β₁ᵗ)(√v̂ + ε) (Cohen et al. 2022, arXiv 2207.14484).
    """

    def init(theta: Tensor) -> Moments:
        return torch.zeros_like(theta), torch.zeros_like(theta), 0

    def moved(state: Moments, grad: Tensor) -> Moments:
        mean, square, steps = state
        return beta1 * mean + (1 - beta1) * grad, beta2 * square + (1 - beta2) * grad.square(), steps + 1

    def preconditioner(square: Tensor, steps: int) -> Tensor:
        return (1 - beta1**steps) * (square.sqrt() / sqrt(1 - beta2**steps) + eps)

    def update(at: Iterate, state: Moments) -> tuple[Tensor, Moments]:
        mean, square, steps = moved(state, at.grad)
        return step_size * mean / preconditioner(square, steps), (mean, square, steps)

    def geometry(at: Iterate, state: Moments) -> Geometry:
        _, square, steps = moved(state, at.grad)
        return Geometry(number / step_size, preconditioner(square, steps))

    number = (2 + 2 * beta1) / (1 - beta1)
    return Optimizer(init, update, geometry, threshold_formula=f"{number:.4g}/η", preconditioned=True)

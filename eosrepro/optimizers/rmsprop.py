"""RMSProp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from eosrepro.core.later import torch
from eosrepro.core.types import Above, Geometry, Iterate, Optimizer, Share

if TYPE_CHECKING:
    from torch import Tensor

Moments: TypeAlias = "tuple[Tensor, int]"  # the moving mean of squared gradients, and the steps taken


def rmsprop(
    step_size: float,
    *,
    beta2: Share = 0.99,
    eps: Annotated[float, Above(0)] = 1e-8,
    bias_correction: bool = False,
) -> Optimizer:
    """θ ← θ − η∇f/(√ν + ε), ν ← β₂ν + (1 − β₂)(∇f)², as `torch.optim.RMSprop` with α = β₂.

    With P = √ν + ε as it is at one step it is gradient descent, preconditioned: stable on a quadratic while
    λ_max(P⁻¹∇²f) < 2/η (Cohen et al. 2022, arXiv 2207.14484).

    Args:
        bias_correction: ν/(1 − β₂ᵗ) in place of ν, as in Cohen et al. (2025, arXiv 2410.24206), and not in PyTorch.
    """

    def init(theta: Tensor) -> Moments:
        return torch.zeros_like(theta), 0

    def moved(grad: Tensor, state: Moments) -> tuple[Tensor, Moments]:
        square, steps = beta2 * state[0] + (1 - beta2) * grad.square(), state[1] + 1
        unbiased = square / (1 - beta2**steps) if bias_correction else square
        return unbiased.sqrt() + eps, (square, steps)

    def update(at: Iterate, state: Moments) -> tuple[Tensor, Moments]:
        preconditioner, state = moved(at.grad, state)
        return step_size * at.grad / preconditioner, state

    def geometry(at: Iterate, state: Moments) -> Geometry:
        return Geometry(2 / step_size, moved(at.grad, state)[0])

    return Optimizer(init, update, geometry, threshold_formula="2/η", preconditioned=True)

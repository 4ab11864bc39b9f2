"""RMSProp with one number for all parameters."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from eosrepro.core.later import torch
from eosrepro.core.types import Geometry, Iterate, Optimizer, Share
from eosrepro.optimizers._norms import norm

if TYPE_CHECKING:
    from torch import Tensor

Moments = tuple[float, int]  # the moving mean of ‖∇f‖², and the steps taken


def scalar_rmsprop(step_size: float, *, beta2: Share = 0.99, bias_correction: bool = True) -> Optimizer:
    """θ ← θ − η∇f/√ν, ν ← β₂ν + (1 − β₂)‖∇f‖² (Cohen et al. 2025, arXiv 2410.24206).

    It is gradient descent with P = √ν: stable on a quadratic while λ_max/√ν < 2/η.

    Args:
        bias_correction: ν/(1 − β₂ᵗ) in place of ν.
    """

    def init(_theta: Tensor) -> Moments:
        return 0.0, 0

    def moved(grad: Tensor, state: Moments) -> tuple[float, Moments]:
        square, steps = beta2 * state[0] + (1 - beta2) * norm(grad) ** 2, state[1] + 1
        unbiased = square / (1 - beta2**steps) if bias_correction else square
        return max(sqrt(unbiased), torch.finfo(grad.dtype).tiny), (square, steps)

    def update(at: Iterate, state: Moments) -> tuple[Tensor, Moments]:
        preconditioner, state = moved(at.grad, state)
        return step_size * at.grad / preconditioner, state

    def geometry(at: Iterate, state: Moments) -> Geometry:
        return Geometry(2 / step_size, moved(at.grad, state)[0])

    return Optimizer(init, update, geometry, threshold_formula="2/η", preconditioned=True, spans_gradients=True)

"""Gradient descent with momentum: Polyak's, Nesterov's, or a moving average of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Geometry, Iterate, Optimizer, Share

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["polyak", "nesterov", "ema"]


def edge(kind: Kind, beta: float) -> float:
    """η times the stability threshold, without weight decay."""
    return (2 + 2 * beta) / {"polyak": 1.0, "nesterov": 1 + 2 * beta, "ema": 1 - beta}[kind]


def momentum(
    step_size: float,
    *,
    kind: Kind = "polyak",
    beta: Share = 0.9,
    weight_decay: Annotated[float, AtLeast(0)] = 0.0,
) -> Optimizer:
    """Steps along m of all examples, with g = ∇f(θ) + λθ.

    Args:
        kind: `polyak`: m ← βm + g, θ ← θ − ηm, as `torch.optim.SGD`; stable on a quadratic while the sharpness is
            below (2 + 2β)/η − λ. `nesterov`: the same m, θ ← θ − η(g + βm), as `torch.optim.SGD(nesterov=True)`;
            below (2 + 2β)/((1 + 2β)η) − λ. `ema`: m ← βm + (1 − β)g, θ ← θ − ηm; below (2 + 2β)/((1 − β)η) − λ.
            (Cohen et al. 2021, arXiv 2103.00065, and 2022, arXiv 2207.14484.)
        weight_decay: λ, coupled: a part of the gradient, as PyTorch has it.
    """
    fresh, number = 1 - beta if kind == "ema" else 1.0, edge(kind, beta)

    def init(theta: Tensor) -> Tensor:
        return torch.zeros_like(theta)

    def update(at: Iterate, mean: Tensor) -> tuple[Tensor, Tensor]:
        grad = at.grad + weight_decay * at.theta if weight_decay else at.grad
        mean = beta * mean + fresh * grad
        return step_size * (grad + beta * mean if kind == "nesterov" else mean), mean

    def geometry(_at: Iterate, _mean: Tensor) -> Geometry:
        return Geometry(number / step_size - weight_decay)

    formula = f"{number:.4g}/η" + (" − λ" if weight_decay else "")
    return Optimizer(init, update, geometry, threshold_formula=formula, spans_gradients=not weight_decay)

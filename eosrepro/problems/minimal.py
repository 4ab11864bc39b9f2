"""A scalar network of several layers that is to be 1 (the minimalist example of Zhu et al. 2023, arXiv 2210.03294)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def minimal() -> Function:
    """f(θ) = ½(1 − θ₁θ₂θ₃θ₄)², of as many numbers as the start has; the paper takes four, with θ₁ = θ₂ and θ₃ = θ₄.

    At a minimum the sharpness is Σ_i 1/θ_i². With θ = (x, x, z, z), where xz = 1 there, it is 2/η where
    (x² − z²)² = 1/η² − 4: close to where gradient descent ends that began at a sharper one.
    """

    def f(theta: Tensor) -> Tensor:
        return (1 - theta.prod(-1)).square() / 2

    return f


def takes(numbers: int) -> bool:
    return numbers > 0

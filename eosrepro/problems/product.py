"""A valley of minima whose curvature varies along it (Example 3, left, of Ahn et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def product() -> Function:
    """f(θ) = (θ₁θ₂)². On the valley θ₂ = 0 the sharpness is 2θ₁²."""

    def f(theta: Tensor) -> Tensor:
        return theta.prod(-1).square()

    return f


def takes(numbers: int) -> bool:
    return numbers > 0

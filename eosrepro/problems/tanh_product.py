"""A valley of minima with bounded walls (Example 3, right, of Ahn et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def tanh_product() -> Function:
    """f(θ) = (θ₁ tanh θ₂)². On the valley θ₂ = 0 the sharpness is 2θ₁²."""

    def f(theta: Tensor) -> Tensor:
        first, second = theta.unbind(-1)
        return (first * second.tanh()).square()

    return f


def takes(numbers: int) -> bool:
    return numbers == 2

"""A valley that widens towards its middle (Arora, Li, Panigrahi 2022, arXiv 2205.09745)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def valley() -> Function:
    """f(θ) = (1 + θ₁²) θ₂². On the valley θ₂ = 0 the sharpness is 2(1 + θ₁²), and least at θ₁ = 0."""

    def f(theta: Tensor) -> Tensor:
        first, second = theta.unbind(-1)
        return (1 + first.square()) * second.square()

    return f


def takes(numbers: int) -> bool:
    return numbers == 2

"""A quadratic under a tanh (Example 2, right, of Ahn et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def tanh_quadratic(*, curvatures: tuple[float, ...] = (20.0, 1.0)) -> Function:
    """f(θ) = tanh(Σ_i c_i θ_i²): as the quadratic near 0, and flat far from it."""

    def f(theta: Tensor) -> Tensor:
        return (theta.square() @ theta.new_tensor(curvatures)).tanh()

    return f


def takes(numbers: int, *, curvatures: tuple[float, ...] = (20.0, 1.0)) -> bool:
    return numbers == len(curvatures)

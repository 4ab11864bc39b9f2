"""A quadratic (Examples 1, 2 and 4 of Ahn et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.types import Function

if TYPE_CHECKING:
    from torch import Tensor


def quadratic(*, curvatures: tuple[float, ...] = (20.0, 1.0)) -> Function:
    """f(θ) = Σ_i c_i θ_i², so the Hessian is diag(2 c). The defaults give 20θ₁² + θ₂², with sharpness 40."""

    def f(theta: Tensor) -> Tensor:
        return theta.square() @ theta.new_tensor(curvatures)

    return f


def takes(numbers: int, *, curvatures: tuple[float, ...] = (20.0, 1.0)) -> bool:
    return numbers == len(curvatures)

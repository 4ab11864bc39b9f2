"""A linear network with one hidden layer and one example (Lewkowycz et al. 2020, arXiv 2003.02218)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from eosrepro.core.types import AtLeast, Function

if TYPE_CHECKING:
    from torch import Tensor


def catapult(*, width: Annotated[int, AtLeast(1)] = 1) -> Function:
    """f(θ) = z²/2 with the output z = ⟨u, v⟩/√n of a network of width n; the first half of θ is u, the other v.

    Under gradient descent z and λ = (‖u‖² + ‖v‖²)/n, the neural tangent kernel, follow
    z⁺ = (1 − ηλ + η²z²/n) z and λ⁺ = λ + (η/n)(ηλ − 4) z², and nothing else of the weights counts. So a start of two
    numbers, [u, v] with u² + v² = nλ₀ and uv = √n z₀, gives the loss of any network of width n with this z₀ and λ₀, and
    its sharpness. A network drawn at random has λ₀ = 2 and z₀ = ±1, about.
    """

    def f(theta: Tensor) -> Tensor:
        first, second = theta.reshape(*theta.shape[:-1], 2, -1).unbind(-2)  # of as many numbers each
        return (first * second).sum(-1).square() / (2 * width)

    return f


def takes(numbers: int, **_options: int) -> bool:
    return numbers > 0 and numbers % 2 == 0

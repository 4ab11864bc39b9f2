"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from eosrepro.core.types import Above, AtLeast, Geometry, Iterate, Optimizer, Share
from eosrepro.optimizers.adam import Moments, adam

if TYPE_CHECKING:
    from torch import Tensor


def adamw(
    step_size: float,
    *,
    weight_decay: Annotated[float, AtLeast(0)] = 0.01,
    beta1: Share = 0.9,
    beta2: Share = 0.999,
    eps: Annotated[float, Above(0)] = 1e-8,
) -> Optimizer:
    """θ ← θ − ηλθ − η m̂/(√v̂ + ε), as `torch.optim.AdamW`.

    With P as it is at one step, it is stable on a quadratic while λ_max(P⁻¹∇²f) < (2 − ηλ)(1 + β₁)/((1 − β₁)η): there
    an eigenvalue of z² − (1 − ηλ − h + β₁)z + (1 − ηλ)β₁, h = η(1 − β₁)λ_max(P⁻¹∇²f), passes −1.
    """
    inner = adam(step_size, beta1=beta1, beta2=beta2, eps=eps)
    number = (2 - step_size * weight_decay) * (1 + beta1) / (1 - beta1)

    def update(at: Iterate, state: Moments) -> tuple[Tensor, Moments]:
        moved, state = inner.update(at, state)
        return moved + step_size * weight_decay * at.theta, state

    def geometry(at: Iterate, state: Moments) -> Geometry:
        return Geometry(number / step_size, inner.geometry(at, state).preconditioner)

    return inner._replace(update=update, geometry=geometry, threshold_formula="(2 − ηλ)(1 + β₁)/((1 − β₁)η)")

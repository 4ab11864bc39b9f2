"""How much longer the next step could be until the loss no longer falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Annotated

from eosrepro.core.along import dot, step_is_lost
from eosrepro.core.objective import Objective
from eosrepro.core.roots import root_between
from eosrepro.core.types import Above, AtLeast, Evaluation, Iterate, Optimizer, Position
from eosrepro.diagnostics._points import iterate_at

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 0.25  # where the search begins, as a share of the root that the curvature here foretells
GROWTH = 1.25  # from one point of the search to the next: two roots closer than that may be missed
MOST_HALVINGS = 60


@dataclass(frozen=True)
class CriticalStepSize:
    """Along the step u that the optimizer takes next from one θ."""

    step: int
    critical_step_factor: float  # c: the smallest positive with f(θ − cu) = f(θ); 0 where f rises at once
    critical_sharpness: float  # 2⟨u, ∇f⟩ / (c‖u‖²), which is 2/(cη) for gradient descent
    critical_evaluations: int  # of f


def critical_step_size(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    rtol: Annotated[float, Above(0)] = 1e-3,
    most: Annotated[float, AtLeast(1)] = 1e4,
) -> Iterator[CriticalStepSize]:
    """The multiple of the next step along which f first comes back to where it was.

    Gradient descent has the critical step size cη. On a quadratic c = 2⟨u, ∇f⟩/⟨u, ∇²f u⟩, and the critical sharpness
    is the curvature along u. In general it is a weighted mean of the curvatures from θ to θ − cu, so not above the
    greatest sharpness between them: by Taylor's theorem 2∫₀¹(1 − s) ⟨u, ∇²f(θ − scu) u⟩ ds / ‖u‖².
    The search begins at a quarter of what the quadratic here foretells, goes on in steps of a quarter to the first
    point at which f is above f(θ), and then narrows down.

    Args:
        rtol: of c.
        most: of c; where f has not come back by then, c and the critical sharpness are NaN. So they are where rounding
            leaves nothing of the step, or of what it changes in f.
    """
    for at in snapshots:
        here = iterate_at(objective, at)
        update, _ = optimizer.update(here, at.state)
        yield _found(objective, at.step, here, update, rtol, most)


def _found(
    objective: Objective, step: int, here: Iterate, update: Tensor, rtol: float, most: float
) -> CriticalStepSize:
    slope, sq_norm = dot(update, here.grad), dot(update, update)
    coarse = isnan(objective.relative_progress(Evaluation(here.loss, here.grad), here.loss, slope))
    if not sq_norm or step_is_lost(here.theta, update) or coarse:
        return CriticalStepSize(step, nan, nan, 0)
    if slope < 0:
        return CriticalStepSize(step, 0.0, nan, 0)
    evaluations = 0

    def rise(factor: float) -> float:
        nonlocal evaluations
        evaluations += 1
        return objective.loss(here.theta - factor * update) - here.loss

    bend = dot(update, objective.hvp(here.theta)(update))
    bracket = _bracket(rise, min(FIRST * 2 * slope / bend, most) if bend > 0 else FIRST, most)
    factor = root_between(rise, *bracket, rtol=rtol) if bracket else nan
    return CriticalStepSize(step, factor, 2 * slope / (factor * sq_norm), evaluations)


def _bracket(rise: Callable[[float], float], first: float, most: float) -> tuple[float, float] | None:
    """Two points about the first root beyond the origin: f is below f(θ) at one, and above at the other."""
    low, value = first, rise(first)
    for _ in range(MOST_HALVINGS):
        if value < 0:
            break
        low, value = low / 2, rise(low / 2)
    if not value < 0:
        return None
    while low < most:
        high = min(GROWTH * low, most)
        if not isfinite(value := rise(high)):
            return None
        if value >= 0:
            return low, high
        low = high
    return None

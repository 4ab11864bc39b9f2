"""Step sizes that change along a run, for any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

from eosrepro.core.steps import step as take
from eosrepro.core.types import Geometry, Iterate, Optimizer

if TYPE_CHECKING:
    from torch import Tensor


def share_of(step: int, *, warm_up: int, drops: Mapping[int, float]) -> float:
    """The step size at an iteration, as a share of η: in the warm-up it rises to η, and each drop is a share of η."""
    last = max((at for at in drops if at <= step), default=None)
    rising = (step + 1) / warm_up if step < warm_up else 1.0
    return rising * (1.0 if last is None else drops[last])


def times(step_size: Fraction, steps: int, factor: Callable[[int], float] | None = None) -> list[Fraction]:
    """The time of gradient flow at the iterations 0 to `steps`: the sum of the step sizes before each, exactly."""
    shares = repeat(1.0, steps) if factor is None else map(factor, range(steps))
    return [step_size * share for share in accumulate(map(Fraction, shares), initial=Fraction(0))]


def scheduled(make: Callable[[float], Optimizer], factor: Callable[[int], float]) -> Optimizer:
    """The optimizer `make(factor(t))` at iteration t, whose state is handed on from one step size to the next.

    The state is t and that of the optimizer, which must not hang on the step size: none of PyTorch's does.
    """
    first = make(factor(0))

    def init(theta: Tensor) -> tuple[int, Any]:
        return 0, first.init(theta)

    def update(at: Iterate, state: tuple[int, Any]) -> tuple[Tensor, tuple[int, Any]]:
        step, inner = state
        moved, inner = take(make(factor(step)), at, inner)
        return moved, (step + 1, inner)

    def geometry(at: Iterate, state: tuple[int, Any]) -> Geometry:
        step, inner = state
        return make(factor(step)).geometry(at, inner)

    formula = first.threshold_formula.replace("η", "ηₜ")
    return first._replace(init=init, update=update, geometry=geometry, threshold_formula=formula)

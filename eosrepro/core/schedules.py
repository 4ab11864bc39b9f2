"""Step sizes that change along a run, for any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from eosrepro.core.types import Geometry, Iterate, Optimizer


def scheduled(make: Callable[[float], Optimizer], factor: Callable[[int], float]) -> Optimizer:
    """The optimizer `make(factor(t))` at iteration t, whose state is handed on from one step size to the next.

    The state is t and that of the optimizer, which must not hang on the step size: none of PyTorch's does.
    """
    first = make(factor(0))

    def init(theta: Tensor) -> tuple[int, Any]:
        return 0, first.init(theta)

    def update(at: Iterate, state: tuple[int, Any]) -> tuple[Tensor, tuple[int, Any]]:
        step, inner = state
        moved, inner = make(factor(step)).update(at, inner)
        return moved, (step + 1, inner)

    def geometry(at: Iterate, state: tuple[int, Any]) -> Geometry:
        step, inner = state
        return make(factor(step)).geometry(at, inner)

    formula = first.threshold_formula.replace("η", "ηₜ")
    return first._replace(init=init, update=update, geometry=geometry, threshold_formula=formula)

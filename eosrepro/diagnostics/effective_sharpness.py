"""Effective sharpness: the largest eigenvalues of the Hessian in the geometry of the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Optimizer, Position, Rtol, Seed
from eosrepro.diagnostics import sharpness
from eosrepro.diagnostics._points import iterate_at


def effective_sharpness(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    k: Annotated[int, AtLeast(1)],
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    audit_every: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[dict[str, Any]]:
    """The k largest eigenvalues of P^-½ ∇²f P^-½ at each snapshot, P as the optimizer has it for its next step.

    All else is as in `sharpness`, and so are the columns, with `effective_` before their names. For a method without
    preconditioner it is the sharpness.
    """

    def point(at: Position) -> sharpness.Point:
        geometry = optimizer.geometry(iterate_at(objective, at), at.state)
        return sharpness.Point(at.step, at.theta, geometry.preconditioner)

    for row in sharpness.solved(objective, map(point, snapshots), k, rtol, max_products, audit_every, seed):
        yield {key if key == "step" else f"effective_{key}": value for key, value in row.items()}


def columns(**options: Any) -> list[str]:
    """What is found beside the step."""
    return [f"effective_{name}" for name in sharpness.columns(**options)]

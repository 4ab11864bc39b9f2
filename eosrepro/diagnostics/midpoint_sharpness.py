"""Sharpness half-way between two iterates, in the geometry of the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Optimizer, Position, Rtol, Seed
from eosrepro.diagnostics import sharpness
from eosrepro.diagnostics._points import iterate_at


def midpoint_sharpness(
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
    """The k largest eigenvalues of P^-½ ∇²f P^-½ at (θ_t + θ_{t+1})/2, P as the optimizer has it for that step.

    Past the edge the iterates alternate about the valley floor, and the sharpness at its sides is 10 to 20 % above
    that of the floor, which is what the threshold is about (Cohen et al. 2025, arXiv 2410.24206). All else is as in
    `effective_sharpness`, and so are the columns, with `midpoint_` before their names.
    """

    def point(at: Position) -> sharpness.Point:
        here = iterate_at(objective, at)
        update, _ = optimizer.update(here, at.state)
        return sharpness.Point(at.step, at.theta - update / 2, optimizer.geometry(here, at.state).preconditioner)

    for row in sharpness.solved(objective, map(point, snapshots), k, rtol, max_products, audit_every, seed):
        yield {key if key == "step" else f"midpoint_{key}": value for key, value in row.items()}


def columns(**options: Any) -> list[str]:
    """What is found beside the step."""
    return [f"midpoint_{name}" for name in sharpness.columns(**options)]

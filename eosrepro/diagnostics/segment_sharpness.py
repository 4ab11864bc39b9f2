"""Sharpness along the next step, and its lower bound by relative progress (Corollary 1 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Annotated

from eosrepro.core.along import dot, step_is_lost
from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Evaluation, Iterate, Optimizer, Position, Rtol, Seed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_OF_RANDOM = 0.1  # in the start of a solve, beside the eigenvector at the point before
DENSITY = 0.4  # at 0, of the component of that start along the eigenvector here: it may lie in any direction of a plane


@dataclass(frozen=True)
class SegmentSharpness:
    """λ_max over points of the segment from θ to θ − u, for the step u that the optimizer takes next."""

    step: int
    segment_sharpness_max: float
    segment_sharpness_min: float
    # 2⟨u, ∇f⟩/‖u‖² (RP(θ) + 1), which is (2/η)(RP + 1) for gradient descent: by Corollary 1, whose proof holds for any
    # step, no larger than sup λ_max over the segment; NaN as RP
    segment_sharpness_bound: float
    segment_sharpness_excess: float  # of the largest over the bound
    segment_products: int  # with the Hessian, at all points together


def segment_sharpness(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    points: Annotated[int, AtLeast(2)],
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[SegmentSharpness]:
    """The sharpness at equidistant points of the step, both ends among them.

    The largest over some points is a lower bound of the supremum: where it is above the bound, the corollary is
    seen to hold; where it is below, more points may show it. Where the Hessian is not finite at one of the points, both
    extremes are NaN.

    Args:
        points: of the segment.
        rtol: largest residual of an eigenvalue, as a share of it; see `lanczos.py`.
        max_products: allowed a point.
        seed: of the random directions that solves start with.
    """
    generator = torch.Generator().manual_seed(seed)
    for step, theta, state in snapshots:
        here = objective.value_and_grad(theta)
        update, _ = optimizer.update(Iterate(theta, here.grad, objective, here.loss), state)
        found: list[float] = []
        products, start = 0, torch.zeros_like(theta)
        for index in range(points):
            start = start + WEIGHT_OF_RANDOM * random_unit(theta, generator)
            hvp = objective.hvp(theta - index / (points - 1) * update)
            density = DENSITY if index else None
            (pair,) = top_eigenpairs(hvp, start, rtol=rtol, max_products=max_products, density=density)
            found.append(pair.value)
            products, start = products + pair.products, pair.vector
            if isnan(pair.value):
                break
        most, least = (nan, nan) if isnan(found[-1]) else (max(found), min(found))
        bound = _bound(objective, theta, here, update)
        yield SegmentSharpness(step, most, least, bound, most - bound, products)


def _bound(objective: Objective, theta: Tensor, here: Evaluation, update: Tensor) -> float:
    promised, sq_norm = dot(update, here.grad), dot(update, update)
    if not sq_norm or step_is_lost(theta, update):
        return nan
    progress = objective.relative_progress(here, objective.loss(theta - update), promised)
    return 2 * promised / sq_norm * (progress + 1)

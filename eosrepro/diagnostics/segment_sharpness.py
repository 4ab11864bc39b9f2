"""Sharpness along the gradient step, and its lower bound by relative progress (Corollary 1 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from eosrepro.lanczos import random_unit, top_eigenpairs
from eosrepro.lines import dot
from eosrepro.objective import Objective
from eosrepro.types import AtLeast, Rtol, Seed

WEIGHT_OF_RANDOM = 0.1  # in the start of a solve, beside the eigenvector at the point before


@dataclass(frozen=True)
class SegmentSharpness:
    """λ_max over points of the segment from θ to θ − η∇f."""

    step: int
    segment_sharpness_max: float
    segment_sharpness_min: float
    segment_sharpness_bound: float  # (2/η)(RP(θ) + 1): by Corollary 1 no larger than sup λ_max over the segment
    segment_sharpness_excess: float  # of the largest over the bound
    segment_products: int  # with the Hessian, at all points together


def segment_sharpness(
    objective: Objective,
    snapshots: Iterable[tuple[int, Tensor]],
    *,
    step_size: float,
    points: Annotated[int, AtLeast(2)],
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[SegmentSharpness]:
    """The sharpness at equidistant points of the step, both ends among them.

    The largest over some points is a lower bound of the supremum: where it is above (2/η)(RP + 1), the corollary is
    seen to hold; where it is below, more points may show it.

    Args:
        points: of the segment.
        rtol: largest residual of an eigenvalue, as a share of it; see `lanczos.py`.
        max_products: allowed a point.
        seed: of the random directions that solves start with.
    """
    generator = torch.Generator().manual_seed(seed)
    for step, theta in snapshots:
        here = objective.value_and_grad(theta)
        found: list[float] = []
        products, start = 0, torch.zeros_like(theta)
        for index in range(points):
            start = start + WEIGHT_OF_RANDOM * random_unit(theta, generator)
            hvp = objective.hvp(theta - index / (points - 1) * step_size * here.grad)
            (pair,) = top_eigenpairs(hvp, start, rtol=rtol, max_products=max_products)
            found.append(pair.value)
            products, start = products + pair.products, pair.vector
        change = objective.loss(theta - step_size * here.grad) - here.loss
        bound = 2 / step_size * (change / (step_size * dot(here.grad, here.grad)) + 1)
        yield SegmentSharpness(step, max(found), min(found), bound, max(found) - bound, products)

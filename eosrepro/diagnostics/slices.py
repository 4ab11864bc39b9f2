"""How fast the loss rises about its minimum along a line: as the square of the distance, or slower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np

from eosrepro.core.along import along, dot
from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.roots import root_between
from eosrepro.core.types import AtLeast, Position, Rtol, Seed
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MINIMUM_RTOL = 1e-6  # of the distance of the minimum, or as near as rounding lets it come
MOST_DOUBLINGS = 40
# The least rise of f is so many times its rounding: an error of a slope of about 1 over it.
LEAST_RISE = 20


@dataclass(frozen=True)
class Slices:
    """At one θ, along its top eigenvector v₁ and along ∇f. NaN where no minimum is, or rounding hides the rise."""

    step: int
    top_slope_inner: float  # d log(f − f*) / d log s: 2 where f is quadratic, below 2 where it is subquadratic
    top_slope_outer: float
    top_minimum_distance: float  # from θ to the minimum along the line
    gradient_slope_inner: float
    gradient_slope_outer: float
    gradient_minimum_distance: float
    slices_residual: float  # ‖∇²f v₁ − λ₁v₁‖/λ₁
    slices_products: int  # with the Hessian


class _Slice(NamedTuple):
    inner: float
    outer: float
    distance: float


def slices(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    inner: tuple[float, float] = (1e-3, 1e-2),
    outer: tuple[float, float] = (0.1, 1.0),
    points: Annotated[int, AtLeast(2)] = 7,
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[Slices]:
    """Slopes of log(f − f*) over log s, f being the mean of both sides at the distance s from its minimum on the line.

    At a snapshot the gradient is not 0, so the minimum along the line is found first: the one that is downhill from θ,
    by the derivative. The mean of both sides takes out what is odd in s. (Ma, Kunin, Wu, Ying 2022, arXiv 2204.11326,
    on losses that grow slower than the square.)

    Args:
        inner: least and greatest distance s in θ of the one slope, a least-squares fit.
        outer: of the other.
        points: of each fit, equidistant in log s.
        rtol: largest residual of the top eigenpair, as a share of the eigenvalue.
        max_products: allowed for it.
        seed: of the random vectors from which it is solved.

    Raises:
        ConfigError: a range is not two increasing positive numbers.
    """
    for name, (low, high) in (("inner", inner), ("outer", outer)):
        if not 0 < low < high:
            raise ConfigError(f"slices: {name} is [{low:g}, {high:g}]: it should be two increasing positive distances")
    ranges = [np.geomspace(*each, points) for each in (inner, outer)]
    generator = torch.Generator().manual_seed(seed)
    for step, theta, _state in snapshots:
        hvp = objective.hvp(theta)
        start = random_unit(theta, generator)
        (top,) = top_eigenpairs(hvp, start, rtol=rtol, max_products=max_products)
        grad_norm = sqrt(dot(hvp.grad, hvp.grad))
        along_top = _slice(objective, theta, top.vector, abs(top.value), ranges)
        along_grad, products = _Slice(nan, nan, nan), top.products
        if grad_norm:
            direction = hvp.grad / grad_norm
            along_grad = _slice(objective, theta, direction, abs(dot(direction, hvp(direction))), ranges)
            products += 1
        residual = top.residual / abs(top.value) if top.value else top.residual
        yield Slices(step, *along_top, *along_grad, slices_residual=residual, slices_products=products)


def _slice(
    objective: Objective, theta: Tensor, direction: Tensor, curvature: float, ranges: list[np.ndarray]
) -> _Slice:
    """Both slopes along a unit vector, and the distance of the minimum from θ."""

    def slope(time: float) -> float:
        (point,) = along(objective, theta, direction, [time])
        return point.slope

    minimum = _minimum(slope, curvature)
    if not isfinite(minimum):
        return _Slice(nan, nan, nan)
    inner, outer = (_log_slope(objective, theta + minimum * direction, direction, each) for each in ranges)
    return _Slice(inner, outer, abs(minimum))


def _minimum(slope: Callable[[float], float], curvature: float) -> float:
    """Where the derivative along a line changes its sign, downhill from 0; NaN if it does not."""
    here = slope(0.0)
    if not here or not isfinite(here) or not isfinite(curvature):
        return 0.0 if here == 0 else nan
    low, high = 0.0, -here / curvature if curvature else -here
    for _ in range(MOST_DOUBLINGS):
        there = slope(high)
        if not isfinite(there):
            return nan
        if there * here <= 0:
            return root_between(slope, low, high, rtol=MINIMUM_RTOL)
        low, high = high, 2 * high
    return nan


def _log_slope(objective: Objective, centre: Tensor, direction: Tensor, distances: np.ndarray) -> float:
    """Of the mean rise of f on both sides of the centre, over the distances."""
    times = [0.0, *distances.tolist(), *(-distances).tolist()]
    least, *losses = (point.loss for point in along(objective, centre, direction, times))
    rises = np.array(losses).reshape(2, -1).mean(0) - least
    rounding = torch.finfo(centre.dtype).eps * abs(least) + objective.quantum
    if not (np.isfinite(rises).all() and (rises > LEAST_RISE * rounding).all()):
        return nan
    return float(np.polyfit(np.log(distances), np.log(rises), 1)[0])

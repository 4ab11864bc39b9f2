"""Directional smoothness L(θ; τu) along the next step u, for τ in (0, 1] (Experiment 5 of Ahn et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Annotated

import numpy as np
from numpy.polynomial import Chebyshev

from eosrepro.core.along import along, dot, step_is_lost
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, AtMost, Iterate, Optimizer, Position

NODES = (9, 17, 33)  # of one interpolation after the other, each holding those before

Values = np.ndarray  # (n,), float64


@dataclass(frozen=True)
class TauScan:
    """L over the step from one θ; NaN where there is none, or none that rounding lets θ take."""

    step: int
    directional_smoothness_mean: float  # of L over τ = 1/n, 2/n, ..., 1
    directional_smoothness_std: float
    directional_smoothness_min: float
    directional_smoothness_max: float
    relative_progress_of_step: float  # RP(θ), from the loss at both ends of the step
    relative_progress_by_integral: float  # −1 + (‖u‖²/⟨u, ∇f⟩) ∫₀¹ τ L(θ; τu) dτ, which by eq. 4.2 is RP(θ)
    slopes: int  # points of the step at which the derivative of f was computed


def tau_scan(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    n_taus: Annotated[int, AtLeast(2), AtMost(1_000_000)] = 100,
    tolerance: Annotated[float, AtLeast(0)] = 1e-4,
) -> Iterator[TauScan]:
    """Mean, spread and range of L(θ; τu) over n_taus equidistant τ up to 1, and the integral of eq. 4.2.

    u is the step that the optimizer takes next, η∇f for gradient descent. With φ(τ) = f(θ − τu),
    L(θ; τu) = (⟨u, ∇f⟩ + φ'(τ)) / (τ‖u‖²): one derivative a τ. Where the activation is smooth, so is L
    as a function of τ, and a polynomial through few Chebyshev points stands for all τ: see `_interpolant`.
    Where it is not found smooth enough, every τ is computed.

    Args:
        tolerance: largest error of an interpolated L, as a share of 2⟨u, ∇f⟩/‖u‖², which is 2/η for gradient descent;
            0: compute every τ. (A share of L itself would be out of the reach of float32 where L is near 0.)
    """
    taus = np.arange(1, n_taus + 1) / n_taus
    for step, theta, state in snapshots:
        here = objective.value_and_grad(theta)
        update, _ = optimizer.update(Iterate(theta, here.grad, objective, here.loss), state)
        promised, sq_norm = dot(update, here.grad), dot(update, update)
        if not sq_norm or step_is_lost(theta, update):
            yield TauScan(step, nan, nan, nan, nan, nan, nan, slopes=0)
            continue
        losses: dict[float, float] = {}

        def smoothness(at: Values) -> Values:
            points = along(objective, theta, update, [-tau for tau in at])  # noqa: B023 (called at once)
            losses.update({tau: point.loss for tau, point in zip(at.tolist(), points, strict=True)})  # noqa: B023
            slopes = np.array([point.slope for point in points])
            return (promised - slopes) / (at * sq_norm)  # noqa: B023

        error = tolerance * 2 * abs(promised) / sq_norm
        polynomial = _interpolant(smoothness, low=1 / n_taus, error=error) if tolerance else None
        values = polynomial(taus) if polynomial else smoothness(taus)
        yield TauScan(
            step=step,
            directional_smoothness_mean=float(values.mean()),
            directional_smoothness_std=float(values.std()),
            directional_smoothness_min=float(values.min()),
            directional_smoothness_max=float(values.max()),
            relative_progress_of_step=objective.relative_progress(here, losses[1.0], promised),
            relative_progress_by_integral=_ratio(sq_norm, promised) * _first_moment(polynomial, taus, values) - 1,
            slopes=len(losses),
        )


def _interpolant(f: Callable[[Values], Values], *, low: float, error: float) -> Chebyshev | None:
    """The polynomial through the Chebyshev points of [low, 1] of which every second was foretold to within `error`.

    They are foretold by the polynomial through the others. The points of one polynomial hold those of the one before,
    so nothing is computed twice. None: not even the largest did, as where f has kinks.
    (Trefethen, Approximation Theory and Approximation Practice, chapters 2 and 8.)
    """
    points = _points(NODES[0], low)
    values = f(points)
    for more in (*NODES[1:], None):
        foretold = Chebyshev.fit(points[::2], values[::2], len(points) // 2, domain=[low, 1])(points[1::2])
        if np.abs(foretold - values[1::2]).max() <= error:
            return Chebyshev.fit(points, values, len(points) - 1, domain=[low, 1])
        if more:
            points = _points(more, low)
            between, before = f(points[1::2]), values
            values = np.empty(more)
            values[::2], values[1::2] = before, between
    return None


def _points(n: int, low: float) -> Values:
    """n Chebyshev points of [low, 1], both ends among them."""
    points: Values = (1 + low + (1 - low) * np.cos(np.pi * np.arange(n) / (n - 1))) / 2
    points[0] = 1.0  # exactly: the loss at the end of the step is looked up by it
    return points


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else nan


def _first_moment(polynomial: Chebyshev | None, taus: Values, values: Values) -> float:
    """∫₀¹ τ L dτ: of the polynomial, or of L as linear between the τ."""
    if polynomial is None:
        return float(np.trapezoid(np.concatenate([[0.0], taus * values]), np.concatenate([[0.0], taus])))
    primitive = (polynomial * Chebyshev.fit(polynomial.domain, polynomial.domain, 1, domain=polynomial.domain)).integ()
    return float(primitive(1.0) - primitive(0.0))

"""Where a function of one number passes through zero."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, nan

MOST_STEPS = 200


def root_between(f: Callable[[float], float], low: float, high: float, *, rtol: float) -> float:
    """A root of f between two points at which it has different signs; NaN where f is not finite on the way there.

    Inverse quadratic interpolation where it can be trusted, else bisection (Chandrupatla, Advances in Engineering
    Software 28, 1997).

    Args:
        rtol: the width of the last bracket, as a share of the root.
    """
    far, newest = low, high  # the two ends of the bracket
    at_far, at_newest = f(far), f(newest)
    share = 0.5  # of the way from the newest end to the other, where f is looked at next
    for _ in range(MOST_STEPS):
        best, least = (newest, at_newest) if abs(at_newest) < abs(at_far) else (far, at_far)
        smallest = rtol * abs(best) / 2 / abs(far - newest) if far != newest else 1.0
        if not least or smallest > 0.5:
            return best
        point = newest + min(max(share, smallest), 1 - smallest) * (far - newest)
        value = f(point)
        if not isfinite(value):
            return nan
        if (value < 0) == (at_newest < 0):
            third, at_third = newest, at_newest
        else:
            third, at_third, far, at_far = far, at_far, newest, at_newest
        newest, at_newest = point, value
        place, level = (newest - far) / (third - far), (at_newest - at_far) / (at_third - at_far)
        share = 0.5
        if level**2 < place and (1 - level) ** 2 < 1 - place:
            share = at_newest / (at_far - at_newest) * at_third / (at_far - at_third)
            share += (
                (third - newest) / (far - newest) * at_newest / (at_third - at_newest) * at_far / (at_third - at_far)
            )
    return best

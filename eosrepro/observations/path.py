"""How the path of a run bends, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

from eosrepro.core.along import dot
from eosrepro.core.types import Visited


@dataclass(frozen=True)
class Path:
    """Of θ_t and θ_{t+1}."""

    distance_from_start: float  # ‖θ_t − θ_0‖
    gradient_cosine: float  # of the angle between ∇f(θ_t) and ∇f(θ_{t+1}): −1 where the gradient flips; NaN at a 0


def path(here: Visited, following: Visited) -> Path:
    """Past the edge of stability the gradient flips along the top eigenvectors, from one iteration to the next."""
    moved = here.theta - here.start
    norms = sqrt(dot(here.grad, here.grad)) * sqrt(dot(following.grad, following.grad))
    return Path(sqrt(dot(moved, moved)), dot(here.grad, following.grad) / norms if norms else nan)

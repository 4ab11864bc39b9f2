"""Distance between two runs at equal times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import nan

from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import Position
from eosrepro.errors import ConfigError


@dataclass(frozen=True)
class Distance:
    """At one iterate θ."""

    step: int
    distance: float  # ‖θ − θ'‖, θ' being where the other run is at that time; NaN where no snapshot says


def distance(
    _objective: Objective, snapshots: Iterable[Position], *, to: str, other: Callable[[int], Position | None]
) -> Iterator[Distance]:
    """How far the run is from another run of its experiment.

    Time is the sum of the step sizes so far, so that of gradient flow (Cohen et al. 2021, arXiv 2103.00065). At equal
    step sizes equal times are equal iterations; at others the iterations of equal times need a snapshot each.

    Args:
        to: name of the other run.
        other: an iteration of this run → the snapshot of the other at the same time, if there is one.

    Raises:
        ConfigError: the other run has another number of parameters.
    """
    for step, theta, _state in snapshots:
        there = other(step)
        if there is None:
            yield Distance(step, nan)
            continue
        if there.theta.shape != theta.shape:
            sizes = f"{len(theta):,} parameters, and {to} has {len(there.theta):,}"
            raise ConfigError(f"distance: the run has {sizes}: it should be one of the same model")
        yield Distance(step, torch.linalg.vector_norm(theta.double() - there.theta.to(theta).double()).item())

"""What the central flow says about the oscillations of gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eosrepro.core.objective import Objective
from eosrepro.core.types import Optimizer, Position
from eosrepro.diagnostics._points import iterate_at
from eosrepro.errors import ConfigError


@dataclass(frozen=True)
class PredictedLoss:
    """At one iterate of the central flow, whose oscillations have the covariance Σ."""

    step: int
    predicted_loss: float  # f + ½ tr(∇²f Σ), the mean of the loss of gradient descent at that time
    oscillation_variance: float  # tr Σ, the mean of its squared distance from the flow, in θ²
    at_edge: int  # eigenvalues at 2/η, along whose eigenvectors it may oscillate


def predicted_loss(
    objective: Objective, snapshots: Iterable[Position], *, optimizer: Optimizer
) -> Iterator[PredictedLoss]:
    """From the step that the flow takes next: a snapshot costs as much as an iteration of it.

    Raises:
        ConfigError: the optimizer is not `central_flow`.
    """
    if complaint := refusal(optimizer):
        raise ConfigError(complaint)
    for at in snapshots:
        _, found = optimizer.update(iterate_at(objective, at), at.state)
        yield PredictedLoss(at.step, found["predicted_loss"], found["oscillation_variance"], found["at_edge"])


def refusal(optimizer: Optimizer) -> str | None:
    """Why it is not for this optimizer, if it is not: the state of the flow holds what it finds, from the start on."""
    if optimizer.predicts_loss:
        return None
    return "predicted_loss is about the optimizer central_flow: name its runs, `of: [...]`"

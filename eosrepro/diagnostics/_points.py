"""What several diagnostics find out at a snapshot before they look at anything else."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from eosrepro.core.along import dot
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import Iterate, Position

if TYPE_CHECKING:
    from torch import Tensor


def iterate_at(objective: Objective, at: Position) -> Iterate:
    """A snapshot as its optimizer sees it."""
    here = objective.value_and_grad(at.theta)
    return Iterate(at.theta, here.grad, objective, here.loss)


def cosine(left: Tensor, right: Tensor) -> float:
    """|⟨a, b⟩| / (‖a‖‖b‖); NaN where one of them is 0."""
    norms = sqrt(dot(left, left) * dot(right, right))
    return min(abs(dot(left, right)) / norms, 1.0) if norms else torch.nan

"""What several optimizers divide by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.later import torch

if TYPE_CHECKING:
    from torch import Tensor


def norm(grad: Tensor) -> float:
    """‖∇f‖, summed in float64; a positive number even at a minimum."""
    smallest = torch.finfo(grad.dtype).tiny
    return float(max(torch.linalg.vector_norm(grad, dtype=torch.float64).item(), smallest))

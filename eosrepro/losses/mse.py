"""Squared error."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from eosrepro.core.types import Loss


def mse() -> Loss:
    """ℓ(z, y) = ½‖z − y‖², y one-hot where the targets are classes: as Cohen et al. 2021 have it (arXiv 2103.00065)."""

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = targets if targets.is_floating_point() else functional.one_hot(targets, outputs.shape[-1])
        return (outputs - wanted.to(outputs.dtype).view_as(outputs)).flatten(1).square().sum(-1) / 2

    return losses

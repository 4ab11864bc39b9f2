"""Squared error against the one-hot class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from eosrepro.core.types import Loss


def mse() -> Loss:
    """ℓ(z, y) = ½‖z − onehot(y)‖², the convention of Cohen et al. 2021 (arXiv 2103.00065)."""

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        onehot = functional.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        return (outputs - onehot).square().sum(-1) / 2

    return losses

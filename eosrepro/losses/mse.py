"""Squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from eosrepro.core.fractional import Fractional
from eosrepro.core.later import functional
from eosrepro.core.types import Loss

if TYPE_CHECKING:
    from torch import Tensor


def mse(*, factor: Annotated[float, Fractional()] = 0.5) -> Loss:
    """ℓ(z, y) = factor · ‖z − y‖², the sum over all outputs of an example; y is one-hot where the targets are classes.

    Args:
        factor: 1/2 in Cohen et al. 2021 (arXiv 2103.00065), Ahn et al. 2022 and Cohen et al. 2025; 1 in Arora, Li and
            Panigrahi 2022 and Andreyev and Beneventano 2024; 1/n_outputs, the mean over the outputs, in Long and
            Bartlett 2023. With it, their step sizes and thresholds are those that they print.
    """

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = targets if targets.is_floating_point() else functional.one_hot(targets, outputs.shape[-1])
        return factor * (outputs - wanted.to(outputs.dtype).view_as(outputs)).flatten(1).square().sum(-1)

    return losses

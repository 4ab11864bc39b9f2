"""Cross-entropy of the softmax of the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.later import functional
from eosrepro.core.types import Loss
from eosrepro.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy() -> Loss:
    """ℓ(z, y) = log Σ_c exp(z_c) − z_y, in nats; the mean of them where an example has several classes.

    Raises:
        DataError: the targets are no classes.
    """

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            raise DataError(
                "cross_entropy is of classes, and these targets are numbers: take another loss, such as mse"
            )
        each = functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
        return each.reshape(len(targets), -1).mean(-1)

    return losses

"""Logistic loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.later import functional
from eosrepro.core.types import Loss
from eosrepro.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def logistic() -> Loss:
    """ℓ(z, y) = Σ_c log(1 + exp(−y_c z_c)), y_c = ±1.

    Of numbers, y are the targets: logistic regression on labels −1 and 1 with one output. Of classes, y_c is 1 for
    the class of the example and −1 for the others, so each class is told from the rest by its own output; two classes
    have two outputs here as everywhere. Where an example has several classes, it is the mean of them.

    Raises:
        DataError: the targets are numbers other than −1 and 1.
    """

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            if (wrong := targets[targets.abs() != 1]).numel():
                raise DataError(
                    f"logistic is of classes, or of numbers −1 and 1, and a target is {wrong[0].item():g}: take "
                    "another loss, such as mse"
                )
            return -functional.logsigmoid(targets.view_as(outputs) * outputs).flatten(1).sum(-1)
        signs = 2 * functional.one_hot(targets, outputs.shape[-1]) - 1
        each: Tensor = -functional.logsigmoid(signs.to(outputs.dtype) * outputs).sum(-1)
        return each.reshape(len(targets), -1).mean(-1)

    return losses

"""A function with a gradient of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Slope(torch.autograd.Function):
    """A scalar whose gradient by `grad` is `vector`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, vector: Tensor) -> Tensor:
        ctx.vector = vector
        return grad.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _of_slope: Tensor) -> tuple[Tensor, None]:
        return ctx.vector, None

"""Product of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from eosrepro.core.types import AtLeast, AtMost
from eosrepro.models._options import Init, InitScale
from eosrepro.models.mlp import mlp

if TYPE_CHECKING:
    from torch import nn


def deep_linear(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Annotated[int, AtLeast(1)] = 50,
    depth: Annotated[int, AtLeast(0), AtMost(10_000)] = 19,
    init: Init = "xavier_normal",
    init_scale: InitScale = 1.0,
) -> nn.Module:
    """W_{depth+1} ⋯ W_1 x, with `depth` layers of `width` units between the matrices and no biases.

    The defaults on 50 inputs and outputs are the network of 20 matrices of Cohen et al. 2021 (arXiv 2103.00065).

    Args:
        init: of all matrices.
        init_scale: what they are multiplied by at the start: one number, or one a matrix.
    """
    return mlp(
        input_shape,
        n_outputs,
        width=width,
        depth=depth,
        activation="linear",
        bias=False,
        init=init,
        init_scale=init_scale,
    )

"""Vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), in the simple form of Beyer et al. 2022."""

from __future__ import annotations

from typing import Annotated

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost
from eosrepro.models._options import Activation


def vit(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    patch: Annotated[int, AtLeast(1)] = 4,
    width: Annotated[int, AtLeast(1)] = 64,
    depth: Annotated[int, AtLeast(0), AtMost(1000)] = 4,
    heads: Annotated[int, AtLeast(1)] = 8,
    key_size: Annotated[int, AtLeast(1)] | None = None,
    mlp_factor: Annotated[int, AtLeast(1)] = 4,
    activation: Activation = "gelu",
    head_scale: Annotated[float, AtLeast(0)] = 1.0,
) -> nn.Module:
    """Patches through a linear layer, fixed positions added, `depth` blocks of attention, their mean, a linear layer.

    Normalisation is before attention, which has no biases, and perceptron; there is no class token and no dropout. The
    initialisation is PyTorch's. Cohen et al. 2025 (arXiv 2410.24206) have `key_size: 64, head_scale: 0` and these
    defaults; their layer normalisation divides by a slightly larger deviation, and the last one follows the mean.

    Args:
        patch: pixels along one side of a patch.
        heads: of attention, each with keys of `key_size` numbers; None: width / heads.
        mlp_factor: hidden units of the perceptrons, in units of `width`.
        head_scale: what weights and biases of the last layer are multiplied by at the start.

    Raises:
        ConfigError: patches do not fill the images, or heads the width.
    """
    from eosrepro.models._attention import blocks
    from eosrepro.models._layers import scale_head
    from eosrepro.models._vit import ViT

    return ViT(
        input_shape,
        patch,
        width,
        blocks(depth, width, heads=heads, key_size=key_size, mlp_factor=mlp_factor, activation=activation, bias=False),
        scale_head(nn.Linear(width, n_outputs), head_scale),
    )

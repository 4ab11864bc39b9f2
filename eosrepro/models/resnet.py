"""Residual network for small images (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost, BatchStatistics
from eosrepro.errors import ConfigError
from eosrepro.models._options import Activation, Groups, Init

Scale = Annotated[float, AtLeast(0)]


def resnet(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    depth: Annotated[int, AtLeast(8), AtMost(1202)] = 20,
    width: Annotated[int, AtLeast(1)] = 16,
    activation: Activation = "relu",
    shortcut: Literal["pad", "convolution"] = "pad",
    batch_norm: BatchStatistics | None = "whole",
    group_norm: Groups | None = None,
    init: Init = "kaiming_normal",
    init_scale: Scale = 1.0,
    head_scale: Scale = 1.0,
) -> nn.Module:
    """A convolution, three stages of (depth − 2) / 6 residual blocks, the mean over the pixels, and a linear layer.

    A block has two 3 × 3 convolutions without biases, each with a normalisation. Stages have `width`, 2 · `width` and
    4 · `width` channels; the second and third begin with a stride of 2. The defaults are ResNet-20, with 269,722
    parameters for 3 × 32 × 32 images of 10 classes; ResNet-32 is `depth: 32`.

    Args:
        depth: 8, 14, 20, 26, 32, ...: layers with weights.
        shortcut: what a block adds where the size changes: every second pixel, with channels of 0 (`pad`), or a
            normalised 1 × 1 convolution.
        batch_norm: batch normalisation with the statistics of the `whole` training data or of groups of so many
            examples; None: without.
        group_norm: group normalisation instead, of so many groups of channels; with `batch_norm: null`.
        init: of all weights, with biases of 0; `default`: PyTorch's.
        init_scale: what the initial weights, not the biases, are multiplied by.
        head_scale: what weights and biases of the last layer are multiplied by; 0 in Cohen et al. 2025.

    Raises:
        ConfigError: no number of blocks gives this depth.
    """
    from eosrepro.models._layers import ACTIVATIONS, declare, initialise, normalisation, scale_head
    from eosrepro.models._resnet import Block

    n_blocks, rest = divmod(depth - 2, 6)
    if rest:
        raise ConfigError(f"depth: {depth} should be 6n + 2: take {depth - rest} or {depth - rest + 6}")
    normalise = normalisation(batch_norm, group_norm)
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        *normalise(width),
        ACTIVATIONS[activation](),
    ]
    channels = width
    for stage in range(3):
        for index in range(n_blocks):
            stride, wide = (2 if stage and not index else 1), width * 2**stage
            layers.append(Block(channels, wide, stride, activation, shortcut, normalise))
            channels = wide
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head := nn.Linear(channels, n_outputs))
    initialise(module, init, init_scale)
    scale_head(head, head_scale)
    return declare(module, batch_norm)

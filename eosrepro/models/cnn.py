"""Convolutional network."""

from __future__ import annotations

from typing import Annotated

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost, BatchStatistics
from eosrepro.models._options import Activation, Groups, Init, InitScale, Pooling


def cnn(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Annotated[int, AtLeast(1)] = 32,
    growth: Annotated[int, AtLeast(1)] = 1,
    depth: Annotated[int, AtLeast(1), AtMost(16)] = 2,
    hidden: Annotated[int, AtLeast(1)] | None = None,
    activation: Activation = "tanh",
    pooling: Pooling = "max",
    batch_norm: BatchStatistics | None = None,
    group_norm: Groups | None = None,
    layer_norm: bool = False,
    bias: bool = True,
    init: Init = "default",
    init_scale: InitScale = 1.0,
) -> nn.Module:
    """`depth` times a 3 × 3 convolution of `width` channels, activation and 2 × 2 pooling; then a linear layer.

    The defaults are the convolutional network of Cohen et al. 2021 (arXiv 2103.00065), in PyTorch's initialisation.
    That of Long and Bartlett 2023: `width: 16, growth: 2, activation: relu, layer_norm: true, init: xavier_normal`;
    that of Cohen et al. 2025: `growth: 2, hidden: 128, activation: gelu, pooling: average, bias: false`.

    Args:
        growth: factor by which the channels grow from one convolution to the next.
        hidden: units of one more linear layer with an activation, before the last.
        batch_norm: batch normalisation after each activation, with the statistics of the `whole` training data or of
            groups of so many examples; None: without.
        group_norm: group normalisation there, of so many groups of channels.
        layer_norm: layer normalisation there, over the channels at each pixel.
        bias: of all layers but the last, which has one.
        init: of all weights, with biases of 0; `default`: PyTorch's.
        init_scale: what the initial weights, not the biases, are multiplied by: one number, or one a layer.
    """
    from eosrepro.models._layers import ACTIVATIONS, POOLINGS, declare, initialise, normalisation

    channels, height, columns = input_shape
    normalise = normalisation(batch_norm, group_norm, layer_norm=layer_norm)
    layers: list[nn.Module] = []
    for index in range(depth):
        wide = width * growth**index
        layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=bias), ACTIVATIONS[activation]()]
        layers += [*normalise(wide), POOLINGS[pooling](2)]
        channels, height, columns = wide, height // 2, columns // 2
    layers.append(nn.Flatten())
    size = channels * height * columns
    if hidden is not None:
        layers += [nn.Linear(size, hidden, bias=bias), ACTIVATIONS[activation]()]
        size = hidden
    module = nn.Sequential(*layers, nn.Linear(size, n_outputs))
    initialise(module, init, init_scale)
    return declare(module, batch_norm)

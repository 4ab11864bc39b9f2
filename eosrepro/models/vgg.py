"""VGG with 11 layers (Simonyan and Zisserman 2015, arXiv 1409.1556), for small images."""

from __future__ import annotations

from typing import Annotated

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost, BatchStatistics
from eosrepro.models._options import Activation, Pooling, Positive

BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels of convolutions; pooling after each block


def vgg(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width_factor: Positive = 1.0,
    hidden: Annotated[int, AtLeast(0), AtMost(16)] = 2,
    activation: Activation = "relu",
    pooling: Pooling = "max",
    batch_norm: BatchStatistics | None = None,
    init_scale: Annotated[float, AtLeast(0)] = 1.0,
    train_last: bool = True,
) -> nn.Module:
    """Eight 3 × 3 convolutions in five blocks with 2 × 2 pooling after each, and three linear layers.

    The defaults on 3 × 32 × 32 images are the network of Cohen et al. 2021 (arXiv 2103.00065), VGG-11 without dropout,
    with 9,750,922 parameters for 10 classes. Its convolutions start as normal numbers of variance 2 / (9 · channels
    out) with biases of 0, its linear layers as in PyTorch. Images that are smaller are pooled as often as they can be.

    Args:
        width_factor: of the channels of all layers; the first convolution has 64 times as many.
        hidden: linear layers with an activation, before the last.
        batch_norm: batch normalisation after each convolution, with the statistics of the `whole` training data or of
            groups of so many examples; None: without.
        init_scale: what the initial weights, not the biases, are multiplied by.
        train_last: whether the last layer is trained; Arora, Li and Panigrahi 2022 (arXiv 2205.09745) leave it fixed.
    """
    from eosrepro.models._layers import ACTIVATIONS, POOLINGS, declare, initialise, normalisation

    channels, height, columns = input_shape
    normalise = normalisation(batch_norm)
    layers: list[nn.Module] = []
    for block in BLOCKS:
        for of_paper in block:
            wide = _scaled(of_paper, width_factor)
            layers += [nn.Conv2d(channels, wide, 3, padding=1), *normalise(wide), ACTIVATIONS[activation]()]
            channels = wide
        if min(height, columns) > 1:
            layers.append(POOLINGS[pooling](2))
            height, columns = height // 2, columns // 2
    features = nn.Sequential(*layers)
    initialise(features, "kaiming_normal_fan_out")
    size, wide = channels * height * columns, _scaled(512, width_factor)
    classifier: list[nn.Module] = []
    for _ in range(hidden):
        classifier += [nn.Linear(size, wide), ACTIVATIONS[activation]()]
        size = wide
    last = nn.Linear(size, n_outputs).requires_grad_(train_last)
    module = nn.Sequential(*features, nn.Flatten(), *classifier, last)
    initialise(module, "default", init_scale)
    return declare(module, batch_norm)


def _scaled(channels: int, factor: float) -> int:
    return max(1, round(channels * factor))

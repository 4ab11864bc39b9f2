"""Convolutional network."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import nn

from eosrepro.core.types import AtLeast, AtMost, BatchStatistics

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def cnn(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Annotated[int, AtLeast(1)] = 32,
    depth: Annotated[int, AtLeast(1), AtMost(16)] = 2,
    activation: Literal["tanh", "relu", "elu"] = "tanh",
    pooling: Literal["max", "average"] = "max",
    batch_norm: BatchStatistics | None = None,
) -> nn.Module:
    """`depth` times a 3 × 3 convolution of `width` channels, activation and 2 × 2 pooling; then a linear layer.

    The defaults are the convolutional network of Cohen et al. 2021 (arXiv 2103.00065), in PyTorch's initialisation.

    Args:
        batch_norm: batch normalisation after each activation, with the statistics of the `whole` training data or of
            groups of so many examples; None: without.
    """
    channels, height, columns = input_shape
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), ACTIVATIONS[activation]()]
        if batch_norm is not None:
            layers.append(nn.BatchNorm2d(width))
        layers.append(POOLINGS[pooling](2))
        channels, height, columns = width, height // 2, columns // 2
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * height * columns, n_outputs))
    module.batch_statistics = batch_norm  # type: ignore[assignment]  # what the objective asks for
    return module

"""Fully connected network."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from torch import nn

from eosrepro.core.types import AtLeast, AtMost

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity, "elu": nn.ELU, "softplus": nn.Softplus}


def mlp(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Annotated[int, AtLeast(1)] = 200,
    depth: Annotated[int, AtLeast(0), AtMost(10_000)] = 2,
    activation: Literal["tanh", "relu", "linear", "elu", "softplus"] = "tanh",
) -> nn.Module:
    """`depth` hidden layers of `width` units with biases, PyTorch's default `nn.Linear` initialisation.

    The defaults on 3 × 32 × 32 images make the 3072-200-200-10 network of Ahn et al. 2022, with 656,810 parameters.
    `linear` has no activation.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    size = prod(input_shape)
    for _ in range(depth):
        layers += [nn.Linear(size, width), ACTIVATIONS[activation]()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, n_outputs))

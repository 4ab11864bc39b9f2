"""Fully connected network."""

from __future__ import annotations

from math import prod
from typing import Annotated

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost
from eosrepro.models._options import Activation, Init, InitScale


def mlp(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    width: Annotated[int, AtLeast(1)] = 200,
    depth: Annotated[int, AtLeast(0), AtMost(10_000)] = 2,
    activation: Activation = "tanh",
    bias: bool = True,
    output_bias: bool | None = None,
    init: Init = "default",
    init_scale: InitScale = 1.0,
) -> nn.Module:
    """`depth` hidden layers of `width` units with biases, PyTorch's default `nn.Linear` initialisation.

    The defaults on 3 × 32 × 32 images make the 3072-200-200-10 network of Ahn et al. 2022, with 656,810 parameters.

    The network of Cohen et al. 2021 for Chebyshev polynomials: `width: 100, depth: 1, output_bias: false, init:
    xavier_normal, init_scale: [1.9, 1]`. That of Long and Bartlett 2023 for MNIST, four layers with weights: `width:
    1000, depth: 3, activation: relu, init: xavier_normal`. That of Andreyev and Beneventano 2024: `width: 512,
    activation: relu, init: kaiming_normal, init_scale: 0.2`.

    Args:
        activation: one of torch.nn, by its name in torch.nn.functional; `linear`: none.
        output_bias: of the last layer; None: as `bias`.
        init: of all weights, with biases of 0; `default`: PyTorch's.
        init_scale: what the initial weights, not the biases, are multiplied by: one number, or one a layer.
    """
    from eosrepro.models._layers import ACTIVATIONS, initialise

    layers: list[nn.Module] = [nn.Flatten()]
    size = prod(input_shape)
    for _ in range(depth):
        layers += [nn.Linear(size, width, bias=bias), ACTIVATIONS[activation]()]
        size = width
    last = nn.Linear(size, n_outputs, bias=bias if output_bias is None else output_bias)
    module = nn.Sequential(*layers, last)
    initialise(module, init, init_scale)
    return module

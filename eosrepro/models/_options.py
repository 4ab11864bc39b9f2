"""What may be written for the options that several models share; `_layers.py` has what is meant."""

from __future__ import annotations

from typing import Annotated, Literal

from eosrepro.core.types import Above, AtLeast

# Those of torch.nn that act on every number alone, named as in torch.nn.functional; `gelu_tanh` is JAX's gelu.
Activation = Literal[
    "tanh",
    "relu",
    "linear",
    "elu",
    "softplus",
    "celu",
    "gelu",
    "gelu_tanh",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softshrink",
    "softsign",
    "tanhshrink",
]

Pooling = Literal["max", "average"]

# `default` is PyTorch's. The others are of all linear and convolutional layers, and put their biases to 0.
Init = Literal[
    "default", "xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform", "kaiming_normal_fan_out"
]

# What initial weights, and not biases, are multiplied by: all of them, or those of each layer.
InitScale = Annotated[float, AtLeast(0)] | tuple[Annotated[float, AtLeast(0)], ...]

Groups = Annotated[int, AtLeast(1)]

Positive = Annotated[float, Above(0)]

# Layer normalisation of what enters attention and perceptron, or of the sum with what leaves them.
Norm = Literal["before", "after"]

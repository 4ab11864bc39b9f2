"""What several models are made of: activations, initialisation, normalisation; what names them: `_options.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from eosrepro.core.types import BatchStatistics
from eosrepro.errors import ConfigError
from eosrepro.models._options import Init, InitScale


class _Hardsigmoid(nn.Module):
    """nn.Hardsigmoid by operations that PyTorch differentiates twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        return relu6(inputs + 3) / 6


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "linear": nn.Identity,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "hardshrink": nn.Hardshrink,
    "hardsigmoid": _Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "logsigmoid": nn.LogSigmoid,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softshrink": nn.Softshrink,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}

POOLINGS: Mapping[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}

INITS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal_fan_out": partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"),
}


def initialise(module: nn.Module, init: Init, scale: InitScale = 1.0) -> None:
    """Draw the linear and convolutional layers of a module anew, in its order, and multiply their weights.

    With the defaults of both nothing is drawn and nothing changes.

    Raises:
        ConfigError: there are not as many scales as layers.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers if init != "default" else []:
        INITS[init](layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    scales: Sequence[float] = [scale] * len(layers) if isinstance(scale, int | float) else scale
    if len(scales) != len(layers):
        raise ConfigError(
            f"init_scale has {len(scales)} numbers, and the model has {len(layers)} layers with weights: give one "
            "number for each, or a single one for all"
        )
    with torch.no_grad():
        for layer, factor in zip(layers, scales, strict=True):
            if factor != 1:
                layer.weight.mul_(factor)


def scale_head(head: nn.Linear, factor: float) -> nn.Linear:
    """The last layer with its weights and biases multiplied."""
    with torch.no_grad():
        for parameter in head.parameters() if factor != 1 else []:
            parameter.mul_(factor)
    return head


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels at each pixel, as Flax has it: (n, channels, height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.movedim(1, -1)).movedim(-1, 1)


def normalisation(
    batch_norm: BatchStatistics | None, group_norm: int | None = None, *, layer_norm: bool = False
) -> Callable[[int], list[nn.Module]]:
    """The normalisation of so many channels: a list of one layer, or an empty one.

    Raises:
        ConfigError: more than one is asked for, or the groups do not divide the channels.
    """
    asked = {"batch_norm": batch_norm is not None, "group_norm": group_norm is not None, "layer_norm": layer_norm}
    if len(several := [name for name, wanted in asked.items() if wanted]) > 1:
        raise ConfigError(
            f"the model is given {' and '.join(several)}: keep one, and give null for batch_norm if need be"
        )

    def layers(channels: int) -> list[nn.Module]:
        if group_norm is not None:
            if channels % group_norm:
                raise ConfigError(f"group_norm: {group_norm} groups do not divide {channels} channels")
            return [nn.GroupNorm(group_norm, channels)]
        if batch_norm is not None:
            return [nn.BatchNorm2d(channels)]
        return [ChannelNorm(channels)] if layer_norm else []

    return layers


def declare(module: nn.Module, batch_statistics: BatchStatistics | None) -> nn.Module:
    """The module, which says what the objective asks for: the examples that batch normalisation sees together."""
    module.batch_statistics = batch_statistics  # type: ignore[assignment]  # no module or tensor, but an attribute
    return module

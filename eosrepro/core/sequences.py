"""Modules that are plain sequences of layers: what they begin with, and a quicker way to call them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, TypeVar

from eosrepro.core.later import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

Outputs: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"  # (inputs (n, ...), θ (P,)) → outputs (n, ..., n_outputs)
Layer = TypeVar("Layer", bound="nn.Module")


def first_and_rest(module: nn.Module) -> tuple[nn.Linear, nn.Sequential] | None:
    """The linear layer that a network begins with, and the layers after it; None where this is not certain.

    It is where the module is a plain sequence, nothing is hooked to its first layers or put in their place, and θ
    begins with the weights and biases of that layer, which no other layer shares.
    """
    if not is_plain(module, nn.Sequential) or len(module) < 2:
        return None
    flatten, first, *others = module
    if not is_plain(flatten, nn.Flatten) or (flatten.start_dim, flatten.end_dim) != (1, -1):
        return None
    if not is_plain(first, nn.Linear):
        return None
    rest = nn.Sequential(*others)
    of_layers = [parameter for parameter in (*first.parameters(), *rest.parameters()) if parameter.requires_grad]
    in_theta = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if [id(parameter) for parameter in of_layers] != [id(parameter) for parameter in in_theta]:
        return None
    return (first, rest) if first.weight.requires_grad else None


def in_a_row(module: nn.Module) -> Outputs | None:
    """The module as a function of its trained parameters; None where it is more than linear layers and activations.

    The same operations as `torch.func.functional_call` makes, without its own work at every call: a quarter of a
    gradient on 200 examples.
    """
    if not is_plain(module, nn.Sequential):
        return None
    linears = [layer for layer in module if is_plain(layer, nn.Linear)]
    others = [layer for layer in module if not is_plain(layer, nn.Linear)]
    if any(_may_hold_more(layer) for layer in others):
        return None
    parameters = [parameter for layer in linears for parameter in layer.parameters()]
    if [*map(id, parameters)] != [id(each) for each in module.parameters() if each.requires_grad]:
        return None  # some are shared, fixed, or the sequence's own
    shapes = [parameter.shape for parameter in parameters]
    sizes = [shape.numel() for shape in shapes]
    at = {id(parameter): index for index, parameter in enumerate(parameters)}
    steps = [
        _linear(at[id(layer.weight)], None if layer.bias is None else at[id(layer.bias)])
        if isinstance(layer, nn.Linear)
        else _without_parameters(layer)
        for layer in module
    ]

    def evaluate(inputs: Tensor, theta: Tensor) -> Tensor:
        pieces = [piece.view(shape) for piece, shape in zip(torch.split(theta, sizes), shapes, strict=True)]
        for step in steps:
            inputs = step(inputs, pieces)
        return inputs

    return evaluate


def _may_hold_more(layer: nn.Module) -> bool:
    """Parameters or buffers; a layer of somebody's own may reach those of others."""
    ours = type(layer).__module__.split(".")[0] in ("torch", "eosrepro")
    return not ours or any(True for _ in chain(layer.parameters(), layer.buffers()))


def _linear(weight: int, bias: int | None) -> Callable[[Tensor, list[Tensor]], Tensor]:
    from eosrepro.core.onednn import linear

    return lambda inputs, pieces: linear(inputs, pieces[weight], None if bias is None else pieces[bias])


def _without_parameters(layer: nn.Module) -> Callable[[Tensor, list[Tensor]], Tensor]:
    from eosrepro.core.onednn import tanh

    if is_plain(layer, nn.Tanh):
        return lambda inputs, _pieces: tanh(inputs)

    def call(inputs: Tensor, _pieces: list[Tensor]) -> Tensor:
        outputs: Tensor = layer(inputs)
        return outputs

    return call


def is_plain(layer: nn.Module, kind: type[Layer]) -> TypeGuard[Layer]:
    """Whether to call the layer is to call the forward of this very class, and nothing else."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and "forward" not in vars(layer) and not any(hooks)

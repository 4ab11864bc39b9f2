"""Small models and data for them: images, or sequences of tokens where a model takes those."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from eosrepro import catalog
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from tests.members import variants

IMAGE = (3, 4, 4)
SEQUENCE = (5,)
N_CLASSES = 3

# What makes a model small enough to write its Hessian down, where a width of 4 does not.
SMALL: dict[str, dict[str, Any]] = {
    "deep_linear": {"width": 4, "depth": 3},
    "resnet": {"width": 1, "depth": 8},
    "transformer": {"width": 4, "depth": 1, "mlp_factor": 2},
    "vgg": {"width_factor": 1 / 256, "hidden": 1},
    "vit": {"width": 4, "depth": 1, "heads": 2, "mlp_factor": 2, "patch": 2},
}

# Options that are no choice of words.
NORMALISED: list[dict[str, Any]] = [
    {"batch_norm": None},
    {"batch_norm": "whole"},
    {"batch_norm": 3},
    {"batch_norm": None, "group_norm": 1},
    {"layer_norm": True},
]


def models() -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of every model, with every choice and every normalisation that its options name."""
    normalised = [
        (name, options)
        for name in catalog.names("models")
        for options in NORMALISED
        if options.items() - _defaults(name).items() and options.keys() <= _defaults(name).keys()
    ]
    return variants("models") + normalised


@cache
def _defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(catalog.find("models", name)).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def small(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that make an instance small enough to write its Hessian down."""
    return SMALL.get(name, {"width": 4} if "width" in _defaults(name) else {}) | {**options}


@cache
def takes_tokens(name: str) -> bool:
    """Whether the model refuses images, and says that it is of tokens."""
    try:
        catalog.find("models", name)(IMAGE, N_CLASSES, **small(name, {}))
    except ConfigError as error:
        return "tokens" in str(error)
    return False


def inputs_for(name: str, n_examples: int, *, shape: tuple[int, ...] | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if takes_tokens(name):
        return torch.randint(0, N_CLASSES, (n_examples, *(shape or SEQUENCE)[-1:]), generator=generator).float()
    return torch.randn(n_examples, *(shape or IMAGE), generator=generator)


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    shape = SEQUENCE if takes_tokens(name) else IMAGE
    torch.manual_seed(0)
    module = catalog.find("models", name)(shape, N_CLASSES, **small(name, options))
    assert isinstance(module, nn.Module)
    return module


def dataset_for(name: str, options: Mapping[str, Any], n_examples: int = 7) -> Dataset:
    """Noise, with as many classes an example as the model has vectors of outputs."""
    inputs = inputs_for(name, n_examples)
    shape = build(name, options)(inputs).shape[:-1]
    return Dataset(inputs, torch.arange(prod(shape)).reshape(shape) % N_CLASSES, N_CLASSES, "noise")

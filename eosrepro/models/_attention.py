"""Layers of transformers, of operations that PyTorch differentiates twice."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from eosrepro.errors import ConfigError
from eosrepro.models._layers import ACTIVATIONS
from eosrepro.models._options import Activation, Norm


class Attention(nn.Module):
    """Softmax attention of several heads, written out: (n, length, width) to the same."""

    def __init__(self, width: int, heads: int, key_size: int, *, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.into = nn.Linear(width, 3 * heads * key_size, bias=bias)
        self.out = nn.Linear(heads * key_size, width, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.into(inputs).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / sqrt(key.shape[-1])
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        outputs: Tensor = self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        return outputs


class Block(nn.Module):
    """Attention and a perceptron, each added to what it is given: (n, length, width) to the same."""

    def __init__(self, attention: Attention, width: int, hidden: int, activation: Activation, norm: Norm) -> None:
        super().__init__()
        self.before = norm == "before"
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.branches = nn.ModuleList(
            [
                attention,
                nn.Sequential(nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width)),
            ]
        )

    def forward(self, inputs: Tensor) -> Tensor:
        for norm, branch in zip(self.norms, self.branches, strict=True):
            inputs = inputs + branch(norm(inputs)) if self.before else norm(inputs + branch(inputs))
        return inputs


def blocks(
    depth: int,
    width: int,
    *,
    heads: int,
    key_size: int | None,
    mlp_factor: int,
    activation: Activation,
    causal: bool = False,
    bias: bool = True,
    norm: Norm = "before",
) -> nn.Sequential:
    """`depth` blocks, and a last normalisation where they normalise what enters.

    Args:
        bias: of attention.

    Raises:
        ConfigError: the heads do not divide the width, and no size of the keys is given.
    """
    if key_size is None and width % heads:
        raise ConfigError(f"{heads} heads do not divide a width of {width}: change one of them, or give key_size")
    size = width // heads if key_size is None else key_size
    layers: list[nn.Module] = [
        Block(Attention(width, heads, size, causal=causal, bias=bias), width, mlp_factor * width, activation, norm)
        for _ in range(depth)
    ]
    return nn.Sequential(*layers, *([nn.LayerNorm(width)] if norm == "before" else []))


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions at falling frequencies (Vaswani et al. 2017): (length,) to (length, width)."""
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = positions[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]

"""Vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), in the simple form of Beyer et al. 2022."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from eosrepro.core.types import AtLeast, AtMost
from eosrepro.errors import ConfigError
from eosrepro.models._attention import blocks, sinusoids
from eosrepro.models._layers import Activation, scale_head


def vit(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    patch: Annotated[int, AtLeast(1)] = 4,
    width: Annotated[int, AtLeast(1)] = 64,
    depth: Annotated[int, AtLeast(0), AtMost(1000)] = 4,
    heads: Annotated[int, AtLeast(1)] = 8,
    key_size: Annotated[int, AtLeast(1)] | None = None,
    mlp_factor: Annotated[int, AtLeast(1)] = 4,
    activation: Activation = "gelu",
    head_scale: Annotated[float, AtLeast(0)] = 1.0,
) -> nn.Module:
    """Patches through a linear layer, fixed positions added, `depth` blocks of attention, their mean, a linear layer.

    Normalisation is before attention, which has no biases, and perceptron; there is no class token and no dropout. The
    initialisation is PyTorch's. Cohen et al. 2025 (arXiv 2410.24206) have `key_size: 64, head_scale: 0` and these
    defaults; their layer normalisation divides by a slightly larger deviation, and the last one follows the mean.

    Args:
        patch: pixels along one side of a patch.
        heads: of attention, each with keys of `key_size` numbers; None: width / heads.
        mlp_factor: hidden units of the perceptrons, in units of `width`.
        head_scale: what weights and biases of the last layer are multiplied by at the start.

    Raises:
        ConfigError: patches do not fill the images, or heads the width.
    """
    return _ViT(
        input_shape,
        patch,
        width,
        blocks(depth, width, heads=heads, key_size=key_size, mlp_factor=mlp_factor, activation=activation, bias=False),
        scale_head(nn.Linear(width, n_outputs), head_scale),
    )


class _ViT(nn.Module):
    positions: Tensor  # (number of patches, width): half of the columns say the row, half the column

    def __init__(
        self, input_shape: tuple[int, ...], patch: int, width: int, layers: nn.Sequential, head: nn.Linear
    ) -> None:
        super().__init__()
        channels, height, columns = input_shape
        if height % patch or columns % patch:
            raise ConfigError(f"patch: patches of {patch} × {patch} pixels do not fill images of {height} × {columns}")
        self.patch, size = patch, channels * patch**2
        self.embed = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width), nn.LayerNorm(width))
        rows, across = torch.meshgrid(torch.arange(height // patch), torch.arange(columns // patch), indexing="ij")
        half = (width + 1) // 2
        places = [sinusoids(rows.flatten(), half), sinusoids(across.flatten(), width - half)]
        self.register_buffer("positions", torch.cat(places, -1))
        self.layers, self.head = layers, head

    def forward(self, images: Tensor) -> Tensor:
        patches = unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        outputs: Tensor = self.head(self.layers(self.embed(patches) + self.positions).mean(1))
        return outputs

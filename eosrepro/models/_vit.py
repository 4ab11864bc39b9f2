"""The module of `vit.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from eosrepro.errors import ConfigError
from eosrepro.models._attention import sinusoids


class ViT(nn.Module):
    """Patches through `embed`, fixed positions added, `layers`, their mean, `head`."""

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

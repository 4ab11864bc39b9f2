"""The blocks of `resnet.py`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import pad

from eosrepro.models._layers import ACTIVATIONS
from eosrepro.models._options import Activation

Normalise = Callable[[int], list[nn.Module]]


class Block(nn.Module):
    """x ↦ a(shortcut(x) + branch(x)), a being the activation."""

    def __init__(
        self, channels: int, wide: int, stride: int, activation: Activation, shortcut: str, normalise: Normalise
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False),
            *normalise(wide),
            ACTIVATIONS[activation](),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            *normalise(wide),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 and shortcut == "pad":
            self.shortcut = _Padded(stride, wide - channels)
        elif stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), *normalise(wide))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.activation(self.shortcut(inputs) + self.branch(inputs))
        return outputs


class _Padded(nn.Module):
    """Every so many pixels, with more channels, of 0."""

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, inputs: Tensor) -> Tensor:
        return pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))

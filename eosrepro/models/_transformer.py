"""The module of `transformer.py`."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from eosrepro.errors import DataError
from eosrepro.models._attention import sinusoids


class Transformer(nn.Module):
    """Tokens and positions embedded, `layers`, `head`."""

    positions: Tensor  # (length, width)

    def __init__(
        self,
        n_tokens: int,
        length: int,
        width: int,
        layers: nn.Sequential,
        head: nn.Linear,
        *,
        learned: bool,
        whole: bool,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_tokens, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.scale = 1.0 if learned else sqrt(width)
        if learned:
            self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        else:
            self.register_buffer("positions", sinusoids(torch.arange(length), width))
        self.layers, self.head, self.whole = layers, head, whole

    def forward(self, inputs: Tensor) -> Tensor:
        vectors = self.scale * self.embed(self._tokens(inputs)) + self.positions
        seen = self.layers(vectors)
        outputs: Tensor = self.head(seen.mean(1) if self.whole else seen)
        return outputs

    def _tokens(self, inputs: Tensor) -> Tensor:
        tokens, n_tokens = inputs.long(), self.embed.num_embeddings
        wrong = (tokens != inputs) | (tokens < 0) | (tokens >= n_tokens)
        if wrong.any():
            raise DataError(
                f"the input {inputs[wrong][0].item():g} is no token: inputs should be whole numbers from 0 to "
                f"{n_tokens - 1} (see n_tokens), without preprocessing"
            )
        return tokens

"""Transformer on sequences of tokens."""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from eosrepro.core.types import AtLeast, AtMost
from eosrepro.errors import ConfigError, DataError
from eosrepro.models._attention import Norm, blocks, sinusoids
from eosrepro.models._layers import Activation, scale_head


def transformer(
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    n_tokens: Annotated[int, AtLeast(1)] | None = None,
    predict: Literal["each", "whole"] = "each",
    causal: bool = True,
    width: Annotated[int, AtLeast(1)] = 64,
    depth: Annotated[int, AtLeast(0), AtMost(1000)] = 2,
    heads: Annotated[int, AtLeast(1)] = 2,
    key_size: Annotated[int, AtLeast(1)] | None = None,
    mlp_factor: Annotated[int, AtLeast(1)] = 4,
    activation: Activation = "gelu",
    norm: Norm = "before",
    positions: Literal["learned", "sinusoidal"] = "learned",
    head_scale: Annotated[float, AtLeast(0)] = 1.0,
) -> nn.Module:
    """Embedded tokens and positions, `depth` blocks of attention and perceptron, a linear layer.

    Inputs are numbers of tokens, (n, length), whole ones from 0 to n_tokens − 1. They are stored as floats, as all
    inputs are, and used as indices. Outputs are (n, length, n_outputs), of the next token at each position, or
    (n, n_outputs). The defaults are a language model, whose targets are classes, (n, length). A classifier of
    sequences is `predict: whole, causal: false, n_tokens: ...`.

    The initialisation is PyTorch's, but for embeddings and learned positions: normal numbers of deviation 0.02. Long
    and Bartlett 2023 (arXiv 2309.12488) have `width: 128, depth: 6, heads: 8, key_size: 32, activation: gelu_tanh`.

    Args:
        n_tokens: size of the vocabulary; None: as many as outputs.
        predict: one vector of outputs at `each` position, or one of the `whole` sequence, by the mean over positions.
        causal: whether a position sees none that come after it.
        heads: of attention, each with keys of `key_size` numbers; None: width / heads.
        mlp_factor: hidden units of the perceptrons, in units of `width`.
        norm: layer normalisation `before` attention and perceptron, or `after` each is added (Vaswani et al. 2017).
        positions: what is added to the embeddings: `learned` vectors, or fixed sines and cosines to √width times them.
        head_scale: what weights and biases of the last layer are multiplied by at the start.

    Raises:
        ConfigError: inputs are no sequences, or the heads do not divide the width.
        DataError: when evaluated: an input is the number of no token.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"transformer is of sequences of tokens, (length,), and these inputs have the shape {input_shape}: of "
            "images take another model, such as vit"
        )
    return _Transformer(
        n_tokens or n_outputs,
        input_shape[0],
        width,
        blocks(
            depth,
            width,
            heads=heads,
            key_size=key_size,
            mlp_factor=mlp_factor,
            activation=activation,
            causal=causal,
            norm=norm,
        ),
        scale_head(nn.Linear(width, n_outputs), head_scale),
        learned=positions == "learned",
        whole=predict == "whole",
    )


class _Transformer(nn.Module):
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

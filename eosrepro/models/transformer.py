"""Transformer on sequences of tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from eosrepro.core.later import nn
from eosrepro.core.types import AtLeast, AtMost
from eosrepro.errors import ConfigError
from eosrepro.models._options import Activation, Norm


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
    from eosrepro.models._attention import blocks
    from eosrepro.models._layers import scale_head
    from eosrepro.models._transformer import Transformer

    if len(input_shape) != 1:
        raise ConfigError(
            f"transformer is of sequences of tokens, (length,), and these inputs have the shape {input_shape}: of "
            "images take another model, such as vit"
        )
    return Transformer(
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

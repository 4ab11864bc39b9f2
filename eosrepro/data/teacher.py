"""Regression on the outputs of a random network, with noise."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Dataset, Seed


def teacher(
    *,
    n_examples: Annotated[int, AtLeast(1)],
    dimension: Annotated[int, AtLeast(1)],
    width: Annotated[int, AtLeast(1)] = 16,
    noise: Annotated[float, AtLeast(0)] = 0.0,
    n_test: Annotated[int, AtLeast(0)] = 0,
    seed: Seed = 0,
) -> Dataset:
    """y = Σ_j a_j tanh⟨w_j, x⟩/√width + noise·ε for standard normal x, a and ε, and w of expected square 1.

    Inputs are (n, dimension), targets (n, 1). Those of the test split have noise too.
    """
    generator = np.random.default_rng(seed)
    inward = generator.standard_normal((width, dimension)) / sqrt(dimension)
    outward = generator.standard_normal((width, 1)) / sqrt(width)

    def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = generator.standard_normal((count, dimension))
        targets = np.tanh(inputs @ inward.T) @ outward + noise * generator.standard_normal((count, 1))
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    rule = f"{n_examples} outputs of a tanh network of width {width}, noise {noise:g}, drawn with seed {seed}"
    training = drawn(n_examples)
    return Dataset(*training, 1, "tanh teacher", {"source": {"name": "teacher", "rule": rule}}, _or_none(drawn(n_test)))


def _or_none(split: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor] | None:
    return split if len(split[0]) else None

"""A Chebyshev polynomial on a grid: regression in one dimension (Cohen et al. 2021, arXiv 2103.00065, appendix)."""

from __future__ import annotations

from typing import Annotated

import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from eosrepro.core.types import AtLeast, Dataset


def chebyshev(
    *,
    n_examples: Annotated[int, AtLeast(2)],
    degree: Annotated[int, AtLeast(0)],
    n_test: Annotated[int, AtLeast(0)] = 0,
) -> Dataset:
    """y = T_k(x) at `n_examples` equally spaced x of [−1, 1]; the test split, in the same way, at `n_test`.

    Inputs and targets have the shape (n, 1).
    """

    def grid(n: int) -> tuple[Tensor, Tensor]:
        inputs = torch.linspace(-1, 1, n, dtype=torch.float64)
        targets = torch.from_numpy(Chebyshev.basis(degree)(inputs.numpy()))
        return inputs[:, None], targets[:, None]

    inputs, targets = grid(n_examples)
    source = {"name": "chebyshev", "rule": f"T_{degree} at {n_examples} equally spaced points of [-1, 1]"}
    return Dataset(inputs, targets, 1, f"Chebyshev T{degree}", {"source": source}, grid(n_test) if n_test else None)

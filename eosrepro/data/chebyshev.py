"""A Chebyshev polynomial on a grid: regression in one dimension (Cohen et al. 2021, arXiv 2103.00065, appendix)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from numpy.polynomial import Chebyshev

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Dataset

if TYPE_CHECKING:
    from torch import Tensor


def chebyshev(
    *,
    n_examples: Annotated[int, AtLeast(2)],
    degree: Annotated[int, AtLeast(0)],
    n_test: Annotated[int, AtLeast(0)] = 0,
) -> Dataset:
    """y = T_k(x) at `n_examples` equally spaced x of [−1, 1].

    The test split are the middles of `n_test` equal intervals, none of which is trained on where `n_examples` is even.
    Inputs and targets have the shape (n, 1).
    """

    def labelled(inputs: Tensor) -> tuple[Tensor, Tensor]:
        targets = torch.from_numpy(Chebyshev.basis(degree)(inputs.numpy()))
        return inputs[:, None], targets[:, None]

    inputs, targets = labelled(torch.linspace(-1, 1, n_examples, dtype=torch.float64))
    middles = (2 * torch.arange(n_test, dtype=torch.float64) + 1) / max(n_test, 1) - 1
    source = {"name": "chebyshev", "rule": f"T_{degree} at {n_examples} equally spaced points of [-1, 1]"}
    test = labelled(middles) if n_test else None
    return Dataset(inputs, targets, 1, f"Chebyshev T{degree}", {"source": source}, test)

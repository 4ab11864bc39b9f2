"""Linear regression on whitened inputs, for deep linear networks (Cohen et al. 2021, arXiv 2103.00065, appendix)."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Dataset, Seed
from eosrepro.errors import ConfigError


def linear_regression(
    *,
    n_examples: Annotated[int, AtLeast(1)],
    dimension: Annotated[int, AtLeast(1)],
    n_test: Annotated[int, AtLeast(0)] = 0,
    seed: Seed = 0,
) -> Dataset:
    """Y = X Aᵀ: the columns of X = √n Q are orthogonal, with XᵀX / n = 1, and the numbers of A standard normal.

    Inputs and targets have the shape (n, dimension), as have those of the test split, whose inputs are standard normal.
    The paper's are n = dimension = 50. Its own draws are not these, which NumPy makes.

    Raises:
        ConfigError: there are fewer examples than dimensions.
    """
    if n_examples < dimension:
        raise ConfigError(
            f"data.n_examples is {n_examples} and data.dimension {dimension}: take at least as many examples as "
            "dimensions, so that the inputs can be white"
        )
    generator = np.random.default_rng(seed)
    q, r = np.linalg.qr(generator.standard_normal((n_examples, dimension)))
    inputs = sqrt(n_examples) * q * np.sign(np.diag(r))  # the factor that has r's diagonal positive is unique
    matrix = generator.standard_normal((dimension, dimension))
    unseen = generator.standard_normal((n_test, dimension))

    def labelled(x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(x), torch.from_numpy(x @ matrix.T)

    source = {"name": "linear-regression", "rule": f"X = √n Q, Y = X Aᵀ drawn with seed {seed}"}
    test = labelled(unseen) if n_test else None
    return Dataset(*labelled(inputs), dimension, "linear regression", {"source": source}, test)

"""Sorting letters, as a task of next-token prediction (Cohen et al. 2025, arXiv 2410.24206)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Dataset, Seed


def sorting(
    *,
    n_examples: Annotated[int, AtLeast(1)],
    letters: Annotated[int, AtLeast(2)] = 4,
    length: Annotated[int, AtLeast(1)] = 8,
    n_test: Annotated[int, AtLeast(0)] = 0,
    seed: Seed = 0,
) -> Dataset:
    """Sequences of `length` letters, each followed by itself sorted: predict the sorted half from all that precedes.

    Inputs are the sequence and the sorted one but for its last letter, (n, 2 · length − 1), letters 0..letters−1 as
    floats. Targets are the sorted letters, (n, length): what comes next at the last `length` positions of the inputs;
    nothing is asked at the others. The next `n_test` sequences are the test split, where one that is trained on may
    come again. The paper's are 1,000 of 8 letters out of 4.
    """
    drawn = np.random.default_rng(seed).integers(0, letters, size=(n_examples + n_test, length))
    ordered = np.sort(drawn, axis=1)
    inputs = torch.from_numpy(np.concatenate([drawn, ordered[:, :-1]], axis=1)).float()
    targets = torch.from_numpy(ordered)
    source = {
        "name": "sorting",
        "rule": f"first {n_examples} sequences of {length} of {letters} letters drawn with seed {seed}",
    }
    test = (inputs[n_examples:], targets[n_examples:]) if n_test else None
    return Dataset(inputs[:n_examples], targets[:n_examples], letters, "sorting", {"source": source}, test)

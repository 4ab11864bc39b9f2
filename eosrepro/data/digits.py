"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from eosrepro.core.types import RawImages, Seed
from eosrepro.data._common import Choice, chosen


def digits(
    *,
    n_examples: Annotated[int, Gt(0)],
    n_test: Annotated[int, Ge(0)] = 0,
    seed: Seed = 0,
    choose: Choice = "random",
    classes: Annotated[int, Ge(1)] | None = None,
) -> RawImages:
    """8 × 8 grey images of the digits 0..9, `n_examples` of the 1,797; by default the first of a seeded permutation.
    The next `n_test` are the test split.

    Their values 0..16 become round(value · 255/16), from which round(pixel · 16/255) gives them back.

    Raises:
        DataError: `n_examples` is more than there are.
    """
    from sklearn.datasets import load_digits  # a second of import, which only this source needs

    bunch = load_digits()
    population = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    return chosen(
        n_examples,
        population,
        bunch.target,
        choice=choose,
        seed=seed,
        classes=classes,
        n_classes=10,
        label="digits",
        source={"name": "digits"},
        n_test=n_test,
    )

"""scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from eosrepro.data.digits import digits
from eosrepro.errors import DataError


def test_pixels_give_the_original_values_back() -> None:
    raw = digits(n_examples=100, seed=0)
    original = load_digits().images

    assert raw.population.shape == (1797, 1, 8, 8)
    assert (raw.population.min(), raw.population.max()) == (0, 255)
    assert np.array_equal(np.rint(raw.population[:, 0] * (16 / 255)), original)


def test_targets_belong_to_their_images() -> None:
    bunch = load_digits()
    known = {
        image.tobytes(): target for image, target in zip(np.rint(bunch.images * 255 / 16), bunch.target, strict=True)
    }
    raw = digits(n_examples=500, seed=0)

    assert [known[image.astype(np.float64).tobytes()] for image in raw.pixels[:, 0]] == raw.targets.tolist()


def test_examples_are_drawn_without_repetition() -> None:
    raw = digits(n_examples=1797, seed=0)

    assert sorted(image.tobytes() for image in raw.pixels) == sorted(image.tobytes() for image in raw.population)


def test_another_seed_makes_another_choice() -> None:
    assert not np.array_equal(digits(n_examples=50, seed=0).pixels, digits(n_examples=50, seed=1).pixels)


@pytest.mark.parametrize("n_examples", [0, 1798])
def test_numbers_of_examples_that_do_not_exist_are_refused(n_examples: int) -> None:
    with pytest.raises(DataError, match=rf"1797 images.*asks for {n_examples}: take a number from 1 to 1797"):
        digits(n_examples=n_examples, seed=0)

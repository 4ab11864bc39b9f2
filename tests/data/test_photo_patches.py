"""Patches of scikit-learn's photographs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from eosrepro.data.photo_patches import photo_patches, regions
from eosrepro.errors import ConfigError


def places(patch: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Top left corners (row, column) at which the patch (3, 32, 32) lies in the image (height, width, 3)."""
    rows, columns = image.shape[0] - 31, image.shape[1] - 31
    candidates = np.argwhere((image[:rows, :columns] == patch[:, 0, 0]).all(axis=-1))
    wanted = patch.transpose(1, 2, 0)
    return [(r, c) for r, c in candidates.tolist() if np.array_equal(image[r : r + 32, c : c + 32], wanted)]


def test_patches_have_the_size_of_cifar10_and_ten_equally_frequent_classes() -> None:
    raw = photo_patches(n_examples=1000, seed=0)

    assert raw.pixels.shape == (1000, 3, 32, 32)
    assert np.bincount(raw.targets).tolist() == [100] * 10
    assert raw.n_classes == 10
    assert raw.label == "photo-patches"


def test_the_regions_tile_both_photographs_without_overlap() -> None:
    tiles = regions()
    china, flower = (np.concatenate(list(tiles[i : i + 5]), axis=1) for i in (0, 5))

    assert np.array_equal(china, load_sample_image("china.jpg"))
    assert np.array_equal(flower, load_sample_image("flower.jpg"))


def test_every_patch_lies_in_the_region_of_its_class_and_in_no_other() -> None:
    raw, tiles = photo_patches(n_examples=60, seed=3), regions()
    for patch, target in zip(raw.pixels, raw.targets, strict=True):
        assert [number for number, tile in enumerate(tiles) if places(patch, tile)] == [target]


def test_patches_are_spread_over_the_whole_region() -> None:
    """With 300 corners in 396 × 97 places, all sixteen of a 4 × 4 grid are visited."""
    raw, tiles = photo_patches(n_examples=3000, seed=0), regions()
    corners = np.array([places(patch, tiles[6])[0] for patch in raw.pixels[raw.targets == 6]])
    cells = {(4 * row // 396, 4 * column // 97) for row, column in corners.tolist()}

    assert len(cells) == 16


def test_the_population_is_the_examples() -> None:
    raw = photo_patches(n_examples=20, seed=0)

    assert np.array_equal(raw.population, raw.pixels)


def test_another_seed_makes_other_patches() -> None:
    one, other = photo_patches(n_examples=20, seed=0), photo_patches(n_examples=20, seed=1)

    assert not np.array_equal(one.pixels, other.pixels)
    assert one.source["corners_sha256"] != other.source["corners_sha256"]


@pytest.mark.parametrize("n_examples", [0, -10, 5, 1001])
def test_classes_that_cannot_be_equally_frequent_are_refused(n_examples: int) -> None:
    with pytest.raises(ConfigError, match=rf"n_examples is {n_examples}\b.*multiple of 10"):
        photo_patches(n_examples=n_examples, seed=0)

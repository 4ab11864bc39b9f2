"""Which images are the examples: `choose` and `classes`, of every source that has images to choose from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosrepro import catalog
from eosrepro.core.types import RawImages
from eosrepro.data._common import Choice, chosen, permutation
from eosrepro.errors import DataError
from tests.data.samples import cifar10_images, write_cifar10
from tests.data.test_conformance import OPTIONS

CHOOSING = [
    name for name in catalog.names("data") if "choose" in inspect.signature(catalog.find("data", name)).parameters
]
TARGETS = np.array([3, 0, 1, 1, 0, 2, 0, 1, 3, 2, 2, 0])
PIXELS = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)  # an image's pixel is its number


def taken(n_examples: int, choice: Choice = "first", *, classes: int | None = None, **others: Any) -> RawImages:
    return chosen(
        n_examples,
        PIXELS,
        TARGETS,
        choice=choice,
        classes=classes,
        n_classes=4,
        label="mine",
        source={"name": "mine"},
        **{"seed": 0, **others},
    )


def numbers(pixels: np.ndarray) -> list[int]:
    return [int(number) for number in pixels.ravel()]


def test_the_first_images_of_the_first_classes() -> None:
    assert numbers(taken(4).pixels) == [0, 1, 2, 3]
    raw = taken(4, classes=2, n_test=2)
    assert numbers(raw.pixels) == [1, 2, 3, 4]
    assert raw.test is not None
    assert numbers(raw.test[0]) == [6, 7]
    assert raw.n_classes == 2
    assert len(raw.population) == 12  # of which `statistics: source` are


def test_classes_take_turns_each_in_the_order_of_the_source() -> None:
    raw = taken(4, "first_per_class", n_test=4)
    assert numbers(raw.pixels) == [1, 2, 5, 0]
    assert raw.targets.tolist() == [0, 1, 2, 3]
    assert raw.test is not None
    assert numbers(raw.test[0]) == [4, 3, 9, 8]
    assert numbers(taken(6, "first_per_class", classes=2).pixels) == [1, 2, 4, 3, 6, 7]


def test_central_flows_choose_the_first_n_over_k_of_each_of_k_classes() -> None:
    """As a set; Cohen et al. 2025 put one class after the other, and shuffle them."""
    raw = taken(6, "first_per_class", classes=3)
    expected = [number for label in range(3) for number in np.nonzero(label == TARGETS)[0][:2]]
    assert sorted(numbers(raw.pixels)) == sorted(expected)


@given(st.sampled_from(get_args(Choice)), st.integers(1, 4), st.integers(0, 5))
def test_more_examples_begin_with_the_same_ones(choice: Choice, classes: int, seed: int) -> None:
    few, many = (taken(turns * classes, choice, classes=classes, seed=seed) for turns in (1, 2))
    assert numbers(few.pixels) == numbers(many.pixels)[:classes]
    assert len({*numbers(many.pixels)}) == 2 * classes
    assert set(many.targets.tolist()) <= set(range(classes))


def test_random_is_the_permutation_of_the_seed() -> None:
    order = permutation(12, 5)
    assert numbers(taken(12, "random", seed=5).pixels) == order.tolist()
    of_two = [number for number in order.tolist() if TARGETS[number] < 2]
    assert numbers(taken(5, "random", seed=5, classes=2).pixels) == of_two[:5]


def test_the_rule_is_in_the_provenance() -> None:
    rules = [taken(2, choice).source["rule"] for choice in get_args(Choice) if choice != "first_per_class"]
    assert rules == ["first 2 images", "first 2 of the permutation with seed 0"]
    rule = taken(4, "first_per_class", classes=2).source["rule"]
    assert rule == "first 4 images, the classes taking turns, of the first 2 classes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_examples": 9, "classes": 2}, r"mine has 7 images of the first 2 classes, .* 9: take a number from 1 to 7"),
        ({"n_examples": 4, "classes": 5}, r"mine has 4 classes, and data\.classes asks for 5"),
        (
            {"n_examples": 6, "choice": "first_per_class"},
            r"8 images with which 4 classes can take turns, .* asks for 6: take multiples of 4 from 4 to 8",
        ),
        (
            {"n_examples": 12, "choice": "first_per_class"},
            r"8 images with which 4 classes can take turns, .* asks for 12: take multiples of 4 from 4 to 8",
        ),
        (
            {"n_examples": 4, "n_test": 3, "choice": "first_per_class"},
            r"data\.n_examples asks for 4 and data\.n_test for 3: take multiples of 4 from 4 to 5",
        ),
    ],
)
def test_what_cannot_be_chosen_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        taken(**options)


@pytest.mark.parametrize("name", CHOOSING)
def test_every_source_chooses_in_all_ways(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = OPTIONS[name](tmp_path, monkeypatch) if name in OPTIONS else {}
    make: Callable[..., RawImages] = catalog.find("data", name)
    everything = make(n_examples=20, choose="first", **options).population
    seen = {}
    for choice in get_args(Choice):
        raw = make(n_examples=2, choose=choice, classes=2, seed=1, **options)
        assert raw.n_classes == 2
        assert set(raw.targets.tolist()) <= {0, 1}
        assert raw.population.tobytes() == everything.tobytes()
        seen[choice] = raw
    assert seen["first_per_class"].targets.tolist() == [0, 1]
    assert seen["random"].source["rule"].startswith("first 2 of the permutation with seed 1")
    assert len({raw.pixels.tobytes() for raw in seen.values()}) >= 2


def test_the_test_split_of_cifar10_is_chosen_like_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(write_cifar10(tmp_path, monkeypatch))
    pixels, targets = cifar10_images()
    few = np.nonzero(targets[:5] < 6)[0]  # test_batch holds the first five once more
    raw = catalog.find("data", "cifar10")(root=root, n_examples=3, n_test=len(few), classes=6)
    assert raw.test is not None
    assert np.array_equal(raw.test[0], pixels[few])
    assert np.array_equal(raw.test[1], targets[few])
    with pytest.raises(DataError, match=r"the test split of CIFAR-10 has 5 images, and data\.n_test asks for 6"):
        catalog.find("data", "cifar10")(root=root, n_examples=3, n_test=6)


def test_patches_are_of_the_first_regions() -> None:
    source = catalog.find("data", "photo-patches")
    raw = source(n_examples=20, classes=4)
    assert raw.targets.tolist() == [number % 4 for number in range(20)]
    assert raw.n_classes == 4
    assert np.array_equal(raw.pixels[:4], source(n_examples=20).pixels[:4])

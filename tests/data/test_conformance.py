"""What every data source must do, whichever files lie in eosrepro/data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eosrepro import catalog
from eosrepro.core.types import RawImages
from tests.data.samples import write_cifar10, write_image_folder, write_mnist

NUMBERS = ("chebyshev", "linear-regression", "sorting", "text")  # sources that return a `Dataset`
Source = Callable[[], RawImages]

# Options for sources that need more than `n_examples`; each gets a folder of its own that it may fill.
OPTIONS: Mapping[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "cifar10": lambda root, patch: {"root": str(write_cifar10(root, patch))},
    "imagefolder": lambda root, _patch: {"root": str(write_image_folder(root)), "label": "noise"},
    "torchvision": lambda root, _patch: {"root": str(write_mnist(root)), "dataset": "MNIST"},
}


@pytest.fixture(params=[name for name in catalog.names("data") if name not in NUMBERS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def load(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], RawImages]:
    options = OPTIONS[name](tmp_path, monkeypatch) if name in OPTIONS else {}
    return lambda n_examples: catalog.find("data", name)(n_examples=n_examples, **options)


def test_parameters_are_keyword_only_and_annotated(name: str) -> None:
    for parameter in inspect.signature(catalog.find("data", name), eval_str=True).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty


def test_images_and_targets_agree_in_shape_type_and_range(load: Callable[[int], RawImages]) -> None:
    raw = load(20)
    n_examples, *image_shape = raw.pixels.shape

    assert n_examples == len(raw.targets) == 20
    assert len(image_shape) == 3
    assert image_shape[0] in (1, 3)
    assert raw.pixels.dtype == raw.population.dtype == np.uint8
    assert raw.population.shape[1:] == raw.pixels.shape[1:]
    assert np.issubdtype(raw.targets.dtype, np.integer)
    assert set(raw.targets.tolist()) <= set(range(raw.n_classes))
    assert raw.pixels.min() < 64
    assert raw.pixels.max() > 192


def test_the_examples_belong_to_the_population(load: Callable[[int], RawImages]) -> None:
    raw = load(20)
    population = {image.tobytes() for image in raw.population}

    assert all(image.tobytes() in population for image in raw.pixels)


def test_the_same_parameters_give_the_same_bytes(load: Callable[[int], RawImages]) -> None:
    one, other = load(20), load(20)

    assert one.pixels.tobytes() == other.pixels.tobytes()
    assert one.targets.tobytes() == other.targets.tobytes()
    assert one.source == other.source


def test_more_examples_begin_with_the_same_ones(load: Callable[[int], RawImages]) -> None:
    few, many = load(10), load(20)

    assert np.array_equal(few.pixels, many.pixels[:10])
    assert np.array_equal(few.targets, many.targets[:10])


def test_provenance_names_the_source_and_tells_selections_apart(name: str, load: Callable[[int], RawImages]) -> None:
    few, many = load(10), load(20)

    assert few.source["name"] == name
    assert few.source["pixels_sha256"] != many.source["pixels_sha256"]
    assert {"indices_sha256", "corners_sha256"} & few.source.keys()

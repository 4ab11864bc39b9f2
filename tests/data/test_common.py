"""What no data source may deliver, whichever it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from eosrepro.core.types import Dataset, RawImages
from eosrepro.data._common import choose
from eosrepro.data._preprocessing import preprocess
from eosrepro.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, size=(4, 1, 2, 3), dtype=np.uint8)
TARGETS = np.array([0, 1, 2, 1])


def chosen(pixels: np.ndarray = PIXELS, targets: np.ndarray = TARGETS, order: np.ndarray | None = None) -> RawImages:
    taken = np.arange(len(pixels)) if order is None else order
    return choose(len(pixels), pixels, targets, taken, n_classes=3, label="mine", source={})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_any_integers_that_are_classes_are_targets(dtype: type[np.integer]) -> None:
    raw = chosen(targets=TARGETS.astype(dtype))
    dataset = preprocess(raw, scale="unit", standardise="none", statistics="subset")
    assert dataset.targets.tolist() == TARGETS.tolist()
    assert dataset.targets.dtype == torch.int64


BAD_TARGETS = {
    "numbers": (
        np.array([0.7, -0.4, 1.9, 2.2]),
        "targets are float64, should be integers.*a source of numbers returns a `Dataset`",
    ),
    "whole numbers as floats": (TARGETS.astype(np.float32), "targets are float32, should be integers"),
    "NaN": (np.array([0, np.nan, 2, 1]), "targets are float64, should be integers"),
    "bool": (TARGETS == 1, "targets are bool, should be integers"),
    "names": (np.array(["a", "b", "c", "b"]), "should be integers"),
    "objects": (np.array([0, None, 2, 1]), "targets are object, should be integers"),
    "negative": (np.array([0, 1, -1, 1]), "example 2 has the target -1, and the classes are 0..2"),
    "ignored by PyTorch": (np.array([-100, 1, 2, -100]), "example 0 and 1 more has the target -100"),
    "a class too many": (np.array([0, 1, 2, 3]), r"example 3 has the target 3, .*n_classes = 3"),
    "beyond int64": (np.array([0, 1, 2, 2**64 - 1], dtype=np.uint64), f"target {2**64 - 1}, and the classes are 0..2"),
    "one-hot": (np.eye(4, 3, dtype=np.int64), r"shape \(4, 3\), should have \(4,\).*of one-hot targets take argmax"),
    "a column": (TARGETS[:, np.newaxis], r"targets have the shape \(4, 1\), should have \(4,\), one for each image$"),
}


@pytest.mark.parametrize("targets", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_targets_that_are_no_classes_are_refused(targets: tuple[np.ndarray, str]) -> None:
    wrong, message = targets
    with pytest.raises(DataError, match=f"mine: .*{message}"):
        chosen(targets=wrong)
    with pytest.raises(DataError, match=f"mine: .*{message}"):  # a source that does without `choose`
        RawImages(PIXELS, PIXELS, wrong, 3, "mine")
    if wrong.dtype == np.int64 and wrong.shape == (4,):  # others are classes too, several an example
        with pytest.raises(DataError, match=f"mine: .*{message}"):
            Dataset(torch.zeros(4, 1, 2, 3), torch.from_numpy(wrong), 3, "mine")


@pytest.mark.parametrize("count", [0, 3, 5])
def test_each_image_has_one_target(count: int) -> None:
    with pytest.raises(DataError, match=f"mine has 4 images and {count} targets: each image needs one"):
        chosen(targets=np.zeros(count, dtype=np.int64))


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 1, 2, 4], [0, 0, 1, 2], [0.2, 1.2, 2.2, 3.2], []])
def test_an_order_that_is_no_permutation_is_refused(order: list[float]) -> None:
    with pytest.raises(DataError, match=r"mine: order should hold each of the numbers 0\.\.3 once"):
        chosen(order=np.array(order))


BAD_PIXELS = {
    "in 0..1": (PIXELS / 255, "pixels are float64, should be uint8: scale to 0..255 and round"),
    "NaN": (np.full_like(PIXELS, np.nan, dtype=np.float32), "pixels are float32, should be uint8"),
    "whole numbers": (PIXELS.astype(np.int16), "pixels are int16, should be uint8"),
    "16 bits": (PIXELS.astype(np.uint16), "pixels are uint16, should be uint8"),
    "black and white": (PIXELS > 100, "pixels are bool, should be uint8"),
    "without channels": (PIXELS[:, 0], r"shape \(4, 2, 3\), should be \(n, channels, height, width\)"),
    "flat": (PIXELS.reshape(4, -1), r"shape \(4, 6\), should be \(n, channels, height, width\)"),
    "of height 0": (
        PIXELS[:, :, :0],
        r"shape \(4, 1, 0, 3\), should be \(n, channels, height, width\), none of them 0",
    ),
}


@pytest.mark.parametrize("pixels", BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_pixels_that_are_no_uint8_images_are_refused(pixels: tuple[np.ndarray, str]) -> None:
    wrong, message = pixels
    with pytest.raises(DataError, match=f"mine: .*{message}"):
        chosen(pixels=wrong)
    with pytest.raises(DataError, match=f"mine: population .*{message.removeprefix('pixels ')}"):
        replace(chosen(), population=wrong)


def test_no_images_are_named_as_such() -> None:
    with pytest.raises(DataError, match="mine has no images"):
        chosen(PIXELS[:0], TARGETS[:0])


def test_a_population_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(4, 1, 2, 3\) and \(4, 1, 2, 2\), of images of several sizes"):
        replace(chosen(), population=PIXELS[..., :2])

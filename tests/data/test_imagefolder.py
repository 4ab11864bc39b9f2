"""Folders of images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosrepro.data.imagefolder import imagefolder
from eosrepro.errors import DataError
from tests.data.samples import write_image_folder


def test_pixels_are_those_of_the_files_and_classes_those_of_the_folders(tmp_path: Path) -> None:
    raw = imagefolder(root=str(write_image_folder(tmp_path)), n_examples=30, label="noise", seed=0)
    files = {
        np.asarray(Image.open(path)).tobytes(): int(path.parent.name.removeprefix("class"))
        for path in tmp_path.rglob("*.png")
    }

    assert raw.pixels.shape == (30, 3, 6, 4)
    assert len(files) == 30
    assert [files[image.transpose(1, 2, 0).tobytes()] for image in raw.pixels] == raw.targets.tolist()
    assert (raw.n_classes, raw.label, raw.source["classes"]) == (2, "noise", ["class0", "class1"])


def test_the_draw_is_a_random_mix_of_the_classes_decided_by_the_seed(tmp_path: Path) -> None:
    root = str(write_image_folder(tmp_path))
    one = imagefolder(root=root, n_examples=20, label="noise", seed=0)
    other = imagefolder(root=root, n_examples=20, label="noise", seed=1)

    assert one.targets.tolist() != sorted(one.targets.tolist())
    assert not np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.population, other.population)
    assert one.source["indices_sha256"] != other.source["indices_sha256"]


def test_the_place_of_the_folder_leaves_no_trace(tmp_path: Path) -> None:
    here, there = (write_image_folder(tmp_path / name) for name in ("here", "there"))
    one, other = (imagefolder(root=str(root), n_examples=9, label="noise") for root in (here, there))

    assert one.source == other.source


def test_grey_images_become_colour_images(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "only" / "grey.png")
    raw = imagefolder(root=str(tmp_path), n_examples=1, label="grey")

    assert np.array_equal(raw.pixels[0], np.arange(16).reshape(1, 4, 4).repeat(3, axis=0))


def test_a_missing_folder_is_named_with_the_layout_it_should_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere: .*<class>/<image>.*profile: quick"):
        imagefolder(root=str(tmp_path / "nowhere"), n_examples=1, label="x")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(DataError, match="not a folder of images <class>/<image>"):
        imagefolder(root=str(tmp_path), n_examples=1, label="x")


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    (write_image_folder(tmp_path) / "nobody").mkdir()
    with pytest.raises(DataError, match=r"not a folder of images.*nobody"):
        imagefolder(root=str(tmp_path), n_examples=1, label="x")


def test_images_of_several_sizes_are_named_with_their_sizes(tmp_path: Path) -> None:
    Image.new("RGB", (5, 7)).save(write_image_folder(tmp_path) / "class1" / "odd.png")
    with pytest.raises(DataError, match=r"one size, but .*0000\.png is 4 × 6 and .*odd\.png is 5 × 7 pixels"):
        imagefolder(root=str(tmp_path), n_examples=1, label="x")


@pytest.mark.parametrize("content", [b"", b"not an image", b"truncated"], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = write_image_folder(tmp_path) / "class0" / "0003.png"
    path.write_bytes(path.read_bytes()[:60] if content == b"truncated" else content)
    with pytest.raises(DataError, match=r"0003\.png is not a readable image"):
        imagefolder(root=str(tmp_path), n_examples=1, label="x")


def test_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"noise has 30 images, and data\.n_examples asks for 31"):
        imagefolder(root=str(write_image_folder(tmp_path)), n_examples=31, label="noise")


@pytest.mark.skipif(
    "EOSREPRO_CIFAR10_JPEG" not in os.environ,
    reason="EOSREPRO_CIFAR10_JPEG does not name a JPEG copy of CIFAR-10 (its train/<class>/ folders)",
)
def test_a_jpeg_copy_of_cifar10_is_a_near_even_mix_of_ten_classes() -> None:
    root = Path(os.environ["EOSREPRO_CIFAR10_JPEG"]) / "train"
    raw = imagefolder(root=str(root), n_examples=5000, label="CIFAR-10 (JPEG copy)", seed=0)
    counts = np.bincount(raw.targets)

    assert raw.pixels.shape == (5000, 3, 32, 32)
    assert len(raw.population) == 6000
    assert raw.source["classes"][:3] == ["airplane", "automobile", "bird"]
    # Five standard deviations of a draw of 5,000 from 10 × 600 are 43.
    assert counts.sum() == 5000
    assert abs(counts - 500).max() < 43
    # CIFAR-10's own channel means are 125.3, 123.0 and 113.9.
    assert np.allclose(raw.population.mean(axis=(0, 2, 3)), [125.3, 123.0, 113.9], atol=2)

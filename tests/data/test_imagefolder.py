"""Folders of images."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

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


GREY = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
DEEP = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
UNUSED = bytes([0] * 4 + [255] * 252)  # opacity of the entries of a palette


def png_of_16_bits(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of (height, width, channels), uint16, which Pillow reads and does not write. (PNG specification, 11.2)"""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def only(tmp_path: Path, name: str, image: Image.Image | bytes, **options: Any) -> str:
    """A folder that holds one image, in its class `only`."""
    (tmp_path / "only").mkdir()
    path = tmp_path / "only" / name
    path.write_bytes(image) if isinstance(image, bytes) else image.save(path, **options)
    return str(tmp_path)


DEPTH = "has more than 8 bits a channel: bring it to 8 first"
DEEP_COLOUR = np.dstack([DEEP] * 3)
OPAQUE = np.full((6, 5), 255, np.uint8)
SHADED = np.where(GREY > 100, OPAQUE, 7).astype(np.uint8)
ADDED = {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]}
UNFIT: dict[str, tuple[str, Image.Image | bytes, dict[str, Any], str]] = {
    "16-bit grey": ("a.png", Image.fromarray(DEEP), {}, DEPTH),
    "16-bit grey TIFF": ("a.tif", Image.fromarray(DEEP), {}, DEPTH),
    "16-bit PGM": ("a.pgm", b"P5\n5 6\n65535\n" + DEEP.astype(">u2").tobytes(), {}, DEPTH),
    "12-bit PGM": ("a.pgm", b"P5\n5 6\n4095\n" + (DEEP // 16).astype(">u2").tobytes(), {}, DEPTH),
    "16-bit colour": ("a.png", png_of_16_bits(DEEP_COLOUR, 2), {}, DEPTH),
    "16-bit grey with alpha": ("a.png", png_of_16_bits(np.dstack([DEEP, DEEP]), 4), {}, DEPTH),
    "16-bit colour with alpha": ("a.png", png_of_16_bits(np.dstack([DEEP_COLOUR, DEEP]), 6), {}, DEPTH),
    "32-bit TIFF": ("a.tif", Image.fromarray(DEEP.astype(np.int32)), {}, DEPTH),
    "float TIFF": ("a.tif", Image.fromarray(DEEP.astype(np.float32)), {}, DEPTH),
    "CMYK": ("a.jpg", Image.fromarray(COLOUR).convert("CMYK"), {}, "has CMYK colours: convert it to RGB first"),
    "Lab": ("a.tif", Image.fromarray(COLOUR).convert("LAB"), {}, "has LAB colours: convert it to RGB first"),
    "alpha": ("a.png", Image.fromarray(np.dstack([COLOUR, SHADED])), {}, "is transparent in places"),
    "alpha, WebP": ("a.webp", Image.fromarray(np.dstack([COLOUR, SHADED])), {"lossless": True}, "is transparent"),
    "alpha of grey": ("a.png", Image.fromarray(np.dstack([GREY, SHADED]), "LA"), {}, "is transparent in places"),
    "a transparent colour": ("a.png", Image.fromarray(COLOUR), {"transparency": (0, 200, 32)}, "is transparent"),
    "a transparent grey": ("a.png", Image.fromarray(GREY), {"transparency": 8}, "is transparent in places"),
    "a transparent entry": ("a.png", Image.fromarray(GREY).convert("P"), {"transparency": 8}, "is transparent"),
    "a shaded palette": ("a.png", Image.fromarray(GREY).convert("P"), {"transparency": UNUSED}, "is transparent"),
    "animated PNG": ("a.png", Image.fromarray(COLOUR), ADDED, "holds 2 pictures: keep one of them"),
    "animated WebP": ("a.webp", Image.fromarray(COLOUR), ADDED, "holds 2 pictures"),
    "pages": ("a.tif", Image.fromarray(COLOUR), ADDED, "holds 2 pictures"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT.values(), ids=UNFIT)
def test_what_8_bits_of_red_green_and_blue_do_not_show_is_named(
    case: tuple[str, Image.Image | bytes, dict[str, Any], str], tmp_path: Path
) -> None:
    name, image, options, message = case
    root = only(tmp_path, name, image, **options)
    with pytest.raises(DataError, match=rf"only/a\.\w+ {message}"):
        imagefolder(root=root, n_examples=1, label="x")


ALL_SEEN = bytes([255] * 256)
FIT: dict[str, tuple[str, Image.Image | bytes, dict[str, Any], np.ndarray]] = {
    "grey": ("a.png", Image.fromarray(GREY), {}, np.dstack([GREY] * 3)),
    "colour": ("a.bmp", Image.fromarray(COLOUR), {}, COLOUR),
    "1 bit": ("a.png", Image.fromarray(GREY > 100), {}, np.dstack([np.where(GREY > 100, 255, 0)] * 3)),
    "palette": ("a.png", Image.fromarray(GREY).convert("P"), {}, np.dstack([GREY] * 3)),
    "opaque palette": ("a.png", Image.fromarray(GREY).convert("P"), {"transparency": ALL_SEEN}, np.dstack([GREY] * 3)),
    "opaque alpha": ("a.png", Image.fromarray(np.dstack([COLOUR, OPAQUE])), {}, COLOUR),
    "opaque alpha of grey": ("a.png", Image.fromarray(np.dstack([GREY, OPAQUE]), "LA"), {}, np.dstack([GREY] * 3)),
    "white is 100": ("a.pgm", b"P5\n2 1\n100\n\x00\x64", {}, np.array([[[0] * 3, [255] * 3]])),
    "white is 65535": ("a.ppm", b"P6\n1 1\n65535\n" + b"\x80\x80\xff\xff\x00\x00", {}, np.array([[[128, 255, 0]]])),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", FIT.values(), ids=FIT)
def test_every_way_to_write_8_bits_is_read(
    case: tuple[str, Image.Image | bytes, dict[str, Any], np.ndarray], tmp_path: Path
) -> None:
    name, image, options, pixels = case
    raw = imagefolder(root=only(tmp_path, name, image, **options), n_examples=1, label="x")

    assert np.array_equal(raw.pixels[0].transpose(1, 2, 0), pixels)


def test_a_photograph_is_turned_as_its_exif_entry_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    raw = imagefolder(root=only(tmp_path, "a.png", Image.fromarray(COLOUR), exif=exif), n_examples=1, label="x")

    assert np.array_equal(raw.pixels[0].transpose(1, 2, 0), np.rot90(COLOUR, -1))


def test_grey_and_colour_images_may_lie_in_one_folder(tmp_path: Path) -> None:
    root = only(tmp_path, "a.png", Image.fromarray(GREY))
    Image.fromarray(COLOUR).save(tmp_path / "only" / "b.png")

    assert np.array_equal(imagefolder(root=root, n_examples=2, label="x").population[0], [GREY] * 3)


def test_files_that_are_no_images_by_their_names_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_image_folder(tmp_path)
    (root / "class0" / ".hidden").touch()
    (root / "README.txt").touch()
    imagefolder(root=str(root), n_examples=1, label="x")
    assert capsys.readouterr().err == ""

    Image.fromarray(COLOUR).save(root / "class0" / "a.gif")
    (root / "class1" / "labels.csv").touch()
    raw = imagefolder(root=str(root), n_examples=30, label="x")
    said = f"Warning: data.root: {root}/class0/a.gif and 1 more left out: no image by its name\n"
    assert capsys.readouterr().err == said
    assert len(raw.population) == 30


def test_names_of_classes_can_be_written_down_whatever_their_bytes(tmp_path: Path) -> None:
    for name in (b"caf\xe9", "größe".encode()):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        Image.fromarray(COLOUR).save(folder / "a.png")
    source = imagefolder(root=str(tmp_path), n_examples=2, label="x").source

    assert sorted(source["classes"]) == [r"caf\xe9", "größe"]
    assert json.dumps(source, ensure_ascii=False).encode()


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


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["tif", "jpg", "bmp", "webp", "ppm"])
def test_a_truncated_image_of_any_format_is_named(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(COLOUR).save(whole)
    root = only(tmp_path, f"a.{suffix}", b"")
    for length in range(0, whole.stat().st_size * 3 // 4, 7):
        (tmp_path / "only" / f"a.{suffix}").write_bytes(whole.read_bytes()[:length])
        with pytest.raises(DataError, match=rf"a\.{suffix} is not a readable image"):
            imagefolder(root=root, n_examples=1, label="x")


def test_an_image_that_unpacks_into_gigabytes_is_named(tmp_path: Path) -> None:
    root = only(tmp_path, "a.ppm", b"P6\n99999 99999\n255\n")
    with pytest.raises(DataError, match=r"a\.ppm is not a readable image.*decompression bomb"):
        imagefolder(root=root, n_examples=1, label="x")


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

"""Any folder of images in torchvision's `ImageFolder` layout: `<root>/<class>/<image>`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from eosrepro.core.types import RawImages, Seed
from eosrepro.data._common import Choice, chosen, torchvision_datasets
from eosrepro.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow raises of a broken file: SyntaxError of a PNG, TypeError and KeyError of a TIFF.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError)


def imagefolder(
    *,
    root: Annotated[str, MinLen(1)],
    n_examples: Annotated[int, Gt(0)],
    label: Annotated[str, MinLen(1)],
    n_test: Annotated[int, Ge(0)] = 0,
    seed: Seed = 0,
    choose: Choice = "random",
    classes: Annotated[int, Ge(1)] | None = None,
) -> RawImages:
    """Colour images of one size, `n_examples` of those in the folder; by default the first of a seeded permutation.
    The next `n_test` are the test split.

    The folder says nothing about the order of the original set, so a random mix of the classes stands in for it; class
    counts are as even as chance makes them. The permutation is of the images sorted by class and path, so another file
    in the folder makes another draw; the provenance holds checksums of the draw and of the pixels. Classes are numbered
    in the order of their folders' names. Grey images become colour images, and photographs are turned as
    their EXIF entry says. `root` is relative to the folder of params.yaml, and `label` names the data on every figure.

    Raises:
        DataError: no such folder, no images in it, too few, of several sizes, an unreadable one, or one that 8 bits of
            red, green and blue do not show (16-bit, CMYK, transparent, animated).
    """
    folder = _open(Path(root).expanduser())
    if others := _left_out(folder):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        print(f"Warning: data.root: {others[0]}{more} left out: no image by its name", file=sys.stderr)
    population = np.stack(_read(folder)).transpose(0, 3, 1, 2)
    return chosen(
        n_examples,
        np.ascontiguousarray(population),
        np.asarray(folder.targets),
        choice=choose,
        seed=seed,
        classes=classes,
        n_classes=len(folder.classes),
        label=label,
        source={
            "name": "imagefolder",
            "classes": [os.fsencode(name).decode("utf-8", "backslashreplace") for name in folder.classes[:classes]],
        },
        n_test=n_test,
        drawn_from=" of all images, sorted by class and path",
    )


def missing(*, root: str, **_others: Any) -> str | None:
    """What has to be put where before `imagefolder` can be called; None: nothing."""
    torchvision_datasets()
    folder = Path(root).expanduser()
    if folder.is_dir():
        return None
    return (
        f"data.root: there is no folder {folder}: put the images there as {folder}/<class>/<image>, "
        "or set `profile: quick` in params.yaml, which needs none"
    )


def _open(root: Path) -> Any:
    datasets = torchvision_datasets()
    if advice := missing(root=str(root)):
        raise DataError(advice)
    try:
        return datasets.ImageFolder(root)
    except OSError as error:
        raise DataError(f"data.root: {root} is not a folder of images <class>/<image> ({error})") from None


def _left_out(folder: Any) -> list[str]:
    """The files in its classes that are no images by their names, less hidden ones."""
    walks = (os.walk(Path(folder.root, name), followlinks=True) for name in folder.classes)
    files = {str(Path(place, name)) for walk in walks for place, _, names in walk for name in names if name[0] != "."}
    return sorted(files - {path for path, _ in folder.samples})


def _read(folder: Any) -> list[np.ndarray]:
    images: list[np.ndarray] = []
    for path, _ in folder.samples:
        images.append(_pixels(path))
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"data.root: all images must have one size, but {folder.samples[0][0]} is {_size(images[0])} and "
                f"{path} is {_size(images[-1])} pixels: bring them to one size first"
            )
    return images


def _pixels(path: str) -> np.ndarray:
    """The picture in a file as a viewer shows it, (height, width, 3), uint8."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if unfit := _unfit(image):
                raise DataError(f"{path} {unfit}")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA").convert("RGB"))
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image ({error}): replace it or remove it") from None


def _unfit(image: Image) -> str | None:
    """Why 8 bits a colour channel do not show the picture, if they do not; Pillow would convert it without a word."""
    # Pillow halves the bits of 16-bit colour images as it reads them, and only its `tile` says so.
    if image.mode[0] in "IF" or re.search(r"(RGBA?|LA);16", str(getattr(image, "tile", ""))):
        return "has more than 8 bits a channel: bring it to 8 first, since you know which values are black and white"
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return f"has {image.mode} colours: convert it to RGB first"
    if (count := getattr(image, "n_frames", 1)) > 1:
        return f"holds {count} pictures: keep one of them"
    may_be_transparent = "A" in image.getbands() or "transparency" in image.info
    if may_be_transparent and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return "is transparent in places: put it on a background first"
    return None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} × {image.shape[0]}"

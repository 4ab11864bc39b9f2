"""Any folder of images in torchvision's `ImageFolder` layout: `<root>/<class>/<image>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from eosrepro.data._common import choose, permutation, torchvision_datasets
from eosrepro.errors import DataError
from eosrepro.types import RawImages


def imagefolder(
    *,
    root: Annotated[str, MinLen(1)],
    n_examples: Annotated[int, Gt(0)],
    label: Annotated[str, MinLen(1)],
    seed: Annotated[int, Ge(0)] = 0,
) -> RawImages:
    """Colour images of one size, `n_examples` at random: the first of a seeded permutation of all in the folder.

    The folder says nothing about the order of the original set, so a random mix of the classes stands in for it; class
    counts are as even as chance makes them. The permutation is of the images sorted by class and path, so another file
    in the folder makes another draw; the provenance holds checksums of the draw and of the pixels. Classes are numbered
    in the order of their folders' names. Grey images become colour images. `root` is relative to the folder of
    params.yaml, and `label` names the data on every figure.

    Raises:
        DataError: no such folder, no images in it, images of several sizes, an unreadable image, or too few images.
    """
    folder = _open(Path(root).expanduser())
    population = np.stack(_read(folder)).transpose(0, 3, 1, 2)
    return choose(
        n_examples,
        np.ascontiguousarray(population),
        np.asarray(folder.targets),
        permutation(len(population), seed),
        n_classes=len(folder.classes),
        label=label,
        source={
            "name": "imagefolder",
            "rule": f"first {n_examples} of the permutation with seed {seed} of all images, sorted by class and path",
            "classes": folder.classes,
        },
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


def _read(folder: Any) -> list[np.ndarray]:
    images: list[np.ndarray] = []
    for path, _ in folder.samples:
        try:
            images.append(np.asarray(folder.loader(path)))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow says SyntaxError of a broken PNG
            raise DataError(f"{path} is not a readable image ({error}): replace it or remove it") from None
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"data.root: all images must have one size, but {folder.samples[0][0]} is {_size(images[0])} and "
                f"{path} is {_size(images[-1])} pixels: bring them to one size first"
            )
    return images


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} × {image.shape[0]}"

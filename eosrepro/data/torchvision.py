"""Any data set of torchvision that has images, classes, and a training and a test part, by its name."""

from __future__ import annotations

import inspect
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from eosrepro.core.types import RawImages, Seed
from eosrepro.data._common import (
    UNREADABLE_ARCHIVE,
    Choice,
    can_unpack,
    chosen,
    members_stay_inside,
    torchvision_datasets,
)
from eosrepro.errors import ConfigError, DataError


def torchvision(
    *,
    dataset: Annotated[str, MinLen(1)],
    root: Annotated[str, MinLen(1)],
    n_examples: Annotated[int, Gt(0)],
    n_test: Annotated[int, Ge(0)] = 0,
    download: bool = False,
    choose: Choice = "first",
    classes: Annotated[int, Ge(1)] | None = None,
    seed: Seed = 0,
) -> RawImages:
    """`n_examples` of the training images of `torchvision.datasets.<dataset>`: MNIST, FashionMNIST, KMNIST, SVHN,
    CIFAR100, STL10, ...; by default the first. The test split are `n_test` of its test images, chosen in the same way.

    All images are read, and have one size. `root`, relative to the folder of params.yaml, is torchvision's: it holds
    the files as torchvision lays them out; where they are not there and `download` is true, torchvision fetches them.

    Raises:
        ConfigError: there is no such data set, or it has no training and test part, or no classes.
        DataError: it is missing or damaged, cannot be fetched, or holds fewer images.
    """

    def images(train: bool, count: int) -> RawImages:
        opened = _open(dataset, Path(root).expanduser(), download=download, train=train)
        population, targets = _read(opened, dataset)
        return chosen(
            count,
            population,
            targets,
            choice=choose,
            seed=seed,
            classes=classes,
            n_classes=len(getattr(opened, "classes", ())) or int(targets.max()) + 1,
            label=dataset if train else f"the test split of {dataset}",
            source={"name": "torchvision", "dataset": dataset},
            images="training images",
            asked="data.n_examples" if train else "data.n_test",
        )

    made = images(True, n_examples)
    if not n_test:
        return made
    kept = images(False, n_test)
    return replace(made, test=(kept.pixels, kept.targets), source={**made.source, "n_test": n_test})


def missing(*, dataset: str, root: str, download: bool = False, **_others: Any) -> str | None:
    """What has to be fetched before `torchvision` can be called, and how; None: nothing."""
    place = Path(root).expanduser()
    try:
        _open(dataset, place, download=False)
    except DataError as error:
        if download and can_unpack():
            return f"{dataset} is not in {place} yet: `dvc repro` downloads it, or put it there"
        return str(error)
    return None


def _open(dataset: str, root: Path, *, download: bool, train: bool = True) -> Any:
    made = _class_of(dataset)
    part: dict[str, Any] = {}
    taken = inspect.signature(made).parameters
    if "train" in taken:
        part = {"train": train}
    elif "split" in taken:
        part = {"split": "train" if train else "test"}
    if not part or "root" not in taken or "download" not in taken:
        raise ConfigError(
            f"data.dataset: torchvision.datasets.{dataset} has no training and test part to download: take another, or "
            "bring its images into folders and read them with `name: imagefolder`"
        )
    try:
        with members_stay_inside():
            return made(root, **part, download=download and can_unpack())
    except (*UNREADABLE_ARCHIVE, ImportError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{dataset} cannot be read from {root} ({reason}). To get it, write `download: true` beside data.root in "
            "params.yaml, which also unpacks archives that lie there, or put its files there as torchvision does. "
            "`profile: quick` needs no download"
        ) from None


def _class_of(dataset: str) -> Any:
    datasets = torchvision_datasets()
    if dataset in datasets.__all__:
        return getattr(datasets, dataset)
    near = get_close_matches(dataset, datasets.__all__, 1) or ["MNIST"]
    raise ConfigError(f"data.dataset: torchvision has no data set {dataset!r} (did you mean {near[0]!r}?)")


def _read(opened: Any, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """All images, (n, channels, height, width), uint8, and their classes, (n,)."""
    images: list[np.ndarray] = []
    targets: list[int] = []
    for image, target in (opened[index] for index in range(len(opened))):
        pixels = np.asarray(image)
        if images and pixels.shape != images[0].shape:
            raise DataError(f"the images of {dataset} are of several sizes: write them in one, and read the folder")
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not isinstance(target, int | np.integer):
            raise ConfigError(f"data.dataset: {dataset} does not consist of images of 8 bits with one class each")
        images.append(pixels)
        targets.append(int(target))
    stacked = np.stack(images)
    stacked = stacked[:, np.newaxis] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked), np.asarray(targets, dtype=np.int64)

"""CIFAR-10, read and verified by torchvision."""

from __future__ import annotations

import platform
import warnings
from dataclasses import replace
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
from eosrepro.errors import DataError


def cifar10(
    *,
    root: Annotated[str, MinLen(1)],
    n_examples: Annotated[int, Gt(0)],
    n_test: Annotated[int, Ge(0)] = 0,
    download: bool = False,
    choose: Choice = "first",
    classes: Annotated[int, Ge(1)] | None = None,
    seed: Seed = 0,
) -> RawImages:
    """`n_examples` of the 50,000 training images, 32 × 32 in colour (Krizhevsky 2009); by default the first.

    The test split are `n_test` of the 10,000 test images, chosen in the same way.

    `root`, relative to the folder of params.yaml, holds `cifar-10-python.tar.gz` or its content `cifar-10-batches-py/`;
    where it holds neither and `download` is true, torchvision fetches the archive. It verifies every file's checksum.

    Raises:
        DataError: the archive is missing, incomplete or altered, cannot be fetched or unpacked, or holds fewer images.
    """

    def images(train: bool, count: int) -> RawImages:
        opened = _open(Path(root).expanduser(), download=download, train=train)
        return chosen(
            count,
            np.ascontiguousarray(opened.data.transpose(0, 3, 1, 2)),
            np.asarray(opened.targets),
            choice=choose,
            seed=seed,
            classes=classes,
            n_classes=10,
            label="CIFAR-10" if train else "the test split of CIFAR-10",
            source={"name": "cifar10", "archive_md5": opened.tgz_md5},
            images="training images",
            asked="data.n_examples" if train else "data.n_test",
        )

    made = images(True, n_examples)
    if not n_test:
        return made
    kept = images(False, n_test)
    return replace(made, test=(kept.pixels, kept.targets), source={**made.source, "n_test": n_test})


def missing(*, root: str, download: bool = False, **_others: Any) -> str | None:
    """What has to be fetched before `cifar10` can be called, and how; None: nothing."""
    datasets, place = torchvision_datasets(), Path(root).expanduser()
    names = (datasets.CIFAR10.filename, datasets.CIFAR10.base_folder)
    if any((place / name).exists() for name in names):
        return None
    if download and can_unpack():
        return f"{names[0]} is not in {place} yet: `dvc repro` downloads it (170 MB), or put it there"
    return _advice(place, datasets.CIFAR10, RuntimeError(), unpacking=False)


def _open(root: Path, *, download: bool, train: bool = True) -> Any:
    datasets = torchvision_datasets()
    archive = root / datasets.CIFAR10.filename
    unpack = False
    try:
        # torchvision unpacks only where it may download, and would download over a damaged archive without being asked.
        unpack = can_unpack() and (download or datasets.utils.check_integrity(archive, datasets.CIFAR10.tgz_md5))
        with warnings.catch_warnings(), members_stay_inside():
            # NumPy 2.4.0 to 2.4.4 warn about how the NumPy of 2009 pickled False.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align")
            return datasets.CIFAR10(root, train=train, download=unpack)
    except UNREADABLE_ARCHIVE as error:
        raise DataError(_advice(root, datasets.CIFAR10, error, unpacking=unpack)) from None


def _advice(root: Path, dataset: Any, error: Exception, *, unpacking: bool) -> str:
    archive, folder = root / dataset.filename, root / dataset.base_folder
    if unpacking:
        problem = f"CIFAR-10 could not be downloaded or unpacked into {root} ({error})"
    elif isinstance(error, OSError):
        problem = f"CIFAR-10 cannot be read from {root} ({error})"
    elif not can_unpack():
        return (
            f"Python {platform.python_version()} cannot unpack {dataset.filename} safely, 3.11.4 and later can: take "
            f"one of those, or unpack {dataset.url} yourself, so that {folder} is there and whole. "
            "`profile: quick` needs neither"
        )
    elif archive.exists():
        problem = f"{archive} is incomplete or altered (its MD5 sum is not {dataset.tgz_md5}): delete it"
    elif folder.exists():
        problem = f"{folder} is incomplete or altered: delete it"
    else:
        problem = f"there is no CIFAR-10 in {root} (data.root)"
    return (
        f"{problem}. To get it, put {dataset.filename} from {dataset.url} into {root}, or write `download: true` "
        "beside data.root in params.yaml. `profile: quick` needs no download"
    )

"""CIFAR-10, read and verified by torchvision."""

from __future__ import annotations

import http.client
import platform
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from eosrepro.core.types import RawImages
from eosrepro.data._common import choose, torchvision_datasets
from eosrepro.errors import DataError


def cifar10(
    *,
    root: Annotated[str, MinLen(1)],
    n_examples: Annotated[int, Gt(0)],
    n_test: Annotated[int, Ge(0)] = 0,
    download: bool = False,
) -> RawImages:
    """The first `n_examples` of the 50,000 training images, 32 × 32 in colour (Krizhevsky 2009).

    The test split are the first `n_test` of the 10,000 test images.

    `root`, relative to the folder of params.yaml, holds `cifar-10-python.tar.gz` or its content `cifar-10-batches-py/`;
    where it holds neither and `download` is true, torchvision fetches the archive. It verifies every file's checksum.

    Raises:
        DataError: the archive is missing, incomplete or altered, cannot be fetched or unpacked, or holds fewer images.
    """
    training_set = _open(Path(root).expanduser(), download=download)
    population = np.ascontiguousarray(training_set.data.transpose(0, 3, 1, 2))
    chosen = choose(
        n_examples,
        population,
        np.asarray(training_set.targets),
        np.arange(len(population)),
        n_classes=10,
        label="CIFAR-10",
        source={"name": "cifar10", "rule": f"first {n_examples} training images", "archive_md5": training_set.tgz_md5},
    )
    if not n_test:
        return chosen
    test_set = _open(Path(root).expanduser(), download=download, train=False)
    if n_test > len(test_set):
        raise DataError(f"CIFAR-10 has {len(test_set)} test images, and data.n_test asks for {n_test}")
    pixels = np.ascontiguousarray(test_set.data.transpose(0, 3, 1, 2))[:n_test]
    test = (pixels, np.asarray(test_set.targets)[:n_test])
    return replace(chosen, test=test, source={**chosen.source, "n_test": n_test})


def missing(*, root: str, download: bool = False, **_others: Any) -> str | None:
    """What has to be fetched before `cifar10` can be called, and how; None: nothing."""
    datasets, place = torchvision_datasets(), Path(root).expanduser()
    names = (datasets.CIFAR10.filename, datasets.CIFAR10.base_folder)
    if any((place / name).exists() for name in names):
        return None
    if download and _can_unpack():
        return f"{names[0]} is not in {place} yet: `dvc repro` downloads it (170 MB), or put it there"
    return _advice(place, datasets.CIFAR10, RuntimeError(), unpacking=False)


def _open(root: Path, *, download: bool, train: bool = True) -> Any:
    datasets = torchvision_datasets()
    archive = root / datasets.CIFAR10.filename
    unpack = False
    try:
        # torchvision unpacks only where it may download, and would download over a damaged archive without being asked.
        unpack = _can_unpack() and (download or datasets.utils.check_integrity(archive, datasets.CIFAR10.tgz_md5))
        with warnings.catch_warnings(), _members_stay_inside():
            # NumPy 2.4.0 to 2.4.4 warn about how the NumPy of 2009 pickled False.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align")
            return datasets.CIFAR10(root, train=train, download=unpack)
    except (OSError, RuntimeError, tarfile.TarError, EOFError, http.client.HTTPException) as error:
        raise DataError(_advice(root, datasets.CIFAR10, error, unpacking=unpack)) from None


def _can_unpack() -> bool:
    """Whether this Python can keep the members of an archive in its folder, as 3.11.4 and later do."""
    return hasattr(tarfile, "data_filter")


@contextmanager
def _members_stay_inside() -> Iterator[None]:
    # torchvision unpacks without a filter, and MD5 alone does not keep out an archive made to write elsewhere.
    if not _can_unpack():
        yield  # and nothing is unpacked
        return
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


def _advice(root: Path, dataset: Any, error: Exception, *, unpacking: bool) -> str:
    archive, folder = root / dataset.filename, root / dataset.base_folder
    if unpacking:
        problem = f"CIFAR-10 could not be downloaded or unpacked into {root} ({error})"
    elif isinstance(error, OSError):
        problem = f"CIFAR-10 cannot be read from {root} ({error})"
    elif not _can_unpack():
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

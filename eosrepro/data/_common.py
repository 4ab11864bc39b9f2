"""What the data sources share: choosing examples with provenance, and getting hold of torchvision."""

from __future__ import annotations

import hashlib
import http.client
import importlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from eosrepro.core.types import RawImages
from eosrepro.errors import DataError

# Which images of a source are the examples: its first; its first of each class, the classes taking turns; or those that
# a seed draws.
Choice = Literal["first", "first_per_class", "random"]

# What torchvision raises of an archive that is missing, damaged or out of reach.
UNREADABLE_ARCHIVE = (OSError, RuntimeError, tarfile.TarError, EOFError, http.client.HTTPException)


def chosen(
    n_examples: int,
    population: np.ndarray,
    targets: np.ndarray,
    *,
    choice: Choice,
    seed: int,
    classes: int | None,
    n_classes: int,
    label: str,
    source: dict[str, Any],
    n_test: int = 0,
    images: str = "images",
    drawn_from: str = "",
    asked: str = "data.n_examples",
) -> RawImages:
    """`n_examples` images of the population, as the options `choose`, `seed` and `classes` of a source say.

    The next `n_test` are the test split.

    Args:
        classes: the first so many classes alone; None: all. The population keeps the images of the others.
        source: provenance, to which the rule is added.
        images: what is chosen, in the words of the rule.
        drawn_from: what the permutation is of, where that needs saying.
        asked: the option that `n_examples` is.

    Raises:
        DataError: there are not as many.
    """
    rule = f"first {n_examples} {images}"
    if choice == "random":
        rule = f"first {n_examples} of the permutation with seed {seed}{drawn_from}"
    elif choice == "first_per_class":
        rule += ", the classes taking turns"
    if classes is not None:
        rule += f", of the first {classes} classes"
    return choose(
        n_examples,
        population,
        targets,
        permutation(len(population), seed) if choice == "random" else np.arange(len(population)),
        n_classes=n_classes,
        label=label,
        source={"name": source["name"], "rule": rule, **source},
        n_test=n_test,
        classes=classes,
        by_turns=choice == "first_per_class",
        asked=asked,
    )


def choose(
    n_examples: int,
    population: np.ndarray,
    targets: np.ndarray,
    order: np.ndarray,
    *,
    n_classes: int,
    label: str,
    source: dict[str, Any],
    n_test: int = 0,
    classes: int | None = None,
    by_turns: bool = False,
    asked: str = "data.n_examples",
) -> RawImages:
    """The first `n_examples` images of the population (n_all, channels, height, width) in the given order (n_all,).

    The next `n_test` of them are the test split.

    Args:
        targets: of the whole population, (n_all,), integers.
        order: of 0..n_all-1, each once.
        classes: the first so many classes alone; None: all.
        by_turns: the classes take turns: example i has class i mod their number.
        asked: the option that `n_examples` is, for messages.

    Raises:
        DataError: the population is smaller than that, or targets or order do not fit it.
    """
    if not len(population):
        raise DataError(f"{label} has no images")
    if len(targets) != len(population):
        raise DataError(f"{label} has {len(population)} images and {len(targets)} targets: each image needs one")
    if not np.array_equal(np.sort(order), np.arange(len(population))):
        raise DataError(f"{label}: order should hold each of the numbers 0..{len(population) - 1} once")
    of_these = ""
    if classes is not None:
        if classes > n_classes:
            raise DataError(f"{label} has {n_classes} classes, and data.classes asks for {classes}")
        order, n_classes, of_these = order[targets[order] < classes], classes, f" of the first {classes} classes"
    if by_turns:
        order, of_these = _by_turns(order, targets, n_classes), f" with which {n_classes} classes can take turns"
    every = n_classes if by_turns else 1
    if not 1 <= n_examples <= len(order) - n_test or n_examples % every or n_test % every:
        less = f" and data.n_test for {n_test}" if n_test else ""
        wanted = f"multiples of {n_classes}" if by_turns else "a number"
        raise DataError(
            f"{label} has {len(order)} images{of_these}, and {asked} asks for {n_examples}{less}: "
            f"take {wanted} from {every} to {len(order) - n_test}"
        )
    taken = order[:n_examples].astype(np.int64)
    kept = order[n_examples : n_examples + n_test]
    pixels = population[taken]
    return RawImages(
        pixels=pixels,
        population=population,
        targets=targets[taken],
        n_classes=n_classes,
        label=label,
        source={
            **source,
            "n_population": len(population),
            "indices_sha256": sha256(taken),
            "pixels_sha256": sha256(pixels),
            **({"n_test": n_test} if n_test else {}),
        },
        test=(population[kept], targets[kept]) if n_test else None,
    )


def _by_turns(order: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """As much of an order as lets the classes take turns, each in the given order: a multiple of `n_classes`."""
    by_class = [order[targets[order] == number] for number in range(n_classes)]
    fewest = min(len(each) for each in by_class)
    return np.stack([each[:fewest] for each in by_class], axis=1).ravel()


def permutation(n: int, seed: int) -> np.ndarray:
    """0..n-1 in an order that only the seed decides, (n,)."""
    return np.random.default_rng(seed).permutation(n)


def sha256(array: np.ndarray) -> str:
    """Checksum of the values in C order, little-endian, in hexadecimal."""
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def torchvision_datasets() -> Any:
    """The module `torchvision.datasets`.

    Raises:
        DataError: torchvision is missing, or was built for another version of PyTorch.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    # A torchvision that does not fit PyTorch passes `pip check` and raises RuntimeError here, or another of these.
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise DataError(
            f"this data source needs torchvision, which cannot be imported ({error}): install the one that fits your "
            "PyTorch (https://pytorch.org), or set `profile: quick` in params.yaml, which does without"
        ) from None


def can_unpack() -> bool:
    """Whether this Python can keep the members of an archive in its folder, as 3.11.4 and later do."""
    return hasattr(tarfile, "data_filter")


@contextmanager
def members_stay_inside() -> Iterator[None]:
    """Within it torchvision unpacks no member of an archive outside of its folder, where this Python can keep it in."""
    # torchvision unpacks without a filter, and MD5 alone does not keep out an archive made to write elsewhere.
    if not can_unpack():
        yield  # and nothing is unpacked
        return
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before

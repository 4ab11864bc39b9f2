"""What the data sources share: choosing examples with provenance, and getting hold of torchvision."""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

import numpy as np

from eosrepro.core.types import RawImages
from eosrepro.errors import DataError


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
) -> RawImages:
    """The first `n_examples` images of the population (n_all, channels, height, width) in the given order (n_all,).

    The next `n_test` of them are the test split.

    Args:
        targets: of the whole population, (n_all,), integers.
        order: of 0..n_all-1, each once.

    Raises:
        DataError: the population is smaller than that, or targets or order do not fit it.
    """
    if not len(population):
        raise DataError(f"{label} has no images")
    if len(targets) != len(population):
        raise DataError(f"{label} has {len(population)} images and {len(targets)} targets: each image needs one")
    if not np.array_equal(np.sort(order), np.arange(len(population))):
        raise DataError(f"{label}: order should hold each of the numbers 0..{len(population) - 1} once")
    if not 1 <= n_examples <= len(population) - n_test:
        less = f" and data.n_test for {n_test}" if n_test else ""
        raise DataError(
            f"{label} has {len(population)} images, and data.n_examples asks for {n_examples}{less}: "
            f"take a number from 1 to {len(population) - n_test}"
        )
    chosen = order[:n_examples].astype(np.int64)
    kept = order[n_examples : n_examples + n_test]
    pixels = population[chosen]
    return RawImages(
        pixels=pixels,
        population=population,
        targets=targets[chosen],
        n_classes=n_classes,
        label=label,
        source={
            **source,
            "n_population": len(population),
            "indices_sha256": sha256(chosen),
            "pixels_sha256": sha256(pixels),
            **({"n_test": n_test} if n_test else {}),
        },
        test=(population[kept], targets[kept]) if n_test else None,
    )


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

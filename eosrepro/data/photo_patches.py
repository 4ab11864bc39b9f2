"""Patches of the two photographs that scikit-learn ships: colour images of CIFAR-10's size without a download."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, MultipleOf

from eosrepro.core.types import RawImages, Seed
from eosrepro.data._common import sha256
from eosrepro.errors import ConfigError

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
STRIPS = 5  # regions of one photograph
SIZE = 32  # height and width of a patch, pixels


def photo_patches(
    *,
    n_examples: Annotated[int, Gt(0), MultipleOf(10)],
    n_test: Annotated[int, Ge(0), MultipleOf(10)] = 0,
    seed: Seed = 0,
    classes: Annotated[int, Ge(1), Le(10)] | None = None,
) -> RawImages:
    """32 × 32 colour patches; the class is the region of the photograph that a patch lies in.

    Each photograph (427 × 640 pixels) is cut into five upright strips of 128 columns: ten disjoint regions. Example i
    has class i mod 10, or mod `classes`, so that classes are equally frequent, and its place within the region is
    uniformly random: which are the examples is no choice. A
    larger `n_examples` with the same seed begins with the same examples; the next `n_test` are the
    test split. There are no images beyond those drawn, so the
    population is the examples themselves.

    Raises:
        ConfigError: `n_examples` is not a positive multiple of the number of classes.
    """
    strips = regions()[:classes]  # (10, 427, 128, 3)
    n_classes, height, width, _ = strips.shape
    if n_examples <= 0 or n_examples % n_classes:
        raise ConfigError(
            f"data.n_examples is {n_examples}: photo-patches has {n_classes} equally frequent classes, "
            f"so take a positive multiple of {n_classes}"
        )
    count = n_examples + n_test
    corners = np.random.default_rng(seed).integers((height - SIZE + 1, width - SIZE + 1), size=(count, 2))
    targets = np.arange(count, dtype=np.int64) % n_classes  # empty, and no error, for a count near 2**63
    windows = np.lib.stride_tricks.sliding_window_view(
        strips, (SIZE, SIZE), axis=(1, 2)
    )  # (10, 396, 97, 3, 32, 32), a view
    patches = windows[targets, corners[:, 0], corners[:, 1]]
    pixels, corners = patches[:n_examples], corners[:n_examples]
    return RawImages(
        pixels=pixels,
        population=pixels,
        targets=targets[:n_examples],
        n_classes=n_classes,
        label="photo-patches",
        source={
            "name": "photo-patches",
            "rule": f"example i: class i mod {n_classes}, top left corner drawn uniformly with seed {seed}",
            "photographs": list(PHOTOGRAPHS),
            "corners_sha256": sha256(corners),
            "pixels_sha256": sha256(pixels),
            **({"n_test": n_test} if n_test else {}),
        },
        test=(patches[n_examples:], targets[n_examples:]) if n_test else None,
    )


def regions() -> np.ndarray:
    """The ten strips, by photograph and from left to right, (10, 427, 128, 3), uint8."""
    from sklearn.datasets import load_sample_image  # a second of import, which only this source needs

    return np.concatenate([np.split(load_sample_image(name), STRIPS, axis=1) for name in PHOTOGRAPHS])

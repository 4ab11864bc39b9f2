"""From pixels to the inputs of a network: an affine map of every pixel, x ↦ (x − centre) / width."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import Dataset, RawImages
from eosrepro.errors import DataError

NamedScale = Literal["unit", "symmetric", "none"]
Standardise = Literal["none", "per_channel", "per_feature", "centre_per_channel", "centre_per_feature"]
Statistics = Literal["subset", "source"]

# The pixel value that becomes 0, and the distance of pixel values that becomes 1.
SCALES: Mapping[NamedScale, tuple[float, float]] = {
    "unit": (0.0, 255.0),
    "symmetric": (127.5, 127.5),
    "none": (0.0, 1.0),
}

BATCH = 1000  # images in float64 at a time


def preprocess(
    raw: RawImages,
    *,
    scale: NamedScale | Mapping[str, float],
    standardise: Standardise,
    statistics: Statistics | Mapping[str, Sequence[float] | None],
) -> Dataset:
    """Images as float32 inputs of the same shape.

    Args:
        raw: images, uint8.
        scale: `unit` maps pixel values to [0, 1], `symmetric` to [−1, 1], `none` leaves them in 0..255;
            {zero: a, one: b} maps the pixel value a to 0 and b to 1.
        standardise: `per_channel` and `per_feature` subtract the mean and divide by the standard deviation (of n, not
            n − 1, values) of each colour channel or of each single input, which makes `scale` immaterial;
            `centre_per_channel` and `centre_per_feature` subtract the mean and divide as `scale` does. A channel or
            input that never varies becomes 0.
        statistics: mean and deviation are those of the examples themselves (`subset`) or of all images of the source
            (`source`); or {mean: [...], deviation: [...]}, given numbers, one a channel, of images scaled as `scale`
            says. Where a channel is only centred there is no deviation.

    Raises:
        DataError: the numbers given are not one a channel.

    The provenance holds the settings, and mean and deviation in pixel values (0..255): per channel as such, per feature
    as checksum and range.
    """
    centre: float | np.ndarray
    width: float | np.ndarray
    if isinstance(scale, str):
        centre, width = SCALES[scale]
    else:
        centre, width = float(scale["zero"]), float(scale["one"] - scale["zero"])  # no whole numbers, as pixels are
    given = {key: [*of] for key, of in statistics.items() if of} if isinstance(statistics, Mapping) else statistics
    record: dict[str, Any] = {"scale": scale, "standardise": standardise, "statistics": given}
    if standardise != "none":
        if isinstance(statistics, str):
            of = raw.population if statistics == "source" else raw.pixels
            mean, deviation = moments(of, per_channel=standardise.endswith("per_channel"))
        else:
            mean, deviation = _given(statistics, raw, centre, width)
        record |= {"mean": _describe(mean), "deviation": _describe(deviation)}
        centre = mean
        if not standardise.startswith("centre_"):
            width = np.where(deviation == 0, 1.0, deviation)

    def tensors(pixels: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = np.concatenate([((batch - centre) / width).astype(np.float32) for batch in _batches(pixels)])
        return torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.int64))

    inputs, targets = tensors(raw.pixels, raw.targets)
    return Dataset(
        inputs=inputs,
        targets=targets,
        n_outputs=raw.n_classes,
        label=raw.label,
        provenance={"source": raw.source, "preprocessing": record},
        test=tensors(*raw.test) if raw.test else None,
    )


def moments(pixels: np.ndarray, *, per_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over uint8 images (n, channels, height, width), in pixel values, float64.

    The shape is (channels, 1, 1) per channel and (channels, height, width) per feature. Pixels are integers and so are
    their sums, so the mean is exact to its one rounding, the deviation to two, and both are the same on every machine.
    Floating-point sums over 50,000 images drift in float32, and their order differs between machines in any precision.
    """
    count = len(pixels)
    total = np.sum([batch.sum(axis=0, dtype=np.int64) for batch in _batches(pixels)], axis=0).astype(object)
    squares = np.sum([np.square(batch, dtype=np.int64).sum(axis=0) for batch in _batches(pixels)], axis=0).astype(
        object
    )
    if per_channel:
        count *= total[0].size
        total, squares = total.sum(axis=(1, 2), keepdims=True), squares.sum(axis=(1, 2), keepdims=True)
    # From here on Python's integers, which do not overflow, and its division of them, which rounds once.
    variance = (count * squares - total**2) / count**2
    return (total / count).astype(np.float64), np.sqrt(variance.astype(np.float64))


def _given(
    statistics: Mapping[str, Sequence[float] | None], raw: RawImages, zero: float, one: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation in pixel values, (channels, 1, 1), where `zero` + x · `one` is the pixel of the number x."""
    mean = statistics["mean"] or []
    deviation = statistics.get("deviation") or [1.0] * len(mean)
    channels = raw.pixels.shape[1]
    for key, values in (("mean", mean), ("deviation", deviation)):
        if len(values) != channels:
            raise DataError(
                f"preprocessing.statistics.{key} has {len(values)} numbers, and images of {raw.label} have {channels} "
                "channels: write one for each"
            )
    shape = (channels, 1, 1)
    return zero + one * np.reshape(mean, shape), one * np.reshape(deviation, shape)


def _batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), BATCH):
        yield pixels[start : start + BATCH]


def _describe(statistic: np.ndarray) -> dict[str, Any]:
    if statistic.shape[1:] == (1, 1):
        return {"values": statistic.ravel().tolist()}
    checksum = hashlib.sha256(statistic.astype("<f8").tobytes()).hexdigest()
    return {"min": float(statistic.min()), "max": float(statistic.max()), "sha256": checksum}

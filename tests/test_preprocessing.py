"""Scaling and standardisation of pixels, against statistics taken the slow way."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from math import sqrt
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import transforms

from eosrepro.core.types import Dataset, RawImages
from eosrepro.data._preprocessing import BATCH, NamedScale, Standardise, Statistics, moments, preprocess
from eosrepro.errors import DataError


def noise(n_examples: int = 40, n_population: int = 100, *, seed: int = 0) -> RawImages:
    """Skewed noise, off centre in each channel by another amount; the examples are the first of the population."""
    generator = np.random.default_rng(seed)
    level = np.array([60, 120, 200]).reshape(1, 3, 1, 1)
    population = np.clip(generator.normal(level, 40, size=(n_population, 3, 4, 5)), 0, 255).astype(np.uint8)
    targets = generator.integers(0, 7, size=n_examples)
    return RawImages(population[:n_examples], population, targets, 7, "noise", {"name": "noise"})


def processed(
    raw: RawImages, scale: NamedScale, standardise: Standardise, statistics: Statistics = "subset"
) -> Dataset:
    return preprocess(raw, scale=scale, standardise=standardise, statistics=statistics)


@pytest.mark.parametrize(("scale", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1), ("none", 0, 255)])
def test_scales_map_the_pixel_range_linearly(scale: NamedScale, low: float, high: float) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    dataset = processed(RawImages(ramp, ramp, np.zeros(256, dtype=np.int64), 1, "ramp"), scale, "none")
    expected = torch.linspace(low, high, 256, dtype=torch.float64).float().reshape(256, 1, 1, 1)

    torch.testing.assert_close(dataset.inputs, expected, rtol=0, atol=1.5e-7 * (high - low))
    assert (dataset.inputs[0].item(), dataset.inputs[-1].item()) == (low, high)


def test_the_data_set_is_float32_of_the_same_shape_with_the_same_targets() -> None:
    raw = noise()
    dataset = processed(raw, "unit", "per_feature")

    assert dataset.inputs.shape == raw.pixels.shape
    assert (dataset.inputs.dtype, dataset.targets.dtype) == (torch.float32, torch.int64)
    assert dataset.targets.tolist() == raw.targets.tolist()
    assert (dataset.n_outputs, dataset.label) == (7, "noise")


@pytest.mark.parametrize("scale", get_args(NamedScale))
@pytest.mark.parametrize(("standardise", "over"), [("per_channel", (0, 2, 3)), ("per_feature", (0,))])
def test_standardised_examples_have_mean_0_and_deviation_1(
    scale: NamedScale, standardise: Standardise, over: tuple[int, ...]
) -> None:
    inputs = processed(noise(), scale, standardise).inputs.double()

    assert inputs.mean(over).abs().max() < 1e-6
    assert (inputs.std(over, correction=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("scale", get_args(NamedScale))
@pytest.mark.parametrize(("standardise", "over"), [("centre_per_channel", (0, 2, 3)), ("centre_per_feature", (0,))])
def test_centring_shifts_and_keeps_the_scale(
    scale: NamedScale, standardise: Standardise, over: tuple[int, ...]
) -> None:
    plain, centred = (processed(noise(), scale, rule).inputs.double() for rule in ("none", standardise))
    unit = (plain.max() - plain.min()).item()

    assert centred.mean(over).abs().max() < 1e-6 * unit
    torch.testing.assert_close(centred, plain - plain.mean(over, keepdim=True), rtol=0, atol=1e-6 * unit)


@pytest.mark.parametrize("standardise", ["per_channel", "per_feature"])
def test_standardisation_makes_the_scale_immaterial(standardise: Standardise) -> None:
    one, *others = (processed(noise(), scale, standardise).inputs for scale in get_args(NamedScale))

    assert all(torch.equal(one, other) for other in others)


def test_statistics_of_the_source_are_those_of_the_population() -> None:
    raw = noise()
    population = raw.population.astype(np.float64)
    expected = (raw.pixels - population.mean(axis=0)) / population.std(axis=0)
    inputs = processed(raw, "unit", "per_feature", "source").inputs

    torch.testing.assert_close(inputs, torch.from_numpy(expected).float())
    assert not torch.allclose(inputs, processed(raw, "unit", "per_feature", "subset").inputs, atol=0.01)


CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "deviation": (0.2023, 0.1994, 0.2010)}


def test_given_statistics_are_those_of_torchvision_transforms() -> None:
    """As `Compose([ToTensor(), Normalize(mean, deviation)])` makes of an image."""
    raw = noise()
    dataset = preprocess(raw, scale="unit", standardise="per_channel", statistics=CIFAR)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CIFAR["mean"], CIFAR["deviation"])])
    expected = torch.stack([transform(image.transpose(1, 2, 0)) for image in raw.pixels])

    torch.testing.assert_close(dataset.inputs, expected, rtol=1e-6, atol=1e-6)
    recorded = dataset.provenance["preprocessing"]
    assert recorded["statistics"] == {key: [*values] for key, values in CIFAR.items()}
    assert recorded["mean"]["values"] == pytest.approx([255 * mean for mean in CIFAR["mean"]])
    assert recorded["deviation"]["values"] == pytest.approx([255 * each for each in CIFAR["deviation"]])
    assert json.loads(json.dumps(dataset.provenance)) == dataset.provenance


@pytest.mark.parametrize("scale", [*get_args(NamedScale), {"zero": 200, "one": 72}])
def test_given_statistics_are_of_scaled_images(scale: Any) -> None:
    """Those that an image scaled in this way has give what `statistics: subset` gives, and centring keeps the scale."""
    raw = noise()
    scaled = preprocess(raw, scale=scale, standardise="none", statistics="subset").inputs.double()
    mean, deviation = scaled.mean((0, 2, 3)).tolist(), scaled.std((0, 2, 3), correction=0).tolist()
    given_numbers = {"mean": mean, "deviation": deviation}
    made = preprocess(raw, scale=scale, standardise="per_channel", statistics=given_numbers).inputs
    sign = -1 if isinstance(scale, dict) else 1  # black is 1 there
    expected = sign * preprocess(raw, scale=scale, standardise="per_channel", statistics="subset").inputs

    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    centring = {"mean": mean, "deviation": None}
    made = preprocess(raw, scale=scale, standardise="centre_per_channel", statistics=centring).inputs
    torch.testing.assert_close(made.double(), scaled - scaled.mean((0, 2, 3), keepdim=True), rtol=1e-5, atol=2e-5)


def test_given_statistics_are_one_a_channel() -> None:
    message = r"preprocessing\.statistics\.mean has 1 numbers, and images of noise have 3 channels: write one for each"
    with pytest.raises(DataError, match=message):
        preprocess(noise(), scale="unit", standardise="per_channel", statistics={"mean": (0.5,), "deviation": (0.2,)})


def test_a_256th_less_the_mean_image() -> None:
    """{zero: 0, one: 256}, centred per feature by the statistics of the source."""
    raw = noise()
    scale = {"zero": 0.0, "one": 256.0}
    made = preprocess(raw, scale=scale, standardise="centre_per_feature", statistics="source").inputs
    expected = raw.pixels / 256 - (raw.population / 256).mean(axis=0)
    torch.testing.assert_close(made, torch.from_numpy(expected).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("statistics", get_args(Statistics))
@pytest.mark.parametrize("standardise", get_args(Standardise))
@pytest.mark.parametrize("scale", get_args(NamedScale))
def test_what_never_varies_becomes_0_and_never_nan(
    scale: NamedScale, standardise: Standardise, statistics: Statistics
) -> None:
    raw = noise()
    raw.population[:, 1] = 77  # a whole channel
    raw.population[:, 2, 0, 0] = 255  # and one pixel of another
    inputs = processed(raw, scale, standardise, statistics).inputs

    assert torch.isfinite(inputs).all()
    if standardise != "none":
        assert not inputs[:, 1].any()
    if standardise.endswith("per_feature"):
        assert not inputs[:, 2, 0, 0].any()


def test_one_example_alone_is_standardised_to_0() -> None:
    assert not processed(noise(n_examples=1), "unit", "per_feature").inputs.any()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 255), min_size=6, max_size=6), min_size=1, max_size=8), st.booleans())
def test_moments_are_exact(values: list[list[int]], per_channel: bool) -> None:
    """Against rational arithmetic: the mean is the nearest float64, the squared deviation too."""
    pixels = np.array(values, dtype=np.uint8).reshape(-1, 2, 1, 3)
    mean, deviation = moments(pixels, per_channel=per_channel)
    columns = pixels.transpose(1, 0, 2, 3).reshape(2, -1) if per_channel else pixels.reshape(len(pixels), -1).T
    for column, got_mean, got_deviation in zip(columns.tolist(), mean.ravel(), deviation.ravel(), strict=True):
        exact = Fraction(sum(column), len(column))
        variance = sum((value - exact) ** 2 for value in column) / len(column)

        assert got_mean == float(exact)
        assert got_deviation == sqrt(float(variance))


def test_moments_of_many_images_neither_drift_nor_overflow() -> None:
    """70,000 images of 254 and 255 by turns: 36 million values, whose squares sum to 2 · 10¹²."""
    pixels = np.full((70_000, 1, 16, 32), 254, dtype=np.uint8)
    pixels[::2] = 255
    for per_channel in (True, False):
        mean, deviation = moments(pixels, per_channel=per_channel)

        assert (mean == 254.5).all()
        assert (deviation == 0.5).all()


def test_batches_are_invisible_in_the_result() -> None:
    raw = noise(n_examples=BATCH + 1, n_population=2 * BATCH + 1)
    pixels = raw.pixels.astype(np.float64)
    expected = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)

    torch.testing.assert_close(processed(raw, "unit", "per_feature").inputs, torch.from_numpy(expected).float())


def test_the_raw_images_are_left_as_they_were_and_the_result_repeats_bitwise() -> None:
    raw = noise()
    before = raw.pixels.tobytes(), raw.population.tobytes()
    one, other = (processed(raw, "unit", "per_feature", "source") for _ in range(2))

    assert (raw.pixels.tobytes(), raw.population.tobytes()) == before
    assert torch.equal(one.inputs, other.inputs)
    assert one.provenance == other.provenance


def test_provenance_holds_settings_source_and_statistics_per_channel() -> None:
    raw = noise()
    provenance = processed(raw, "symmetric", "per_channel").provenance
    mean = raw.pixels.astype(np.float64).mean(axis=(0, 2, 3))
    settings_ = provenance["preprocessing"]

    assert provenance["source"] == raw.source
    assert [settings_[key] for key in ("scale", "standardise", "statistics")] == ["symmetric", "per_channel", "subset"]
    assert settings_["mean"]["values"] == pytest.approx(mean, rel=1e-12)
    assert json.loads(json.dumps(provenance)) == provenance


def test_provenance_holds_checksum_and_range_of_statistics_per_feature() -> None:
    raw = noise()
    deviation = moments(raw.pixels, per_channel=False)[1]
    recorded = processed(raw, "unit", "per_feature").provenance["preprocessing"]["deviation"]

    assert recorded["sha256"] == hashlib.sha256(deviation.tobytes()).hexdigest()
    assert (recorded["min"], recorded["max"]) == (deviation.min(), deviation.max())


def test_nothing_is_measured_where_nothing_is_standardised() -> None:
    assert processed(noise(), "unit", "none").provenance["preprocessing"].keys() == {
        "scale",
        "standardise",
        "statistics",
    }

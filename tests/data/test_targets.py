"""Targets that are numbers, and a test split: from the source to what is found in training."""

from __future__ import annotations

from functools import partial
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import torch

from eosrepro import catalog
from eosrepro.core.objective import network_problem
from eosrepro.core.types import Dataset, Position
from eosrepro.data.chebyshev import chebyshev
from eosrepro.diagnostics.test_split import test_split as split_of
from eosrepro.errors import DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.records.dataset import load_dataset, save_dataset

NUMBERS = torch.tensor([0.7, -0.4, 1.9, 2.2], dtype=torch.float64)


def data(targets: torch.Tensor = NUMBERS) -> Dataset:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Dataset(inputs, targets, 1, "numbers", test=(inputs[:2] + 1, targets[:2] - 1))


def problem(of: Dataset) -> tuple:  # type: ignore[type-arg]
    build = partial(mlp, width=5, depth=1)
    return network_problem(build, mse(), of, seed=0, dtype=torch.float64, device="cpu", chunk_size=3)


def test_numbers_come_back_as_they_are(tmp_path: Path) -> None:
    save_dataset(tmp_path, data())
    loaded = load_dataset(tmp_path)
    assert torch.equal(loaded.targets, NUMBERS)
    assert loaded.test is not None
    assert torch.equal(loaded.test[1], NUMBERS[:2] - 1)
    assert loaded.n_outputs == 1


def test_the_loss_is_half_the_mean_square_and_there_is_no_accuracy() -> None:
    objective, theta = problem(data())
    torch.manual_seed(0)
    module = mlp((3,), 1, width=5, depth=1).double()
    torch.nn.utils.vector_to_parameters(theta, module.parameters())
    outputs = module(data().inputs).detach().numpy()[:, 0]
    found = objective.value_and_grad(theta)
    assert found.loss == pytest.approx(float(np.mean((outputs - NUMBERS.numpy()) ** 2) / 2), rel=1e-12)
    assert isnan(found.accuracy)


def test_targets_may_have_any_shape() -> None:
    targets = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = ((outputs - targets.flatten(1)) ** 2).sum(1) / 2
    torch.testing.assert_close(mse()(outputs, targets.flatten(1)), expected)
    torch.testing.assert_close(mse()(outputs.view(4, 2, 3), targets), expected)


def test_cross_entropy_refuses_numbers() -> None:
    with pytest.raises(DataError, match="is of classes, and these targets are numbers"):
        cross_entropy()(torch.zeros(4, 3), NUMBERS)


def test_the_test_split_is_evaluated_like_the_training_data() -> None:
    of = data()
    objective, theta = problem(of)
    assert of.test is not None
    alone, _ = problem(Dataset(*of.test, 1, "test"))
    (row,) = split_of(objective, [Position(3, theta, None)], test=alone)
    assert (row.step, row.test_loss) == (3, alone.loss(theta))


def test_chebyshev_points_are_those_of_the_formula() -> None:
    made = chebyshev(n_examples=20, degree=5, n_test=7)
    x = np.linspace(-1, 1, 20)
    np.testing.assert_allclose(made.inputs.numpy()[:, 0], x, atol=1e-15)
    np.testing.assert_allclose(made.targets.numpy()[:, 0], np.cos(5 * np.arccos(x)), atol=1e-12)
    assert made.test is not None
    assert made.test[0].shape == (7, 1)


@pytest.mark.parametrize("source", ["digits", "photo-patches"])
def test_no_image_of_the_test_split_is_trained_on(source: str) -> None:
    make = catalog.find("data", source)
    raw, without = make(n_examples=40, n_test=20), make(n_examples=40)
    assert raw.test is not None
    assert raw.pixels.tobytes() == without.pixels.tobytes()
    assert len(raw.test[0]) == len(raw.test[1]) == 20
    assert not {image.tobytes() for image in raw.test[0]} & {image.tobytes() for image in raw.pixels}


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="example 2 has targets that are NaN or infinite"):
        data(torch.tensor([0.0, 1.0, float("nan"), 2.0]))

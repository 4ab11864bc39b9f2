"""Targets that are numbers, and a test split: from the source to what is found in training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import torch

from eosrepro import catalog
from eosrepro.core.objective import network_objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Position, Row, Stop
from eosrepro.data.chebyshev import chebyshev
from eosrepro.diagnostics.test_split import test_split as split_of
from eosrepro.errors import ConfigError, DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
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


def test_r2_is_that_of_its_definition_in_any_chunks_and_shape() -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    for shape in ((7,), (7, 1), (7, 2), (7, 2, 3)):
        targets = 3 + torch.randn(shape, generator=generator, dtype=torch.float64)
        module = mlp((3,), targets[0].numel(), width=5, depth=1).double()
        objective = network_objective(module, mse(), inputs, targets, chunk_size=3)
        theta = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
        z, y = module(inputs).detach().numpy().reshape(7, -1), targets.numpy().reshape(7, -1)
        expected = 1 - ((z - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
        assert objective.value_and_grad(theta).r2 == pytest.approx(expected, rel=1e-12)
        assert objective.value(theta) == pytest.approx((((z - y) ** 2).sum() / 14, expected), rel=1e-12)


def test_r2_is_recorded_at_every_iteration_and_classes_have_none() -> None:
    objective, theta = problem(data())
    visited: list[Position] = []
    rows = list(minimise(objective, theta, gd(step_size=0.1), stop=Stop(3), on_iterate=visited.append))
    assert [row.columns["r2"] for row in rows] == [objective.value(at.theta)[1] for at in visited]
    assert all(isnan(row.accuracy) for row in rows)
    resumed = minimise(objective, visited[2], gd(step_size=0.1), stop=Stop(3))
    assert [repr(row) for row in resumed] == [repr(row) for row in rows[2:]]
    assert [repr(Row.of(row.columns)) for row in rows] == [repr(row) for row in rows]
    classes = replace(data(), targets=torch.tensor([0, 1, 1, 0]), n_outputs=2, test=None)
    assert "r2" not in next(minimise(*problem(classes), gd(step_size=0.1), stop=Stop(1))).columns


def test_a_run_cannot_stop_at_an_accuracy_that_it_has_not() -> None:
    with pytest.raises(ConfigError, match=r"stop at an accuracy of 0\.9, .* its targets are no classes"):
        next(minimise(*problem(data()), gd(step_size=0.1), stop=Stop(3, accuracy=0.9)))


def test_progress_on_small_numbers_is_told_from_rounding() -> None:
    """Targets of 1e-9: losses are of order 1e-18, far below what rounding leaves of classes."""
    objective, theta = problem(replace(data(), targets=1e-9 * NUMBERS, test=None))
    row = next(minimise(objective, 1e-9 * theta, gd(step_size=1e-3), stop=Stop(1)))
    assert row.relative_progress == pytest.approx(-1, abs=1e-2)


def test_an_example_may_have_several_classes() -> None:
    """Two classes an example, as in a sequence: the loss is the mean over both, and so is the accuracy."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 0]])
    module = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Unflatten(1, (2, 3))).double()
    of = Dataset(inputs, targets, 3, "pairs")
    objective = network_objective(module, cross_entropy(), of.inputs, of.targets, chunk_size=3)
    outputs = module(inputs).detach()
    found = objective.value_and_grad(torch.nn.utils.parameters_to_vector(module.parameters()).detach())
    chosen = outputs.log_softmax(-1).gather(-1, targets[..., None])
    assert found.loss == pytest.approx(-chosen.mean().item(), rel=1e-12)
    assert found.accuracy == pytest.approx((outputs.argmax(-1) == targets).double().mean().item())
    with pytest.raises(DataError, match=r"example 1 has the target 3, and the classes are 0\.\.2"):
        replace(of, targets=torch.tensor([[0, 2], [1, 3], [2, 0], [0, 0]]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32])
def test_targets_that_are_neither_classes_nor_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(DataError, match=rf"targets are {dtype}, should be int64 \(classes\) or floats"):
        Dataset(torch.zeros(2, 3), torch.ones(2, dtype=dtype), 2, "neither")


@pytest.mark.parametrize(
    ("test", "what"),
    [
        ((torch.zeros(2, 4, dtype=torch.float64), NUMBERS[:2]), "inputs"),
        ((torch.zeros(2, 3, dtype=torch.float64), NUMBERS[:2, None]), "targets"),
        ((torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])), "targets"),
    ],
)
def test_a_test_split_of_another_kind_is_refused(test: tuple[torch.Tensor, torch.Tensor], what: str) -> None:
    with pytest.raises(DataError, match=f"numbers: {what} of the test split are not like those that are trained on"):
        replace(data(), test=test)


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
    assert row.test_r2 == alone.value_and_grad(theta).r2
    assert isnan(row.test_accuracy)


def test_chebyshev_points_are_those_of_the_formula() -> None:
    made = chebyshev(n_examples=20, degree=5, n_test=7)
    x = np.linspace(-1, 1, 20)
    np.testing.assert_allclose(made.inputs.numpy()[:, 0], x, atol=1e-15)
    np.testing.assert_allclose(made.targets.numpy()[:, 0], np.cos(5 * np.arccos(x)), atol=1e-12)
    assert made.test is not None
    assert made.test[0].shape == (7, 1)
    np.testing.assert_allclose(made.test[0].numpy()[:, 0], (2 * np.arange(7) + 1) / 7 - 1, atol=1e-15)
    np.testing.assert_allclose(made.test[1].numpy(), np.cos(5 * np.arccos(made.test[0].numpy())), atol=1e-12)
    assert not {*made.test[0].flatten().tolist()} & {*made.inputs.flatten().tolist()}


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

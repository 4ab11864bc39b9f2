"""Losses by their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from eosrepro.config.members import _Of
from eosrepro.errors import DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.logistic import logistic
from eosrepro.losses.mse import mse

OUTPUTS = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_cross_entropy_is_log_sum_exp_less_the_output_of_the_class(target: int) -> None:
    expected = math.log(sum(math.exp(z) for z in OUTPUTS[0].tolist())) - OUTPUTS[0, target].item()
    assert cross_entropy()(OUTPUTS, torch.tensor([target])).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("target", "expected"), [(0, 2.125), (1, 5.125), (2, 2.625)])
def test_mse_is_half_the_squared_distance_to_the_one_hot_class(target: int, expected: float) -> None:
    assert mse()(OUTPUTS, torch.tensor([target])).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("factor", [1, 0.1])
def test_mse_is_a_multiple_of_the_squared_distance(factor: float) -> None:
    assert mse(factor=factor)(OUTPUTS, torch.tensor([2])).item() == pytest.approx(factor * 5.25, rel=1e-14)
    numbers = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    assert mse(factor=factor)(OUTPUTS, numbers).item() == pytest.approx(factor * 10.25, rel=1e-14)


def test_a_factor_may_be_written_as_a_fraction() -> None:
    for written, read in (("1/10", 0.1), ("1/3", 1 / 3), (2, 2.0), (0.5, 0.5)):
        assert _Of("losses")._read({"name": "mse", "factor": written}).options == {"factor": read}
    for wrong in ("1/0", "0/3", "-1/2", "half", "0.5", 0, -1, True, f"1{400 * '0'}/1", f"1/1{400 * '0'}"):
        with pytest.raises(ValidationError, match="factor"):
            _Of("losses")._read({"name": "mse", "factor": wrong})


@pytest.mark.parametrize("target", [0, 1, 2])
def test_logistic_tells_each_class_from_the_rest(target: int) -> None:
    expected = sum(
        math.log(1 + math.exp(-z if output == target else z)) for output, z in enumerate(OUTPUTS[0].tolist())
    )
    assert logistic()(OUTPUTS, torch.tensor([target])).item() == pytest.approx(expected, rel=1e-14)


def test_logistic_of_labels_is_that_of_their_margin_however_large_it_is() -> None:
    outputs, labels = torch.tensor([[2.0], [-3.0], [40.0]]).double(), torch.tensor([[1.0], [1.0], [1.0]]).double()
    expected = [math.log1p(math.exp(-z)) for z in (2, -3, 40)]
    assert logistic()(outputs, labels).tolist() == pytest.approx(expected, rel=1e-14)
    assert logistic()(-outputs, -labels[:, 0]).tolist() == pytest.approx(expected, rel=1e-14)
    with pytest.raises(DataError, match="logistic is of classes, or of numbers −1 and 1, and a target is 0:"):
        logistic()(outputs, torch.tensor([[1.0], [0.0], [-1.0]]))


def test_of_sequences_an_example_has_the_mean_over_its_positions_and_mse_the_sum() -> None:
    outputs = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])
    for loss in (cross_entropy(), logistic()):
        alone = loss(outputs.flatten(0, 1), targets.flatten()).view(2, 4)
        torch.testing.assert_close(loss(outputs, targets), alone.mean(1))
    alone = mse()(outputs.flatten(0, 1), targets.flatten()).view(2, 4)
    torch.testing.assert_close(mse()(outputs, targets), alone.sum(1))

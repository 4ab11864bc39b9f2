"""Losses by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse

OUTPUTS = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_cross_entropy_is_log_sum_exp_less_the_output_of_the_class(target: int) -> None:
    expected = math.log(sum(math.exp(z) for z in OUTPUTS[0].tolist())) - OUTPUTS[0, target].item()
    assert cross_entropy()(OUTPUTS, torch.tensor([target])).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("target", "expected"), [(0, 2.125), (1, 5.125), (2, 2.625)])
def test_mse_is_half_the_squared_distance_to_the_one_hot_class(target: int, expected: float) -> None:
    assert mse()(OUTPUTS, torch.tensor([target])).item() == pytest.approx(expected, rel=1e-14)

"""Problems by what their docstrings say of them."""

from __future__ import annotations

import math

import pytest
import torch

from eosrepro import catalog
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.tanh_quadratic import tanh_quadratic


def hessian(name: str, theta: list[float]) -> torch.Tensor:
    return torch.autograd.functional.hessian(catalog.find("problems", name)(), torch.tensor(theta, dtype=torch.float64))


def test_the_quadratic_of_example_1_has_sharpness_40_everywhere() -> None:
    for theta in ([0.0, 0.0], [3.0, -7.0]):
        assert torch.equal(hessian("quadratic", theta), torch.tensor([[40.0, 0.0], [0.0, 2.0]], dtype=torch.float64))


def test_curvatures_are_one_a_coordinate() -> None:
    assert quadratic(curvatures=(1.0, 2.0, 3.0))(torch.tensor([1.0, 2.0, 3.0])).item() == 1 + 8 + 27


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0])
def test_the_tanh_of_the_quadratic(scale: float) -> None:
    theta = torch.tensor([scale, 2 * scale], dtype=torch.float64)
    assert tanh_quadratic()(theta).item() == pytest.approx(math.tanh(24 * scale**2), rel=1e-14)


@pytest.mark.parametrize("name", ["product", "tanh_product"])
@pytest.mark.parametrize("along", [0.5, 8.6, 13.0])
def test_the_sharpness_on_the_valley_is_2_theta_1_squared(name: str, along: float) -> None:
    assert catalog.find("problems", name)()(torch.tensor([along, 0.0])).item() == 0
    assert torch.linalg.eigvalsh(hessian(name, [along, 0.0]))[-1].item() == pytest.approx(2 * along**2)

"""Problems by what their docstrings say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosrepro import catalog
from eosrepro.core.types import Function
from eosrepro.problems.catapult import catapult
from eosrepro.problems.minimal import minimal
from eosrepro.problems.quadratic import quadratic
from eosrepro.problems.tanh_quadratic import tanh_quadratic
from eosrepro.problems.valley import valley


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


# --- toys of the field ------------------------------------------------------------------------------------------------


def descended(f: Function, start: Sequence[float], step_size: float, steps: int) -> tuple[list[float], torch.Tensor]:
    """The losses of gradient descent, and where it ends."""
    theta, losses = torch.tensor(start, dtype=torch.float64), []
    for _ in range(steps):
        leaf = theta.clone().requires_grad_()
        loss = f(leaf)
        losses.append(loss.item())
        theta = theta - step_size * torch.autograd.grad(loss, leaf)[0]
    return losses, theta


def sharpness(f: Function, theta: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(f, theta))[-1])


@pytest.mark.parametrize("along", [0.0, 0.5, 14.7])
def test_the_sharpness_on_arora_s_valley(along: float) -> None:
    assert sharpness(valley(), torch.tensor([along, 0.0], dtype=torch.float64)) == pytest.approx(2 * (1 + along**2))


def test_normalised_steps_from_the_start_of_arora_et_al() -> None:
    """L = (1 + x²)y² from (14.7, −3), η = 5: the first iterate of their notebook to three digits."""
    theta = torch.tensor([14.7, -3.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(valley()(theta), theta)
    assert (theta - 5 * grad / grad.norm()).tolist() == pytest.approx([13.705, 1.900], abs=5e-4)


@given(st.lists(st.floats(0.2, 3), min_size=2, max_size=5))
def test_the_sharpness_at_a_minimum_of_the_minimal_example(weights: list[float]) -> None:
    theta = torch.tensor([*weights, 1 / math.prod(weights)], dtype=torch.float64)
    assert sharpness(minimal(), theta) == pytest.approx(theta.pow(-2).sum().item(), rel=1e-9)


@pytest.mark.parametrize("step_size", [0.1, 0.2, 0.3])
def test_zhu_et_al_s_minimum_at_the_edge(step_size: float) -> None:
    """(c, d) = ((η⁻² − 4)^¼, 1) with c² = x² − z² and d = xz: its sharpness is 2/η."""
    squared_c = (step_size**-2 - 4) ** 0.5
    x = ((squared_c + (squared_c**2 + 4) ** 0.5) / 2) ** 0.5
    theta = torch.tensor([x, x, 1 / x, 1 / x], dtype=torch.float64)
    assert sharpness(minimal(), theta) == pytest.approx(2 / step_size, rel=1e-9)


@pytest.mark.parametrize(("x", "z"), [(2.2, 0.43), (2.5, 0.38), (2.6, 0.40)])
def test_gradient_descent_on_the_minimal_example_ends_just_below_the_edge(x: float, z: float) -> None:
    """From sharpnesses of 0.84, 1.09 and 1.56 in units of 2/η to one within a percent below 1."""
    losses, theta = descended(minimal(), [x, x, z, z], 0.2, 800)
    assert losses[-1] < 1e-10
    assert 0.99 < sharpness(minimal(), theta) * 0.2 / 2 < 1
    assert theta[0] == theta[1]


def net(weights: torch.Tensor, width: int) -> tuple[float, float]:
    """Output z and tangent kernel λ of a linear network with one hidden layer on one example."""
    u, v = weights.chunk(2)
    return (u @ v).item() / width**0.5, weights.square().sum().item() / width


def test_two_numbers_are_a_network_of_any_width() -> None:
    """The losses, the kernel and the sharpness of 2 · 50 weights drawn at random, from a start of two numbers."""
    width, step_size = 50, 1.4
    weights = torch.randn(2 * width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, kernel = net(weights, width)
    total, product = width * kernel, width**0.5 * z
    one, other = math.sqrt(total + 2 * product), math.sqrt(total - 2 * product)
    pair = [(one + other) / 2, (one - other) / 2]
    f = catapult(width=width)
    for steps in (0, 1, 7, 60):
        losses, theta = descended(f, weights.tolist(), step_size, steps + 1)
        of_two, few = descended(f, pair, step_size, steps + 1)
        assert of_two == pytest.approx(losses, rel=1e-8, abs=1e-25)
        assert net(few, width)[1] == pytest.approx(net(theta, width)[1], rel=1e-9)
        assert sharpness(f, few) == pytest.approx(sharpness(f, theta), rel=1e-8)


@given(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0.1, 1.5), st.integers(1, 9))
def test_a_step_of_the_catapult_is_that_of_its_recurrence(u: float, v: float, step_size: float, width: int) -> None:
    z, kernel = net(torch.tensor([u, v], dtype=torch.float64), width)
    _, theta = descended(catapult(width=width), [u, v], step_size, 1)
    after, next_kernel = net(theta, width)
    assert after == pytest.approx((1 - step_size * kernel + step_size**2 * z**2 / width) * z, rel=1e-9, abs=1e-12)
    expected = kernel + step_size / width * z**2 * (step_size * kernel - 4)
    assert next_kernel == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("times", "phase"), [(1.0, "lazy"), (3.0, "catapult"), (4.3, "divergent")])
def test_the_three_phases_of_the_catapult(times: float, phase: str) -> None:
    """λ₀ = 2, z₀ = 1, width 500, and step sizes below 2/λ₀, between that and 4/λ₀, and above."""
    f = catapult(width=500)
    losses, theta = descended(f, [31.614866, 0.707284], times / 2, 200)
    if phase == "divergent":
        assert not math.isfinite(losses[-1])
        return
    assert losses[-1] < 1e-20
    assert (max(losses) > 10 * losses[0]) is (phase == "catapult")
    flatter = sharpness(f, theta)
    assert flatter < 2 / (times / 2)
    assert (flatter < 1) is (phase == "catapult")

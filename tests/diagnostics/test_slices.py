"""Slopes of the loss about its minimum on a line: in closed form, and against a scan of its own."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.types import Position
from eosrepro.diagnostics.slices import Slices, slices
from eosrepro.errors import ConfigError
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, interpolated, small_problem

SOLVED: dict[str, Any] = {"rtol": 1e-6, "max_products": 300, "seed": 0}


def measured(objective: Objective, theta: Tensor, **options: Any) -> Slices:
    (found,) = slices(objective, [Position(4, theta, None)], **SOLVED | options)
    assert found.step == 4
    return found


def test_a_quadratic_has_the_slope_2_everywhere_and_its_minimum_in_closed_form() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.2])
    found = measured(objective, theta)
    slopes = (found.top_slope_inner, found.top_slope_outer, found.gradient_slope_inner, found.gradient_slope_outer)
    assert slopes == pytest.approx((2, 2, 2, 2), abs=1e-6)
    assert found.top_minimum_distance == pytest.approx(0.1, rel=1e-5)
    grad, curvatures = np.array([4.0, 0.4]), np.array([40.0, 2.0])
    along_gradient = (grad @ grad) ** 1.5 / (grad**2 @ curvatures)
    assert found.gradient_minimum_distance == pytest.approx(along_gradient, rel=1e-5)


@pytest.mark.parametrize(("power", "scale"), [(1.0, 1e-3), (1.5, 1e-3), (3.0, 1.0)])
def test_far_out_it_is_the_power_with_which_f_grows(power: float, scale: float) -> None:
    """(scale² + s²)^{p/2}, or s² + s^p where p > 2: quadratic near 0, a power p far out."""

    def f(x: Tensor) -> Tensor:
        square = (x - 2).square().sum()
        return (scale**2 + square) ** (power / 2) if power < 2 else square + 1e4 * square ** (power / 2)

    objective, theta = function_problem(f, [2.3])
    ranges = {"inner": (1e-6, 1e-5), "outer": (1.0, 10.0)}
    found = measured(objective, theta, **ranges)
    assert found.top_slope_inner == pytest.approx(2, abs=0.11 if power > 2 else 0.001)
    assert found.top_slope_outer == pytest.approx(power, abs=0.001)
    assert found.top_minimum_distance == pytest.approx(0.3, rel=1e-5)
    assert found.gradient_slope_outer == pytest.approx(found.top_slope_outer, rel=1e-6)


def test_a_line_that_is_odd_about_its_minimum_is_taken_on_both_sides() -> None:
    """e^x − x is 1 + x²/2 + x³/6 + ...; both sides together are cosh."""
    objective, theta = function_problem(lambda x: (x.exp() - x).sum(), [0.5])
    found = measured(objective, theta, outer=(1.0, 3.0), points=5)
    distances = np.geomspace(1, 3, 5)
    expected = np.polyfit(np.log(distances), np.log(np.cosh(distances) - 1), 1)[0]
    assert found.top_slope_outer == pytest.approx(expected, rel=1e-4)
    assert found.top_slope_inner == pytest.approx(2, abs=1e-4)
    assert found.top_minimum_distance == pytest.approx(0.5, rel=1e-5)


def test_on_a_network_both_are_those_of_a_scan_with_dense_derivatives() -> None:
    objective, theta = small_problem(chunk_size=13)
    found = measured(objective, theta, points=5)
    hessian, grad = dense_hessian(objective, theta), objective.value_and_grad(theta).grad
    for direction, name in ((torch.linalg.eigh(hessian).eigenvectors[:, -1], "top"), (grad / grad.norm(), "gradient")):
        slope = float(direction @ grad)
        near = -slope / abs(float(direction @ hessian @ direction))
        line = minimize_scalar(lambda s: objective.loss(theta + s * direction), (0, near), tol=1e-10)  # noqa: B023
        assert getattr(found, f"{name}_minimum_distance") == pytest.approx(abs(line.x), rel=1e-4)
        for span, which in (((1e-3, 1e-2), "inner"), ((0.1, 1.0), "outer")):
            distances = np.geomspace(*span, 5)
            rises = [
                sum(objective.loss(theta + (line.x + side * s) * direction) for side in (-1, 1)) / 2 - line.fun
                for s in distances
            ]
            expected = np.polyfit(np.log(distances), np.log(rises), 1)[0]
            assert getattr(found, f"{name}_slope_{which}") == pytest.approx(expected, abs=1e-3)
        assert getattr(found, f"{name}_slope_inner") == pytest.approx(2, abs=0.02)


def test_in_float32_what_rounding_hides_is_empty_and_the_rest_is_near() -> None:
    double, single = small_problem(), small_problem(dtype=torch.float32)
    exact = measured(*double)
    found = measured(single[0], double[1].float(), inner=(1e-5, 1e-4), rtol=1e-4)
    assert isnan(found.top_slope_inner)
    assert found.top_slope_outer == pytest.approx(exact.top_slope_outer, abs=1e-3)


def test_a_line_without_a_minimum_has_no_slope() -> None:
    objective, theta = function_problem(lambda x: ((1 + x.square()) ** -0.1).sum(), [0.5])
    found = measured(objective, theta)
    assert isnan(found.top_slope_inner)
    assert isnan(found.top_minimum_distance)


def test_where_the_gradient_is_0_the_top_line_has_its_minimum_here_and_the_other_is_none() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.0, 0.0])
    found = measured(objective, theta)
    assert found.top_minimum_distance == 0
    assert found.top_slope_inner == pytest.approx(2)
    assert isnan(found.gradient_minimum_distance)
    assert isnan(measured(*interpolated()).top_slope_outer)


def test_ranges_that_are_none_are_refused() -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.2])
    with pytest.raises(ConfigError, match=r"slices: outer is \[1, 0.1\]: it should be two increasing"):
        measured(objective, theta, outer=(1.0, 0.1))

"""Alignment with the top eigenvector, and stableness, against dense Hessians."""

from __future__ import annotations

from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Optimizer, Position, Stop
from eosrepro.diagnostics.alignment import Alignment, alignment
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.normalised_gd import normalised_gd
from eosrepro.optimizers.sam import sam
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, interpolated, small_problem

SOLVED: dict[str, Any] = {"rtol": 1e-8, "max_products": 300, "seed": 0}


def measured(objective: Objective, theta: Tensor, optimizer: Optimizer) -> Alignment:
    at = Position(4, theta, optimizer.init(theta))
    (found,) = alignment(objective, [at], optimizer=optimizer, **SOLVED)
    assert found.step == 4
    return found


def test_on_a_quadratic_all_is_in_closed_form() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 1.0])
    grad = (4.0, 2.0)
    found = measured(objective, theta, normalised_gd(0.3))
    assert found.gradient_alignment == pytest.approx(4 / 20**0.5, rel=1e-9)
    assert found.update_alignment == pytest.approx(4 / 20**0.5, rel=1e-9)
    assert found.stableness == pytest.approx(0.3 * 40 / (grad[0] ** 2 + grad[1] ** 2) ** 0.5, rel=1e-9)
    assert measured(objective, theta, gd(0.05)).stableness == pytest.approx(0.05 * 40, rel=1e-9)


def test_the_step_of_sam_is_nearer_to_the_top_eigenvector_than_the_gradient() -> None:
    """H(θ + ρg/‖g‖) = g + ρHg/‖g‖ on a quadratic."""
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 1.0])
    found = measured(objective, theta, sam(0.02, rho=0.5))
    ahead = torch.tensor([4.0, 2.0], dtype=torch.float64)
    ahead = ahead + 0.5 / 20**0.5 * torch.tensor([40.0, 2.0]) * ahead
    assert found.update_alignment == pytest.approx(float(ahead[0] / ahead.norm()), rel=1e-9)
    assert found.update_alignment > found.gradient_alignment


def test_of_every_optimizer_all_is_that_of_the_dense_hessian(optimizer: Optimizer) -> None:
    objective, theta = small_problem()
    path: list[Position] = []
    list(minimise(objective, theta, optimizer, stop=Stop(1), on_iterate=path.append))
    for found, at in zip(alignment(objective, path, optimizer=optimizer, **SOLVED), path, strict=True):
        hessian = dense_hessian(objective, at.theta)
        top = torch.linalg.eigh(hessian).eigenvectors[:, -1]
        here = objective.value_and_grad(at.theta)
        iterate = Iterate(at.theta, here.grad, objective, here.loss)
        update, _ = optimizer.update(iterate, at.state)
        assert found.gradient_alignment == pytest.approx(abs(float(top @ here.grad / here.grad.norm())), abs=1e-6)
        assert found.update_alignment == pytest.approx(abs(float(top @ update / update.norm())), abs=1e-6)
        threshold, preconditioner = optimizer.geometry(iterate, at.state)
        scale = torch.as_tensor(1.0 if preconditioner is None else preconditioner).double().expand(len(top)) ** -0.5
        effective = float(torch.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1])
        assert found.stableness == pytest.approx(2 * effective / threshold, rel=1e-6, nan_ok=True)
        assert isnan(found.stableness) == (not optimizer.threshold_formula)
        assert found.alignment_residual < 1e-7


def test_where_the_gradient_is_0_no_vector_is_aligned() -> None:
    found = measured(*interpolated(), gd(0.1))
    assert isnan(found.gradient_alignment)
    assert isnan(found.update_alignment)
    assert found.stableness == 0

"""The baselines of `eosrepro bench` find what the fast ways find: otherwise they would be no baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eosrepro import baselines
from eosrepro.diagnostics.tau_scan import tau_scan
from eosrepro.lines import minibatch_steps
from tests.conftest import dense_hessian, small_problem


def test_the_floor_of_a_gradient_is_its_matrix_products() -> None:
    multiply = baselines.matrix_products(50, "cpu", (3072, 200, 200, 10))
    with FlopCounterMode(display=False) as counter:
        multiply()
    forward = 2 * 50 * (3072 * 200 + 200 * 200 + 200 * 10)
    assert counter.get_total_flops() == 3 * forward - 2 * 50 * 3072 * 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [40, 13])
def test_eigsh_finds_the_largest_eigenvalue_of_the_dense_hessian(dtype: torch.dtype, chunk_size: int) -> None:
    objective, theta = small_problem(dtype=dtype, chunk_size=chunk_size)
    value, n_products = baselines.cold_eigsh(objective, theta)
    exact, point = small_problem()
    assert value == pytest.approx(float(torch.linalg.eigvalsh(dense_hessian(exact, point))[-1]), rel=1e-5)
    assert n_products >= 20


def test_smoothness_by_gradients_is_the_scan() -> None:
    objective, theta = small_problem()
    values = baselines.smoothness_by_gradients(objective, theta, [0.25, 0.5, 0.75, 1.0], 0.8)
    (found,) = tau_scan(objective, [(0, theta)], step_size=0.8, n_taus=4, tolerance=0)
    assert found.directional_smoothness_mean == pytest.approx(np.mean(values), rel=1e-10)
    assert found.directional_smoothness_std == pytest.approx(np.std(values), rel=1e-8)


def test_steps_by_gradients_are_the_steps() -> None:
    objective, theta = small_problem()
    batches = torch.arange(40).split(16)
    grad = objective.value_and_grad(theta).grad
    fast = minibatch_steps(objective, theta, grad, batches, step_size=0.7)
    for one, other in zip(fast, baselines.steps_by_gradients(objective, theta, batches, 0.7), strict=True):
        assert one == pytest.approx(other, rel=1e-10)

"""The baselines of `eosrepro bench` find what the fast ways find: otherwise they would be no baselines."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baselines
from eosrepro.core.objective import LinearFirst
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


def test_without_its_first_layer_known_a_function_is_the_same() -> None:
    objective, theta = small_problem(chunk_size=13)
    general = baselines.without_first_layer(objective)
    assert all(isinstance(part, LinearFirst) for part in objective.parts)
    assert not any(isinstance(part, LinearFirst) for part in general.parts)
    assert torch.equal(general.value_and_grad(theta).grad, objective.value_and_grad(theta).grad)

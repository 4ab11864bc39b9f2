"""Eigenvalues against prescribed spectra, dense solvers and scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from eosrepro.errors import ConfigError
from eosrepro.lanczos import NotConvergedError, lowest_rtol, top_eigenpairs
from eosrepro.objective import Objective
from tests.conftest import dense_hessian, small_problem


def start_vector(size: int, *, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("seed", range(3))
def test_sharpness_of_small_networks_agrees_with_the_dense_hessian(activation: str, seed: int) -> None:
    objective, theta = small_problem(activation, seed=seed)
    expected = torch.linalg.eigvalsh(dense_hessian(objective, theta))[-1].item()
    pair = top_eigenpairs(objective.hvp(theta), start_vector(len(theta)), rtol=1e-4)[0]

    assert pair.value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_sharpness_in_single_precision_agrees_with_the_dense_hessian_in_double(activation: str) -> None:
    single, theta = small_problem(activation, dtype=torch.float32)
    double, _ = small_problem(activation)
    expected = torch.linalg.eigvalsh(dense_hessian(double, theta.double()))[-1].item()
    pair = top_eigenpairs(single.hvp(theta), start_vector(len(theta)).float(), rtol=1e-4)[0]

    assert pair.value == pytest.approx(expected, rel=1e-4)


def test_the_largest_is_the_most_positive_not_the_largest_in_magnitude(
    matrix_with: Callable[[list[float]], Tensor],
) -> None:
    matrix = matrix_with([-30.0, *np.linspace(-1, 1, 60).tolist(), 2.0])
    pair = top_eigenpairs(matrix.mv, start_vector(62), rtol=1e-6)[0]

    assert pair.value == pytest.approx(2.0, rel=1e-6)


def test_where_the_most_negative_curvature_of_a_network_is_larger_in_magnitude() -> None:
    """−f of a network: its spectrum is that of f turned round, so the largest magnitude is negative."""
    objective, theta = small_problem()
    hvp, spectrum = objective.hvp(theta), torch.linalg.eigvalsh(-dense_hessian(objective, theta))
    pair = top_eigenpairs(lambda vector: -hvp(vector), start_vector(len(theta)), rtol=1e-4)[0]

    assert -spectrum[0] > 2 * spectrum[-1] > 0
    assert pair.value == pytest.approx(spectrum[-1].item(), rel=1e-4)


def test_where_the_two_top_curvatures_of_a_network_are_one_percent_apart() -> None:
    """f(θ_a) + 0.99 f(θ_b), of two copies of one network: every eigenvalue has a neighbour 1 % below it."""
    single, theta = small_problem()
    part, size = single.parts[0], len(theta)

    def twins(point: Tensor) -> tuple[Tensor, Tensor]:
        first, second = part(point[:size]), part(point[size:])
        return first[0] + 0.99 * second[0], first[1]

    objective, both = Objective(2 * size, [twins], single.n_examples), torch.cat([theta, theta])
    expected = torch.linalg.eigvalsh(dense_hessian(objective, both))
    top, second = top_eigenpairs(objective.hvp(both), start_vector(2 * size), k=2, rtol=1e-4)

    assert expected[-2].item() == pytest.approx(0.99 * expected[-1].item())
    assert top.value == pytest.approx(expected[-1].item(), rel=1e-4)
    assert second.value == pytest.approx(expected[-2].item(), rel=1e-4)
    assert top_eigenpairs(objective.hvp(both), start_vector(2 * size), rtol=1e-4)[0].value == pytest.approx(
        expected[-1].item(), rel=1e-4
    )


def test_two_top_eigenvalues_one_percent_apart_are_told_apart(matrix_with: Callable[[list[float]], Tensor]) -> None:
    matrix = matrix_with([*np.linspace(-5, 5, 100).tolist(), 9.9, 10.0])
    top, second = top_eigenpairs(matrix.mv, start_vector(102), k=2, rtol=1e-6)

    assert top.value == pytest.approx(10.0, rel=1e-4)
    assert second.value == pytest.approx(9.9, rel=1e-4)
    assert top_eigenpairs(matrix.mv, start_vector(102), rtol=1e-4)[0].value == pytest.approx(10.0, rel=1e-4)


def test_agrees_with_scipy() -> None:
    objective, theta = small_problem()
    hvp = objective.hvp(theta)
    size = len(theta)
    operator = LinearOperator(
        (size, size), matvec=lambda v: hvp(torch.from_numpy(v.ravel().copy())).numpy(), dtype=float
    )
    expected = np.sort(eigsh(operator, k=3, which="LA", return_eigenvectors=False))[::-1]
    pairs = top_eigenpairs(hvp, start_vector(size), k=3, rtol=1e-8)

    np.testing.assert_allclose([pair.value for pair in pairs], expected, rtol=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    eigenvalues=st.lists(st.floats(-100, 100), min_size=2, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_the_residual_bounds_the_distance_to_an_eigenvalue_and_is_the_true_residual(
    eigenvalues: list[float], seed: int
) -> None:
    matrix = torch.diag(torch.tensor([*eigenvalues, 101.0], dtype=torch.float64))
    pair = top_eigenpairs(matrix.mv, start_vector(len(matrix), seed=seed), rtol=1e-3)[0]
    residual = torch.linalg.vector_norm(matrix @ pair.vector - pair.value * pair.vector).item()

    assert residual == pytest.approx(pair.residual, abs=1e-9)
    assert min(abs(pair.value - λ) for λ in [*eigenvalues, 101.0]) <= pair.residual + 1e-9
    assert torch.linalg.vector_norm(pair.vector).item() == pytest.approx(1.0)


def test_counts_the_products_it_makes(matrix_with: Callable[[list[float]], Tensor]) -> None:
    matrix, calls = matrix_with(np.linspace(0, 1, 50).tolist()), []

    def matvec(vector: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ vector

    pair = top_eigenpairs(matvec, start_vector(50), rtol=1e-4)[0]

    assert pair.products == len(calls) < 50


def test_what_did_not_converge_is_not_returned(matrix_with: Callable[[list[float]], Tensor]) -> None:
    matrix = matrix_with(np.linspace(0, 1, 200).tolist())

    with pytest.raises(NotConvergedError, match=r"after 4 products.*Raise max_products"):
        top_eigenpairs(matrix.mv, start_vector(200), rtol=1e-6, max_products=4)


def test_a_start_in_an_invariant_subspace_ends_early_with_residual_zero() -> None:
    """Why no solve starts from the last eigenvector alone: right about a pair, wrong about the largest."""
    matrix = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    pair = top_eigenpairs(matrix.mv, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), rtol=1e-3)[0]

    assert (pair.value, pair.residual, pair.products) == (1.0, 0.0, 1)


@pytest.mark.parametrize(("k", "message"), [(0, "k = 0"), (6, "k = 6")])
def test_impossible_counts_are_refused(k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(torch.eye(5).mv, torch.ones(5), k=k, rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [
        (torch.float32, 3e-3),
        (torch.float32, 3e-4),
        (torch.float64, 1e-10),
        (torch.float64, 1e-12),
    ],
)
def test_the_residual_is_that_of_the_pair(
    matrix_with: Callable[[list[float]], Tensor], dtype: torch.dtype, rtol: float
) -> None:
    matrix = matrix_with([*np.linspace(-1, 20, 298).tolist(), 30.0, 31.0])
    pair = top_eigenpairs(matrix.to(dtype).mv, start_vector(300).to(dtype), rtol=rtol)[0]
    vector = pair.vector.double()
    true = torch.linalg.vector_norm(matrix @ vector - pair.value * vector).item()

    assert pair.residual == pytest.approx(true, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_accuracy_out_of_the_reach_of_the_precision_is_refused(dtype: torch.dtype) -> None:
    matrix = torch.eye(3, dtype=dtype)
    with pytest.raises(ConfigError, match="out of the reach"):
        top_eigenpairs(matrix.mv, matrix[0], rtol=lowest_rtol(dtype) / 2)

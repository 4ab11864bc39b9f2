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

from eosrepro.core.lanczos import NotConvergedError, bottom_eigenpair, krylov_spaces, lowest_rtol, top_eigenpairs
from eosrepro.core.objective import Objective
from eosrepro.errors import ConfigError
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

    both = torch.cat([theta, theta])
    objective = Objective(both, [twins], single.n_examples)
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


DTYPES = [torch.float32, torch.float64]
SPECTRA: dict[str, list[float]] = {
    "identity": [1.0] * 6,
    "zero": [0.0] * 6,
    "rank one": [5.0] + [0.0] * 20,
    "rank two, twice the same": [5.0, 5.0] + [0.0] * 20,
    "fewer distinct ones than are asked for": [3.0] * 4 + [2.0] * 3 + [1.0] * 10,
    "negative semidefinite": [0.0] * 9 + [-1.0] * 4 + [-5.0] * 3,
    "negative definite": [-1.5, -2.0, -3.0, -4.0, -5.0],
    "a larger magnitude below": [2.0, 2.0, 2.0, 1.0, 0.5] + [0.0] * 50 + [-30.0] * 3,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_multiple_eigenvalues_are_found_as_often_as_they_stand(
    matrix_with: Callable[[list[float]], Tensor], spectrum: list[float], k: int, dtype: torch.dtype
) -> None:
    scale, size, matrix = max(map(abs, spectrum)), len(spectrum), matrix_with(spectrum).to(dtype)
    for product in (matrix.mv, lambda vector: torch.tensor(spectrum, dtype=dtype) * vector):
        pairs = top_eigenpairs(product, start_vector(size).to(dtype), k=k, rtol=1e-4)
        vectors = torch.stack([pair.vector for pair in pairs])

        assert [pair.value for pair in pairs] == pytest.approx(spectrum[:k], rel=1e-4, abs=1e-6 * scale)
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(k, dtype=dtype), rtol=0, atol=1e-5)
        for pair in pairs:
            true = torch.linalg.vector_norm(product(pair.vector) - pair.value * pair.vector).item()
            assert true <= pair.residual + 1e-5 * scale


def test_a_multiple_eigenvalue_inside_a_spectrum_is_found_as_often(
    matrix_with: Callable[[list[float]], Tensor],
) -> None:
    """No start is exhausted here: each has a long Krylov space of its own."""
    matrix = matrix_with([*np.linspace(-2, 5, 100).tolist(), 8.0, 8.0, 10.0])
    values = [pair.value for pair in top_eigenpairs(matrix.mv, start_vector(103), k=3, rtol=1e-5)]

    assert values == pytest.approx([10.0, 8.0, 8.0], rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_starts_are_all_used(dtype: torch.dtype) -> None:
    diagonal = torch.arange(9, dtype=dtype)
    starts = torch.eye(9, dtype=dtype)[[2, 7]]
    pairs = top_eigenpairs(lambda vector: diagonal * vector, starts, k=2, rtol=1e-4)

    assert [(pair.value, pair.products) for pair in pairs] == [(7.0, 2), (2.0, 2)]


def test_an_eigenvalue_near_zero_is_found_to_a_share_of_the_scale() -> None:
    """λ_min = 0 below a spectrum that decays to it, as where a network is linear in θ: no share of 0 is reached."""
    diagonal = 12 * torch.linspace(0, 1, 400, dtype=torch.float64) ** 6
    bottom = bottom_eigenpair(lambda vector: diagonal * vector, start_vector(400), rtol=1e-2)
    (top,) = top_eigenpairs(lambda vector: -diagonal * vector, start_vector(400), rtol=1e-2)

    for pair in (bottom, top):
        assert pair.value == pytest.approx(0.0, abs=1e-4 * 12)
        assert 0 < pair.residual <= 1e-4 * 12  # rtol of a hundredth of the scale


def test_an_eigenvalue_of_a_hundredth_of_the_scale_is_found_to_its_own_share(
    matrix_with: Callable[[list[float]], Tensor],
) -> None:
    matrix = matrix_with([-0.2, *np.linspace(-0.1, 1, 100).tolist(), 16.0])
    pair = bottom_eigenpair(matrix.mv, start_vector(102), rtol=1e-2)

    assert pair.value == pytest.approx(-0.2, rel=1e-2)
    assert pair.residual <= 1e-2 * 0.2


def test_near_zero_no_more_is_asked_than_the_numbers_can_hold() -> None:
    """In float32, at the least rtol, an eigenvalue of a thousandth of the scale."""
    diagonal = torch.cat([torch.tensor([1e-3]), -torch.linspace(0, 1, 60)])
    rtol = lowest_rtol(torch.float32)
    (pair,) = top_eigenpairs(lambda vector: diagonal * vector, start_vector(61).float(), rtol=rtol)

    assert pair.value == pytest.approx(1e-3, abs=rtol)
    assert rtol * 1e-2 < pair.residual <= rtol


def with_component(share: float, size: int, *, seed: int) -> Tensor:
    """A random direction of which `share`/√size lies along the first axis."""
    start = start_vector(size, seed=seed)
    start[0] = 0
    return start / torch.linalg.vector_norm(start) + share / size**0.5 * torch.eye(size, dtype=torch.float64)[0]


def close_pair() -> Tensor:
    """A diagonal with two top eigenvalues, 1 and 0.93, above a spectrum as networks have it."""
    few, many = torch.linspace(0.6, -0.1, 20), 0.3 * torch.linspace(0, 1, 278) ** 3
    return torch.cat([torch.tensor([1.0, 0.93]), few, many]).double()


def test_a_start_with_little_of_the_top_eigenvector_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.02/√P: one random start in sixty has less. By its residual alone the second would pass for the first."""
    diagonal = close_pair()
    starts = [with_component(0.02, len(diagonal), seed=seed) for seed in range(20)]

    def found() -> list[float]:
        return [top_eigenpairs(lambda v: diagonal * v, start, rtol=3e-3)[0].value for start in starts]

    assert found() == pytest.approx([1.0] * 20, rel=3e-3)
    monkeypatch.setattr("eosrepro.core.lanczos.CHANCE", 1e9)
    assert sum(value < 0.94 for value in found()) >= 3


def test_the_known_density_of_a_start_saves_products() -> None:
    diagonal = close_pair()
    start = diagonal**4
    informed, random = (
        top_eigenpairs(lambda v: diagonal * v, start, rtol=1e-2, density=density)[0] for density in (0.1, None)
    )

    assert informed.value == pytest.approx(1.0, rel=1e-2)
    assert informed.products < random.products


def test_a_start_is_taken_for_random_where_nothing_is_known_of_it() -> None:
    """The component of a random unit vector along a given one is nearly normal, with variance 1/P."""
    diagonal = close_pair()
    density = (len(diagonal) / (2 * np.pi)) ** 0.5

    def products(**known: float) -> list[int]:
        starts = (start_vector(len(diagonal), seed=seed) for seed in range(10))
        return [top_eigenpairs(lambda v: diagonal * v, start, rtol=3e-3, **known)[0].products for start in starts]

    assert products() == products(density=density)
    assert sum(products(density=density / 3)) < sum(products()) < sum(products(density=3 * density))


def test_the_polynomial_bounds_what_a_start_has_of_a_larger_eigenvector() -> None:
    diagonal = close_pair()
    start = with_component(1e-6, len(diagonal), seed=0)
    logs = []
    for space in krylov_spaces(lambda vector: diagonal * vector, start[None], 30):
        if space.values[-1] < 0.95:
            logs.append(space.log_polynomial(1.0))

    assert np.log(1e6 * len(diagonal) ** 0.5) >= max(logs) > np.log(1e6)
    explicit = torch.linalg.eigvalsh(torch.diag(diagonal))  # at m = 1: (λ − α)/β, with the moments of the start
    weights = (start / torch.linalg.vector_norm(start)) ** 2
    alpha = (weights * diagonal).sum()
    beta = (weights * (diagonal - alpha) ** 2).sum().sqrt()
    assert logs[0] == pytest.approx(torch.log((explicit[-1] - alpha) / beta).item())


@pytest.mark.parametrize("k", [1, 3])
def test_of_a_matrix_that_is_not_finite_nothing_is_said(k: int) -> None:
    for factor in (float("nan"), float("inf"), 1e38):
        calls: list[int] = []

        def product(vector: Tensor, factor: float = factor, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return factor * torch.arange(1.0, 6.0) * vector * 100

        pairs = top_eigenpairs(product, torch.ones(5), k=k, rtol=1e-3, extra=1)
        assert len(calls) == 1
        assert len(pairs) >= k
        for pair in pairs:
            assert np.isnan([pair.value, pair.residual]).all()
            assert pair.vector.isnan().all()
            assert pair.vector.shape == (5,)
            assert pair.products == 1


def test_room_grows_with_use_and_not_with_the_products_allowed() -> None:
    """As many products as there are parameters in the paper's network: a square of it would be 3.5 TB."""
    size = 656_810
    diagonal = torch.arange(size) % 3 + 1.0
    (pair,) = top_eigenpairs(lambda vector: diagonal * vector, torch.ones(size), rtol=1e-3, max_products=size)

    assert pair.value == pytest.approx(3.0, rel=1e-3)
    assert pair.products <= 4


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("n_starts", [1, 3])
@pytest.mark.parametrize("share", [1.0, 1e-3, 1e-5, 1e-9, 1e-13])
def test_the_basis_stays_orthonormal(
    matrix_with: Callable[[list[float]], Tensor], share: float, n_starts: int, dtype: torch.dtype, error: float
) -> None:
    """Past convergence, where rounding errors would bring the eigenvectors that were found back, and where a start is
    nearly an eigenvector: what a product adds is then a small difference of large numbers."""
    spectrum, vectors = torch.linalg.eigh(matrix_with([*np.linspace(-1, 1, 117).tolist(), 20.0, 40.0, 41.0]))
    matrix = (vectors @ torch.diag(spectrum) @ vectors.T).to(dtype)
    random = torch.randn(n_starts, 120, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = vectors[:, -n_starts:].T + share * random
    *_, space = krylov_spaces(matrix.mv, starts.to(dtype), 60)

    torch.testing.assert_close(
        space.basis @ space.basis.T, torch.eye(len(space.basis), dtype=dtype), rtol=0, atol=error
    )

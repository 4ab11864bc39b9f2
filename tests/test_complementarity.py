"""The semidefinite complementarity problem of the central flow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosrepro.core.complementarity import UnsolvableError, complement, symmetric_basis


def draw(k: int, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """A random A, and a random B of that rank."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(k, k, generator=generator, dtype=torch.float64)
    size = k * (k + 1) // 2
    factor = torch.randn(size, rank, generator=generator, dtype=torch.float64)
    return matrix + matrix.T, factor @ factor.T


def residual_of(found: Tensor, constant: Tensor, operator: Tensor) -> Tensor:
    basis = symmetric_basis(len(constant))
    return constant + torch.einsum("aij,a->ij", basis, operator @ torch.einsum("aij,ij->a", basis, found))


def test_the_basis_is_orthonormal() -> None:
    basis = symmetric_basis(3)
    products = torch.einsum("aij,bij->ab", basis, basis)
    torch.testing.assert_close(products, torch.eye(6, dtype=torch.float64))
    assert torch.equal(basis, basis.transpose(1, 2))


@given(k=st.integers(1, 4), seed=st.integers(0, 10_000), size=st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_both_are_positive_semidefinite_and_orthogonal(k: int, seed: int, size: float) -> None:
    """B is of full rank, which has one solution whatever A is."""
    constant, operator = draw(k, k * (k + 1) // 2 + 2, seed)
    operator = size * operator
    found = complement(constant, operator)
    rest = residual_of(found, constant, operator)
    scale = torch.linalg.matrix_norm(constant)
    assert torch.linalg.eigvalsh(found)[0] >= 0
    assert torch.linalg.eigvalsh(rest)[0] >= -1e-6 * scale
    assert abs((found * rest).sum()) <= 1e-6 * scale * torch.linalg.matrix_norm(found)


@pytest.mark.parametrize(("constant", "expected"), [(-3.0, 1.5), (2.0, 0.0), (0.0, 0.0)])
def test_of_one_number_it_is_a_quotient(constant: float, expected: float) -> None:
    found = complement(torch.tensor([[constant]]).double(), torch.tensor([[2.0]]).double())
    assert found.item() == pytest.approx(expected, rel=1e-8)


def test_of_independent_numbers_each_has_its_own() -> None:
    """With B the identity, X is the negative part of A."""
    constant, _ = draw(3, 1, 0)
    values, vectors = torch.linalg.eigh(constant)
    expected = vectors @ torch.diag((-values).clamp(min=0)) @ vectors.T
    found = complement(constant, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_trace_alone_decides_where_b_sees_no_more() -> None:
    """B[X] = tr(X)·1 and A = −1: any X of trace 1 solves it."""
    basis = symmetric_basis(2)
    traces = torch.einsum("aii->a", basis)
    found = complement(-torch.eye(2, dtype=torch.float64), torch.outer(traces, traces))
    assert found.trace().item() == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize("operator", [torch.zeros(3, 3), torch.diag(torch.tensor([0.0, 0.0, 1.0]))])
def test_where_nothing_holds_a_direction_it_says_so(operator: Tensor) -> None:
    with pytest.raises(UnsolvableError):
        complement(-torch.eye(2, dtype=torch.float64), operator.double())

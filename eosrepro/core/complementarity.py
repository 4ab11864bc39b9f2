"""A semidefinite complementarity problem: X ⪰ 0 and A + B[X] ⪰ 0, each zero where the other is not."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING

from eosrepro.core.later import torch
from eosrepro.errors import EosreproError

if TYPE_CHECKING:
    from torch import Tensor

CENTRES = tuple(10.0**-exponent for exponent in range(11))  # what X (A + B[X]) is, as a multiple of the identity
NEWTON_STEPS = 50
LARGEST = 1e8  # a solution beyond it, in units of ‖A‖/‖B‖, is none


class UnsolvableError(EosreproError):
    """No X makes A + B[X] positive semidefinite."""


def symmetric_basis(k: int) -> Tensor:
    """An orthonormal basis of the symmetric k × k matrices, (k(k+1)/2, k, k), float64."""
    rows, columns = torch.tril_indices(k, k)
    basis = torch.zeros(len(rows), k, k, dtype=torch.float64)
    each = torch.arange(len(rows))
    basis[each, rows, columns] = basis[each, columns, rows] = torch.where(rows == columns, 1.0, 1 / sqrt(2)).double()
    return basis


def complement(residual: Tensor, operator: Tensor) -> Tensor:
    """X ⪰ 0 with R = A + B[X] ⪰ 0 and X R = 0, to about 1e-6 of their sizes.

    It minimises ½⟨X, B[X]⟩ + ⟨A, X⟩ over X ⪰ 0, here along the path X R = μ1, μ → 0, by Newton's method.

    Args:
        residual: A, (k, k), symmetric, float64.
        operator: B in the coordinates of `symmetric_basis`, positive semidefinite, (k(k+1)/2, k(k+1)/2), float64.

    Raises:
        UnsolvableError: there is no such X.
    """
    basis = symmetric_basis(len(residual))
    if torch.linalg.eigvalsh(residual)[0] >= 0:
        return torch.zeros_like(residual)
    sizes = torch.linalg.matrix_norm(residual), torch.linalg.matrix_norm(operator)
    if not sizes[1] > 0:
        raise UnsolvableError("A is not positive semidefinite, and B is 0")
    constant, linear = torch.einsum("aij,ij->a", basis, residual) / sizes[0], operator / sizes[1]
    found = torch.eye(len(residual), dtype=torch.float64)
    for centre in CENTRES:
        found = _central(basis, constant, linear, found, centre)
    unit: Tensor = sizes[0] / sizes[1]
    return unit * found


def _central(basis: Tensor, constant: Tensor, linear: Tensor, start: Tensor, centre: float) -> Tensor:
    """The least point of ½⟨x, Bx⟩ + ⟨a, x⟩ − μ log det X, from a positive definite `start`."""

    def height(at: Tensor, matrix: Tensor) -> float:
        triangle, failed = torch.linalg.cholesky_ex(matrix)
        if failed:
            return inf
        barrier = 2 * centre * triangle.diagonal().log().sum()
        return float(at @ (linear @ at) / 2 + constant @ at - barrier)

    x, matrix = torch.einsum("aij,ij->a", basis, start), start
    for _ in range(NEWTON_STEPS):
        if torch.linalg.matrix_norm(matrix) > LARGEST:
            raise UnsolvableError("A + B[X] is positive semidefinite for no X of reasonable size")
        inverse = torch.linalg.inv(matrix)
        turned = torch.einsum("ij,ajk,kl->ail", inverse, basis, inverse)
        slope = linear @ x + constant - centre * torch.einsum("aij,ij->a", basis, inverse)
        curvature = linear + centre * torch.einsum("aij,bij->ab", basis, turned)
        step = -torch.linalg.solve(curvature, slope)
        promised = -(slope @ step).item()
        if promised <= 1e-6 * centre:  # a hundredth of the way to the next centre is nearer than needed
            return matrix
        here, share = height(x, matrix), 1.0
        while share > 1e-12:
            trial = x + share * step
            trial_matrix = torch.einsum("a,aij->ij", trial, basis)
            if height(trial, trial_matrix) <= here - 0.1 * share * promised:
                break
            share /= 2
        else:
            return matrix  # rounding leaves nothing to gain
        x, matrix = trial, trial_matrix
    return matrix

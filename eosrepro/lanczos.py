"""Largest eigenvalues of a symmetric matrix that is known only by its products with vectors.

Lanczos' method with full reorthogonalisation. "Largest" means algebraically largest: the most positive, not the largest
in magnitude. All products count, and every eigenvalue is returned with its residual ‖A v − λ v‖, which bounds the
distance from λ to the nearest eigenvalue. It is the residual that Lanczos' recurrence gives: rounding errors drown it
where it comes near the precision of the numbers, and so far down `rtol` may not go.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eosrepro.errors import EosreproError
from eosrepro.types import EigenPair

Matvec = Callable[[Tensor], Tensor]


def lowest_rtol(dtype: torch.dtype) -> float:
    """The smallest `rtol` at which the residual that the recurrence gives can be told from its rounding errors."""
    return 30 * torch.finfo(dtype).eps


class NotConvergedError(EosreproError):
    """The products allowed did not suffice."""


def top_eigenpairs(
    matvec: Matvec, start: Tensor, *, k: int = 1, rtol: float, max_products: int = 200, extra: int = 0
) -> list[EigenPair]:
    """The k algebraically largest eigenpairs, the largest first, and up to `extra` approximate ones after them.

    The Krylov space of `start` is extended until the residual of each of the k largest Ritz values λ is at most
    rtol·|λ|. An eigenvalue then lies within rtol·|λ| of it. The error is smaller still, by the factor residual/gap for
    a distance `gap` to the nearest other eigenvalue (Parlett, The Symmetric Eigenvalue Problem, 11.7), but no estimated
    gap is used to stop earlier: until two close eigenvalues are told apart, it is the gap of the pair to the rest.

    Args:
        matvec: v ↦ A v for v of shape (P,).
        start: (P,), not zero; it must not be orthogonal to the eigenvectors sought, so mix in a random direction.
        k: how many pairs, at most P.
        rtol: largest residual, as a share of the eigenvalue.
        max_products: products allowed.
        extra: how many Ritz pairs to add, as far as there are any. They are not waited for, and their residuals say how
            good they are; they make a good start for a matrix that differs a little.

    Raises:
        NotConvergedError: rtol was not reached within max_products.
        ValueError: k is larger than P, start is zero, or rtol is below `lowest_rtol`.
    """
    size = start.numel()
    if not 1 <= k <= size:
        raise ValueError(f"k = {k} eigenpairs of a matrix of order {size}")
    if rtol < lowest_rtol(start.dtype):
        raise ValueError(f"rtol = {rtol:g} is out of the reach of {start.dtype}")
    norm = torch.linalg.vector_norm(start)
    if not norm > 0:
        raise ValueError("the start vector is zero")
    limit = min(max_products, size)
    basis = start.new_empty(min(limit, 16), size)  # (m, P), rows are Krylov vectors
    basis[0] = start / norm
    tridiagonal = torch.zeros(limit + 1, limit + 1, dtype=torch.float64)  # T = Q A Qᵀ
    beta = 0.0
    for m in range(1, limit + 1):
        current = basis[m - 1]
        product = matvec(current)
        alpha = torch.dot(current, product).item()
        tridiagonal[m - 1, m - 1] = alpha
        remainder = product - alpha * current
        if m > 1:
            remainder -= beta * basis[m - 2]
        remainder, beta = _orthogonalise(remainder, basis[:m])
        values, vectors = torch.linalg.eigh(tridiagonal[:m, :m])
        residuals = beta * vectors[-1].abs()  # of all Ritz pairs
        scale = values.abs().max().item()
        # Nothing is left to add: the space is invariant.
        exhausted = beta <= 10 * torch.finfo(start.dtype).eps * scale or m == size
        if m >= k and (exhausted or bool((residuals[-k:] <= rtol * values[-k:].abs()).all())):
            top = torch.arange(m - 1, m - 1 - min(k + extra, m), -1)
            ritz_vectors = torch.nn.functional.normalize(vectors[:, top].T.to(basis) @ basis[:m])
            return [
                EigenPair(values[i].item(), vector, residuals[i].item(), m)
                for i, vector in zip(top.tolist(), ritz_vectors, strict=True)
            ]
        if exhausted or m == limit:
            break
        if m == len(basis):
            basis = torch.cat([basis, basis.new_empty(min(len(basis), limit - m), size)])
        basis[m] = remainder / beta
        tridiagonal[m, m - 1] = tridiagonal[m - 1, m] = beta
    raise NotConvergedError(
        f"{k} eigenvalue(s) not converged to {rtol:g} after {m} products: λ ≈ {values[-k:].flip(0).tolist()}, "
        f"residuals {residuals[-k:].flip(0).tolist()}. Raise max_products or rtol"
    )


def _orthogonalise(vector: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """The part of `vector` that is orthogonal to the rows of `basis`, and its norm.

    One pass suffices unless it takes much of the vector away: then rounding errors are as large as what remains, and a
    second pass removes them (Daniel, Gragg, Kaufman, Stewart 1976; twice is enough, Kahan & Parlett).
    """
    norm = torch.linalg.vector_norm(vector).item()
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
        before, norm = norm, torch.linalg.vector_norm(vector).item()
        if norm > 0.7 * before:
            break
    return vector, norm

"""Eigenvalues of a symmetric matrix that is known only by its products with vectors.

Lanczos' method with full reorthogonalisation. "Largest" means algebraically largest: the most positive, not the largest
in magnitude. All products count, and every eigenvalue is returned with its residual ‖A v − λ v‖, which bounds the
distance from λ to the nearest eigenvalue. It is the residual that Lanczos' recurrence gives: rounding errors drown it
where it comes near the precision of the numbers, and so far down `rtol` may not go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eosrepro.errors import ConfigError, EosreproError
from eosrepro.types import EigenPair

Matvec = Callable[[Tensor], Tensor]


def lowest_rtol(dtype: torch.dtype) -> float:
    """The smallest `rtol` at which the residual that the recurrence gives can be told from its rounding errors."""
    return 30 * torch.finfo(dtype).eps


def random_unit(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction of the shape, dtype and device of `like`, (P,), drawn on the CPU: the same on any device."""
    return normalize(torch.randn(like.shape, generator=generator).to(like), dim=0)


class NotConvergedError(EosreproError):
    """The products allowed did not suffice."""


@dataclass(frozen=True)
class Subspace:
    """A as seen from the span of a few vectors, Q of shape (m, P): through T = Q A Qᵀ."""

    basis: Tensor  # Q, with orthonormal rows
    values: Tensor  # (m,), float64: the Ritz values, eigenvalues of T, in ascending order
    vectors: Tensor  # (m, m), float64: eigenvectors of T in columns
    residuals: Tensor  # (m,), float64: ‖A v − λ v‖ of the Ritz pairs
    exhausted: bool  # nothing is left to add: the space is invariant

    def ritz_vectors(self, count: int) -> Tensor:
        """Those of the `count` largest Ritz values, the largest first, (count, P)."""
        return normalize(self.vectors[:, -count:].flip(1).T.to(self.basis) @ self.basis)


def krylov_spaces(matvec: Matvec, start: Tensor, limit: int) -> Iterator[Subspace]:
    """The Krylov spaces of `start`, each larger by one product, until `limit` products or an invariant space."""
    size = start.numel()
    limit = min(limit, size)
    basis = start.new_empty(min(limit, 16), size)  # (m, P), rows are Krylov vectors
    basis[0] = start / torch.linalg.vector_norm(start)
    tridiagonal = torch.zeros(limit + 1, limit + 1, dtype=torch.float64)
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
        exhausted = beta <= 10 * torch.finfo(start.dtype).eps * values.abs().max().item() or m == size
        yield Subspace(basis[:m], values, vectors, beta * vectors[-1].abs(), exhausted)
        if exhausted or m == limit:
            return
        if m == len(basis):
            basis = torch.cat([basis, basis.new_empty(min(len(basis), limit - m), size)])
        basis[m] = remainder / beta
        tridiagonal[m, m - 1] = tridiagonal[m - 1, m] = beta


def top_eigenpairs(
    matvec: Matvec,
    start: Tensor,
    *,
    k: int = 1,
    rtol: float,
    max_products: int = 200,
    extra: int = 0,
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
            good they are.

    Raises:
        NotConvergedError: rtol was not reached within max_products.
        ConfigError: rtol is below `lowest_rtol`.
        ValueError: k is larger than P, or start is zero.
    """
    size = start.numel()
    if not 1 <= k <= size:
        raise ValueError(f"k = {k} eigenpairs of a matrix of order {size}")
    if rtol < lowest_rtol(start.dtype):
        least = f"take at least {lowest_rtol(start.dtype):.2g}"
        raise ConfigError(f"rtol = {rtol:g} is out of the reach of {start.dtype}: {least}, or dtype: float64")
    if not torch.linalg.vector_norm(start) > 0:
        raise ValueError("the start vector is zero")
    space = _converged(krylov_spaces(matvec, start, max_products), k, rtol)
    products = len(space.values)
    count = min(k + extra, products)
    values, residuals = space.values.flip(0).tolist(), space.residuals.flip(0).tolist()
    return [EigenPair(values[i], v, residuals[i], products) for i, v in enumerate(space.ritz_vectors(count))]


def bottom_eigenpair(matvec: Matvec, start: Tensor, *, rtol: float, max_products: int = 200) -> EigenPair:
    """The algebraically smallest eigenpair: the largest of −A, see `top_eigenpairs`."""
    pair = top_eigenpairs(lambda vector: -matvec(vector), start, rtol=rtol, max_products=max_products)[0]
    return replace(pair, value=-pair.value)


def _converged(spaces: Iterable[Subspace], k: int, rtol: float) -> Subspace:
    """The first of the spaces in which the k largest pairs have converged."""
    for space in spaces:
        values, residuals = space.values[-k:], space.residuals[-k:]
        good = bool((residuals <= rtol * values.abs()).all())
        if len(values) == k and (good or space.exhausted):
            return space
    raise NotConvergedError(
        f"{k} eigenvalue(s) not converged to {rtol:g} after {len(space.values)} products: "
        f"λ ≈ {values.flip(0).tolist()}, residuals {residuals.flip(0).tolist()}. Raise max_products or rtol"
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

"""Eigenvalues of a symmetric matrix that is known only by its products with vectors.

Lanczos' method with full reorthogonalisation. "Largest" means algebraically largest: the most positive, not the largest
in magnitude. All products count, and every eigenvalue is returned with its residual ‖A v − λ v‖, which bounds the
distance from λ to the nearest eigenvalue. It is the residual that Lanczos' recurrence gives: rounding errors drown it
where it comes near the precision of the numbers, and so far down `rtol` may not go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eosrepro.errors import ConfigError, EosreproError
from eosrepro.types import EigenPair

Matvec = Callable[[Tensor], Tensor]

# How eigenpairs of a matrix near by enter the start of a solve: the k largest with weight 1, the others with this.
WEIGHT_OF_COMPANION = 0.5
# What a solve left out is looked at where the known and watched pairs, summed, curve above this share of its result.
# Summed: of pairs from two matrices, a direction that both curve in counts twice, hence more than 1.
OVERLOOKED = 1.1


def lowest_rtol(dtype: torch.dtype) -> float:
    """The smallest `rtol` at which the residual that the recurrence gives can be told from its rounding errors."""
    return 30 * torch.finfo(dtype).eps


class NotConvergedError(EosreproError):
    """The products allowed did not suffice."""


@dataclass(frozen=True)
class Subspace:
    """A as seen from the span of a few vectors."""

    basis: Tensor  # (m, P), orthonormal rows Q
    projected: Tensor  # (m, m), float64: T = Q A Qᵀ
    values: Tensor  # (m,), float64: the Ritz values, eigenvalues of T, in ascending order
    vectors: Tensor  # (m, m), float64: eigenvectors of T in columns
    residuals: Tensor  # (m,), float64: ‖A v − λ v‖ of the Ritz pairs
    remainders: Tensor  # (j, P): what of A times the last j rows lies outside the span; of other rows nothing does
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
        projected = tridiagonal[:m, :m]
        yield Subspace(basis[:m], projected, values, vectors, beta * vectors[-1].abs(), remainder[None], exhausted)
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
    known: Sequence[EigenPair] = (),
    watched: Sequence[EigenPair] = (),
) -> list[EigenPair]:
    """The k algebraically largest eigenpairs, the largest first, and up to `extra` approximate ones after them.

    The Krylov space of `start` is extended until the residual of each of the k largest Ritz values λ is at most
    rtol·|λ|. An eigenvalue then lies within rtol·|λ| of it. The error is smaller still, by the factor residual/gap for
    a distance `gap` to the nearest other eigenvalue (Parlett, The Symmetric Eigenvalue Problem, 11.7), but no estimated
    gap is used to stop earlier: until two close eigenvalues are told apart, it is the gap of the pair to the rest.

    Pairs that are `known` of a matrix near by are mixed into the start. Their signs are arbitrary, so a mixture may
    happen to be orthogonal to the eigenvector sought, and Lanczos then converges to the next. So once it has converged,
    the direction outside its space is found in which the known and the watched pairs together curve most. While this
    exceeds `OVERLOOKED`·λ, the direction is added to the space, and after it the residuals, until all has converged
    again.

    Args:
        matvec: v ↦ A v for v of shape (P,).
        start: (P,), not zero; it must not be orthogonal to the eigenvectors sought, so mix in a random direction.
        k: how many pairs, at most P.
        rtol: largest residual, as a share of the eigenvalue.
        max_products: products allowed.
        extra: how many Ritz pairs to add, as far as there are any. They are not waited for, and their residuals say how
            good they are; they make good `known` pairs for a matrix that differs a little.
        known: eigenpairs of a matrix near by, exact or not, the largest first. They are mixed into the start, whose
            norm says how much of it remains: those of the first k pairs have norm 1.
        watched: more such pairs, that are not mixed in and only searched with the known ones for what was left out.

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
    for index, pair in enumerate(known):
        start = start + pair.vector * (1 if index < k else WEIGHT_OF_COMPANION)
    if not torch.linalg.vector_norm(start) > 0:
        raise ValueError("the start vector is zero")
    space = _converged(krylov_spaces(matvec, start, max_products), k, rtol)
    watched = [*known, *watched]
    while watched and (direction := _overlooked(watched, space, k)) is not None:
        space = _converged(_widened_spaces(matvec, space, direction, k + 1, max_products), k, rtol, clear=True)
    products = len(space.values)
    count = min(k + extra, products)
    values, residuals = space.values.flip(0).tolist(), space.residuals.flip(0).tolist()
    return [EigenPair(values[i], v, residuals[i], products) for i, v in enumerate(space.ritz_vectors(count))]


def bottom_eigenpair(matvec: Matvec, start: Tensor, *, rtol: float, max_products: int = 200) -> EigenPair:
    """The algebraically smallest eigenpair: the largest of −A, see `top_eigenpairs`."""
    pair = top_eigenpairs(lambda vector: -matvec(vector), start, rtol=rtol, max_products=max_products)[0]
    return replace(pair, value=-pair.value)


def _converged(spaces: Iterable[Subspace], k: int, rtol: float, *, clear: bool = False) -> Subspace:
    """The first of the spaces in which the k largest pairs have converged.

    If they are to be `clear` too, the next pair must not be on its way to overtake them, as far as its residual tells.
    """
    for space in spaces:
        values, residuals = space.values[-k:], space.residuals[-k:]
        below = (space.values + space.residuals)[:-k][-1:]
        good = bool((residuals <= rtol * values.abs()).all()) and not (clear and bool((below > values[0]).any()))
        if len(values) == k and (good or space.exhausted):
            return space
    raise NotConvergedError(
        f"{k} eigenvalue(s) not converged to {rtol:g} after {len(space.values)} products: "
        f"λ ≈ {values.flip(0).tolist()}, residuals {residuals.flip(0).tolist()}. Raise max_products or rtol"
    )


def _widened_spaces(matvec: Matvec, space: Subspace, direction: Tensor, k: int, limit: int) -> Iterator[Subspace]:
    """`space` with `direction`, and then with the largest residual of its k largest pairs, again and again.

    In a Krylov space all residuals point the same way, and this is Lanczos' method. With a direction of another origin
    it is no longer, and the projected matrix no longer tridiagonal (Davidson's method without a preconditioner).
    """
    basis, projected, remainders = space.basis, space.projected, torch.zeros_like(space.basis)
    remainders[-len(space.remainders) :] = space.remainders
    size = direction.numel()
    for m in range(len(basis) + 1, max(limit, len(basis) + 1) + 1):
        added = normalize(_orthogonalise(direction, basis)[0], dim=0)
        product = matvec(added)
        basis = torch.cat([basis, added[None]])
        column = (basis @ product).double().cpu()
        projected = torch.nn.functional.pad(projected, (0, 1, 0, 1))
        projected[-1] = projected[:, -1] = column
        remainders = remainders - torch.outer(remainders @ added, added)
        remainders = torch.cat([remainders, _orthogonalise(product, basis)[0][None]])
        values, vectors = torch.linalg.eigh(projected)
        all_residuals = vectors.T.to(remainders) @ remainders
        residuals = torch.linalg.vector_norm(all_residuals, dim=1).double().cpu()
        worst = m - k + int(residuals[-k:].argmax())
        direction = all_residuals[worst]
        exhausted = (
            m == size or residuals[worst].item() <= 10 * torch.finfo(basis.dtype).eps * values.abs().max().item()
        )
        yield Subspace(basis, projected, values, vectors, residuals, remainders, exhausted)
        if exhausted:
            return


def _overlooked(pairs: Sequence[EigenPair], space: Subspace, k: int) -> Tensor | None:
    """The unit vector orthogonal to `space` along which the pairs curve most, if that is too much to pass by.

    With C = Σ λ v vᵀ over the pairs and the projection R = 1 − QᵀQ, it is the top eigenvector of R C R, and the
    eigenvalue is what decides. They follow from the Gram matrix of the vectors √λ R v.
    """
    roots = torch.stack([max(pair.value, 0.0) ** 0.5 * pair.vector for pair in pairs])  # (n, P)
    left = roots - (roots @ space.basis.T) @ space.basis
    curvatures, mixtures = torch.linalg.eigh(left @ left.T)
    if len(space.values) == space.basis.shape[1] or curvatures[-1] <= OVERLOOKED * space.values[-k].abs():
        return None
    return normalize(mixtures[:, -1] @ left, dim=0)


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

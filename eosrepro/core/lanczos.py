"""Eigenvalues of a symmetric matrix that is known only by its products with vectors.

Lanczos' method with full reorthogonalisation. "Largest" means algebraically largest: the most positive, not the largest
in magnitude. All products count, and every eigenvalue is returned with its residual ‖A v − λ v‖, which bounds the
distance from λ to the nearest eigenvalue. It is the residual that Lanczos' recurrence gives: rounding errors drown it
where it comes near the precision of the numbers, and so far down `rtol` may not go.

A residual does not show that nothing larger is hidden. For k > 1 eigenvalues there are k starts, which see k
eigenvectors of a multiple eigenvalue. For one, the chance that a random start hides a larger one is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import exp, isfinite, log, pi, sqrt
from typing import TYPE_CHECKING, TypeAlias

from eosrepro.core.later import functional, torch
from eosrepro.core.types import EigenPair
from eosrepro.errors import ConfigError, EosreproError

if TYPE_CHECKING:
    from torch import Tensor

Matvec: TypeAlias = "Callable[[Tensor], Tensor]"

# Shares of the scale, the largest eigenvalue in magnitude:
NEAR_ZERO = 0.01  # a smaller eigenvalue is as accurate as one of this size
MARGIN = 0.02  # by so much an eigenvalue that was hidden from a random start would be larger,
CHANCE = 0.005  # and this is the chance of it, at most

LOWEST_RTOL = 30  # in units of the precision of the numbers

SEED = 2204  # of further starts


def lowest_rtol(dtype: torch.dtype) -> float:
    """The smallest `rtol` at which the residual that the recurrence gives can be told from its rounding errors."""
    return LOWEST_RTOL * torch.finfo(dtype).eps


def random_unit(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction of the shape, dtype and device of `like`, (P,), drawn on the CPU: the same on any device."""
    return functional.normalize(torch.randn(like.shape, generator=generator).to(like), dim=0)


class NotConvergedError(EosreproError):
    """The products allowed did not suffice."""


@dataclass(frozen=True)
class Subspace:
    """A as seen from the span of a few vectors, Q of shape (m, P): through T = Q A Qᵀ. NaN where A is not finite."""

    basis: Tensor  # Q, with orthonormal rows
    values: Tensor  # (m,), float64: the Ritz values, eigenvalues of T, in ascending order
    vectors: Tensor  # (m, m), float64: eigenvectors of T in columns
    residuals: Tensor  # (m,), float64: ‖A v − λ v‖ of the Ritz pairs
    log_betas: float  # Σ log β, the norm of what a product adds to the basis
    products: int
    exhausted: bool  # nothing is left to add: the space is invariant, or A is not finite

    @property
    def scale(self) -> float:
        """The largest Ritz value in magnitude."""
        return self.values.abs().max().item()

    def ritz_vectors(self, count: int) -> Tensor:
        """Those of the `count` largest Ritz values, the largest first, (count, P)."""
        return functional.normalize(self.vectors[:, -count:].flip(1).T.to(self.basis) @ self.basis)

    def log_polynomial(self, level: float) -> float:
        """log p(level) of the Lanczos polynomial, above all Ritz values; the space is that of one start.

        A unit eigenvector with this eigenvalue has at most the share 1/p in the start.
        """
        return (level - self.values).log().sum().item() - self.log_betas


def krylov_spaces(matvec: Matvec, starts: Tensor, limit: int) -> Iterator[Subspace]:
    """The Krylov spaces of the rows of `starts`, each larger by one product, to `limit` products or an invariant space.

    Band Lanczos (Ruhe 1979): every vector of the basis is multiplied in turn, and what is new of the product joins it.
    One start sees one eigenvector of a multiple eigenvalue, b starts see b of them. A start whose space is exhausted
    drops out, and the others go on.

    Args:
        starts: (b, P), b ≤ P.
    """
    n_starts, size = starts.shape
    basis = torch.linalg.qr(starts.T).Q.T.contiguous() if n_starts > 1 else functional.normalize(starts)
    projected = torch.zeros(n_starts, n_starts, dtype=torch.float64)  # Q A Qᵀ
    n, log_betas = n_starts, 0.0  # vectors in the basis, of which m are multiplied
    for m in range(1, min(limit, size) + 1):
        row = m - 1
        product = matvec(basis[row])
        before = slice(max(row - n_starts, 0), row)  # the product's parts along these are known: A is symmetric
        remainder = torch.addmv(product, basis[before].T, projected[row, before].to(product), alpha=-1)
        ahead = basis[row:n] @ remainder
        remainder.addmv_(basis[row:n].T, ahead, alpha=-1)
        # What remains may be small: rounding errors of all that was taken away would leave it askew.
        remainder.addmv_(basis[:n].T, basis[:n] @ remainder, alpha=-1)
        # The only numbers that leave the device for this product, in one transfer.
        *along, beta = torch.cat([ahead, torch.linalg.vector_norm(remainder)[None]]).double().tolist()
        if not isfinite(beta):
            yield _not_finite(basis[:n], products=m)
            return
        projected[row, row:n] = projected[row:n, row] = torch.tensor(along, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(projected[:m, :m])
        if n < size and beta > 10 * torch.finfo(starts.dtype).eps * values.abs().max().item():
            if n == len(basis):
                room = min(max(n, 16), limit)
                wider = basis.new_empty(n + room, size)  # not of zeros: most of the room may never be needed
                wider[:n] = basis
                basis, projected = wider, functional.pad(projected, (0, room, 0, room))
            torch.div(remainder, beta, out=basis[n])
            projected[row, n] = projected[n, row] = beta
            n, log_betas = n + 1, log_betas + log(beta)
        residuals = torch.linalg.vector_norm(projected[m:n, :m] @ vectors, dim=0)
        yield Subspace(basis[:m], values, vectors, residuals, log_betas, products=m, exhausted=m == n)
        if m == n:
            return


def top_eigenpairs(
    matvec: Matvec,
    start: Tensor,
    *,
    k: int = 1,
    rtol: float,
    max_products: int = 200,
    extra: int = 0,
    density: float | None = None,
) -> list[EigenPair]:
    """The k algebraically largest eigenpairs, the largest first, and up to `extra` approximate ones after them.

    The Krylov space of `start`, for k > 1 with random starts beside it, is extended until the residual of each of the k
    largest Ritz values λ is at most rtol·|λ|. An eigenvalue then lies within rtol·|λ| of it. The error is smaller
    still, by the factor residual/gap for a distance `gap` to the nearest other eigenvalue (Parlett, The Symmetric
    Eigenvalue Problem, 11.7), but no estimated gap is used to stop earlier: until two close eigenvalues are told apart,
    it is the gap of the pair to the rest. Where |λ| is below `NEAR_ZERO` times the scale of A, the largest |λ| of all,
    that takes the place of |λ|, and the precision of the numbers is no less than `lowest_rtol` times the scale.

    What a start has hardly a component in, it does not see: the second eigenvalue would pass for the first. So the
    space of one start is extended, too, until it is improbable, `CHANCE`, that one is larger by `MARGIN` times the
    scale (van Dorsselaer, Hochstenbach, van der Vorst, SIAM J. Matrix Anal. Appl. 22, 2000).

    Of an A that is not finite, or whose products overflow, values, vectors and residuals are NaN.

    Args:
        matvec: v ↦ A v for v of shape (P,).
        start: (P,), or (b, P) for b ≤ P of them; none is zero. They must not be orthogonal to the eigenvectors sought,
            so mix in a random direction.
        k: how many pairs, at most P.
        rtol: largest residual, as a share of the eigenvalue.
        max_products: products allowed.
        extra: how many Ritz pairs to add, as far as there are any. They are not waited for, and their residuals say how
            good they are.
        density: probability density at 0 of the component of a single start, as of norm 1, along the eigenvector
            sought; None: √(P/2π), that of a random start; 0: a larger one may be hidden, as where the values are rough.

    Raises:
        NotConvergedError: rtol was not reached within max_products.
        ConfigError: rtol is below `lowest_rtol`.
        ValueError: k is larger than P, or start is zero.
    """
    starts = start[None] if start.ndim == 1 else start
    size = starts.shape[1]
    if not 1 <= k <= size:
        raise ValueError(f"k = {k} eigenpairs of a matrix of order {size}")
    if rtol < lowest_rtol(start.dtype):
        least = f"take at least {lowest_rtol(start.dtype):.2g}"
        raise ConfigError(f"rtol = {rtol:g} is out of the reach of {start.dtype}: {least}, or dtype: float64")
    if (torch.linalg.vector_norm(starts, dim=1) == 0).any():
        raise ValueError("the start vector is zero")
    generator = torch.Generator().manual_seed(SEED)
    further = [random_unit(starts[0], generator) for _ in range(k - len(starts))]
    starts = torch.stack([*starts, *further])
    if len(starts) > 1:
        density = 0.0
    elif density is None:
        density = sqrt(size / (2 * pi))
    space = _converged(krylov_spaces(matvec, starts, max_products), k, rtol, density)
    count = min(k + extra, len(space.values))
    values, residuals = space.values.flip(0).tolist(), space.residuals.flip(0).tolist()
    vectors = space.ritz_vectors(count)
    return [EigenPair(values[i], vector, residuals[i], space.products) for i, vector in enumerate(vectors)]


def bottom_eigenpair(matvec: Matvec, start: Tensor, *, rtol: float, max_products: int = 200) -> EigenPair:
    """The algebraically smallest eigenpair: the largest of −A, see `top_eigenpairs`."""
    pair = top_eigenpairs(lambda vector: -matvec(vector), start, rtol=rtol, max_products=max_products)[0]
    return replace(pair, value=-pair.value)


def _converged(spaces: Iterable[Subspace], k: int, rtol: float, density: float) -> Subspace:
    """The first of the spaces in which the k largest pairs have converged."""
    for space in spaces:
        if space.exhausted:
            return space
        values, residuals = space.values[-k:], space.residuals[-k:]
        sizes = values.abs().clamp(min=NEAR_ZERO * space.scale)
        allowed = (rtol * sizes).clamp(min=lowest_rtol(space.basis.dtype) * space.scale)
        if len(values) == k and (residuals <= allowed).all() and _chance_of_a_larger(space, density) <= CHANCE:
            return space
    raise NotConvergedError(
        f"{k} eigenvalue(s) not converged to {rtol:g} after {space.products} products: "
        f"λ ≈ {values.flip(0).tolist()}, residuals {residuals.flip(0).tolist()}. Raise max_products or rtol"
    )


def _chance_of_a_larger(space: Subspace, density: float) -> float:
    """At most, that an eigenvalue is larger by `MARGIN`: the start's component along its eigenvector is within ±1/p."""
    level = space.values[-1].item() + MARGIN * space.scale
    return 2 * density * exp(-space.log_polynomial(level)) if density else 0.0


def _not_finite(basis: Tensor, *, products: int) -> Subspace:
    nans = torch.full((len(basis), len(basis)), torch.nan, dtype=torch.float64)
    return Subspace(basis, nans[0], nans, nans[0], torch.nan, products, exhausted=True)

"""Sharpness: the largest eigenvalues of the loss Hessian along a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from eosrepro.core.lanczos import Matvec, random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.ranks import from_first
from eosrepro.core.row_space import RowSpace, on_own_row_space
from eosrepro.core.types import AtLeast, EigenPair, Position, Rtol, Seed

if TYPE_CHECKING:
    from torch import Tensor

# Where a solve starts: at the k top eigenvectors of the Hessian of this share of the examples, with the next one and a
# random unit vector, each with a weight; the random one alone can show what the sketch does not.
SKETCH_SHARE = 0.1
FEWEST_SKETCHED = 50  # examples; of fewer it says too little, and solves start from a random vector
SKETCH_RTOL = 3e-3
# Or from there at those by products in bfloat16 of all examples, which have errors of this size.
ROUGH_RTOL = 3e-3
WEIGHT_OF_NEXT = 0.5
WEIGHT_OF_RANDOM = 0.03
# At 0, of the component of such a start along the top eigenvector, times the root of the number of examples sketched:
# 0.25 was measured for 50, less than 0.1 for 500.
DENSITY = 2.0


def sharpness(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    k: Annotated[int, AtLeast(1)],
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    audit_every: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[dict[str, Any]]:
    """The k largest eigenvalues of ∇²f at each snapshot, one row a snapshot.

    Each solve starts from the eigenvectors of a sketch, the Hessian of a tenth of the examples at the same θ, which
    costs at most a tenth: past the edge the top eigenvectors change altogether within a few iterations, and those of
    the snapshot before are of little use. No snapshot depends on another.
    Every `audit_every`-th snapshot is solved a second time, from a random vector alone and 10 times as accurately:
    where the largest eigenvalue was missed, `sharpness` would fall short of `audit_sharpness`. Where the Hessian is not
    finite, as at the end of a run that diverged, the eigenvalues and residuals are NaN.

    Yields:
        step; sharpness and eigenvalue_2 ... eigenvalue_k; residual and products of the solve, those with the sketch
        counted as the share of the examples that they take; audit_sharpness, audit_residual and audit_products, NaN
        where no audit was made.
    """
    points = (Point(step, theta) for step, theta, _state in snapshots)
    return solved(objective, points, k, rtol, max_products, audit_every, seed)


class Point(NamedTuple):
    """Where a Hessian is looked at, and in which geometry."""

    step: int
    theta: Tensor  # (P,)
    preconditioner: Tensor | float | None = None  # as of `Geometry`


def solved(
    objective: Objective,
    points: Iterable[Point],
    k: int,
    rtol: float,
    max_products: int,
    audit_every: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The rows of `sharpness`, of P^-½ ∇²f P^-½ at each point."""
    generator, of_audits = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    coarse = objective.rough() if objective.rough else None
    sketch = _sketch(coarse or objective, generator)
    product = _in_bfloat16 if coarse else Objective.hvp
    for index, (step, theta, preconditioner) in enumerate(points):
        hvp = weighted(objective.hvp(theta), preconditioner)
        n_pairs = min(k, theta.numel())
        start, density, spent = random_unit(theta, generator), None, 0.0
        if sketch:
            found = sketch.top_eigenpairs(product, theta, preconditioner, generator, k=n_pairs, most=max_products)
            start, density = _with_sketch(start, found, n_pairs), DENSITY / sqrt(sketch.examples.n_examples)
            spent += found[0].products * sketch.examples.n_examples / objective.n_examples
        if coarse:
            found = top_eigenpairs(
                weighted(product(coarse, theta), preconditioner),
                start,
                k=n_pairs,
                rtol=max(rtol, ROUGH_RTOL),
                max_products=max_products,
                density=density,
            )
            spent += found[0].products
            if all(isfinite(pair.value) for pair in found):  # it may overflow where float32 does not
                start, density = torch.stack([pair.vector for pair in found]), 0.0  # all have been looked for
        pairs = top_eigenpairs(hvp, start, k=n_pairs, rtol=rtol, max_products=max_products, density=density)
        row = {"step": step, "sharpness": pairs[0].value}
        row |= {f"eigenvalue_{i}": pair.value for i, pair in enumerate(pairs[1:], start=2)}
        row |= {"residual": max(pair.residual for pair in pairs), "products": pairs[0].products + spent}
        if index % audit_every:
            yield row | {"audit_sharpness": nan, "audit_residual": nan, "audit_products": nan}
        else:
            # A random vector of its own: the one above has had its say in the start.
            cold = top_eigenpairs(hvp, random_unit(theta, of_audits), rtol=rtol / 10, max_products=max_products)[0]
            audit = {"audit_sharpness": cold.value, "audit_residual": cold.residual, "audit_products": cold.products}
            yield row | audit


def columns(*, k: int = 1, **_options: object) -> list[str]:
    """What is found beside the step."""
    found = ["sharpness", *(f"eigenvalue_{i}" for i in range(2, k + 1)), "residual", "products"]
    return [*found, "audit_sharpness", "audit_residual", "audit_products"]


@dataclass(frozen=True)
class _Sketch:
    """Some of the examples, and the same in the row space of their own inputs, where there is one."""

    examples: Objective
    narrow: tuple[Objective, RowSpace] | None

    def top_eigenpairs(
        self,
        product: Callable[[Objective, Tensor], Matvec],
        theta: Tensor,
        preconditioner: Tensor | float | None,
        generator: torch.Generator,
        *,
        k: int,
        most: int,
    ) -> list[EigenPair]:
        """The k top eigenpairs of P^-½ ∇²f P^-½ of these examples, and the next one."""

        def of(objective: Objective, at: Tensor) -> list[EigenPair]:
            hvp, start = weighted(product(objective, at), preconditioner), random_unit(at, generator)
            pairs = min(k, at.numel())
            return top_eigenpairs(
                hvp, start, k=pairs, rtol=SKETCH_RTOL, max_products=most, extra=k + 1 - pairs, density=0.0
            )

        if self.narrow is None or isinstance(preconditioner, torch.Tensor):  # each number has a weight of its own
            return of(self.examples, theta)
        objective, space = self.narrow
        found = from_first(lambda: of(objective, space.coordinates(theta)))
        return [replace(pair, vector=space.directions(pair.vector.to(theta))) for pair in found]


def _sketch(objective: Objective, generator: torch.Generator) -> _Sketch | None:
    n_sketched = int(SKETCH_SHARE * objective.n_examples)
    if n_sketched < FEWEST_SKETCHED:  # a problem among them
        return None
    indices = torch.randperm(objective.n_examples, generator=generator)[:n_sketched]
    return _Sketch(objective.batch(indices), on_own_row_space(objective, indices))


def _in_bfloat16(objective: Objective, theta: Tensor) -> Matvec:
    hvp = objective.hvp(theta.bfloat16())
    return lambda vector: hvp(vector.bfloat16()).to(vector)


def weighted(hvp: Matvec, preconditioner: Tensor | float | None) -> Matvec:
    """v ↦ P^-½ ∇²f P^-½ v."""
    if preconditioner is None:
        return hvp
    scale = preconditioner**-0.5
    return lambda vector: scale * hvp(scale * vector)


def _with_sketch(random: Tensor, rough: list[EigenPair], k: int) -> Tensor:
    """A start for each of the k pairs, (k, P): its eigenvector in the sketch; to the last the next one and `random`."""
    starts = torch.stack([pair.vector for pair in rough[:k]])
    for pair in rough[k:]:
        starts[-1] += WEIGHT_OF_NEXT * pair.vector
    starts[-1] += WEIGHT_OF_RANDOM * random
    return starts

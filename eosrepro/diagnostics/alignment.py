"""How far gradient and step point along the top eigenvector, and the stableness of the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Optimizer, Position, Rtol, Seed
from eosrepro.diagnostics._points import cosine, iterate_at
from eosrepro.diagnostics.sharpness import weighted


@dataclass(frozen=True)
class Alignment:
    """At one θ, with v₁ the top eigenvector of ∇²f. NaN where the Hessian is not finite, or a vector is 0."""

    step: int
    gradient_alignment: float  # |cos(∇f, v₁)|, in 0..1
    update_alignment: float  # |cos(u, v₁)| of the step u that the optimizer takes next
    stableness: float  # 2 λ_max(P⁻¹∇²f) / threshold: 2 at the edge of the method; NaN where it has none
    alignment_residual: float  # ‖∇²f v₁ − λ₁v₁‖/λ₁
    alignment_products: int  # with the Hessian


def alignment(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[Alignment]:
    """How far ∇f and the next step point along the top eigenvector of ∇²f, and the stableness of the method.

    The step of SAM is along the gradient at its perturbed point (Long, Bartlett 2024, arXiv 2309.12488). The stableness
    of normalised gradient descent is ηλ₁/‖∇f‖ (Arora, Li, Panigrahi 2022, arXiv 2205.09745), that of gradient descent
    ηλ₁. Every solve starts from a random vector of its own. The sine of the angle between v₁ and what is found is at
    most the residual over the gap, (λ₁ − λ₂)/λ₁: it is for `rtol` to be well below the gap.

    Args:
        rtol: largest residual, as a share of the eigenvalue.
        max_products: allowed in a solve; a preconditioner that is a diagonal takes a second one.
    """
    generator = torch.Generator().manual_seed(seed)
    for at in snapshots:
        here = iterate_at(objective, at)
        update, _ = optimizer.update(here, at.state)
        threshold, preconditioner = optimizer.geometry(here, at.state)
        hvp = objective.hvp(at.theta)
        starts = [random_unit(at.theta, generator) for _ in range(2)]
        (top,) = top_eigenpairs(hvp, starts[0], rtol=rtol, max_products=max_products)
        effective, products = top.value, top.products
        if isinstance(preconditioner, torch.Tensor) and preconditioner.ndim:
            inside = weighted(hvp, preconditioner)
            (pair,) = top_eigenpairs(inside, starts[1], rtol=rtol, max_products=max_products)
            effective, products = pair.value, products + pair.products
        elif preconditioner is not None:
            effective = top.value / float(preconditioner)
        yield Alignment(
            step=at.step,
            gradient_alignment=cosine(here.grad, top.vector),
            update_alignment=cosine(update, top.vector),
            stableness=2 * effective / threshold,
            alignment_residual=top.residual / abs(top.value) if top.value else top.residual,
            alignment_products=products,
        )

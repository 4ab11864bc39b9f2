"""Sharpness: the largest eigenvalues of the loss Hessian along a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import nan
from typing import Any

import torch
from torch import Tensor

from eosrepro.lanczos import top_eigenpairs
from eosrepro.objective import Objective
from eosrepro.types import EigenPair


def sharpness(
    objective: Objective,
    snapshots: Iterable[tuple[int, Tensor]],
    *,
    k: int,
    rtol: float,
    max_products: int,
    audit_every: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The k largest eigenvalues of ∇²f at each snapshot, one row a snapshot.

    Each solve starts from the eigenvectors of the snapshot before, mixed with the gradient and a random direction.
    Every `audit_every`-th snapshot is solved a second time, from a random vector alone and 10 times as accurately:
    where a new direction has overtaken the old one unseen, `sharpness` would fall short of `audit_sharpness`.

    Yields:
        step; sharpness and eigenvalue_2 ... eigenvalue_k; residual and products of the solve; audit_sharpness,
        audit_residual and audit_products, NaN where no audit was made.
    """
    generator = torch.Generator().manual_seed(seed)
    previous: list[EigenPair] = []
    for index, (step, theta) in enumerate(snapshots):
        hvp = objective.hvp(theta)
        random = torch.randn(theta.shape, generator=generator, dtype=torch.float64).to(theta)
        pairs = top_eigenpairs(
            hvp, _warm_start(previous, hvp.grad, random), k=min(k, theta.numel()), rtol=rtol, max_products=max_products
        )
        row = {"step": step, "sharpness": pairs[0].value}
        row |= {f"eigenvalue_{i}": pair.value for i, pair in enumerate(pairs[1:], start=2)}
        row |= {"residual": max(pair.residual for pair in pairs), "products": pairs[0].products}
        yield row | _audit(hvp, random, audited=index % audit_every == 0, rtol=rtol / 10, max_products=max_products)
        previous = pairs


def _audit(hvp: Any, random: Tensor, *, audited: bool, rtol: float, max_products: int) -> dict[str, Any]:
    cold = top_eigenpairs(hvp, random, rtol=rtol, max_products=max_products)[0] if audited else None
    return {
        "audit_sharpness": cold.value if cold else nan,
        "audit_residual": cold.residual if cold else nan,
        "audit_products": cold.products if cold else 0,
    }


def _warm_start(previous: list[EigenPair], grad: Tensor, random: Tensor) -> Tensor:
    # Past the edge the gradient leans towards the directions that oscillate, so it soon finds an overtaking one. The
    # old eigenvector alone would be a fixed point of Lanczos: right about an eigenpair, wrong about the largest.
    start = _unit(grad) * 0.3 + _unit(random) * 0.1
    for pair in previous:
        start = start + pair.vector
    return start


def _unit(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector / norm if norm > 0 else vector

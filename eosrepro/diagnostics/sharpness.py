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

# How a solve starts: the top eigenvectors of the one before, this many of its approximate ones, the gradient, and a
# random direction. Without the approximate ones, solves past the edge now and then missed the largest eigenvalue.
N_COMPANIONS = 5
WEIGHT_OF_COMPANION = 0.5
WEIGHT_OF_GRADIENT = 0.5
WEIGHT_OF_RANDOM = 0.1


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

    Each solve starts from the eigenvectors of the snapshot before, the k largest and the next few, mixed with the
    gradient and a random direction.
    Every `audit_every`-th snapshot is solved a second time, from a random vector alone and 10 times as accurately:
    where a new direction has overtaken the old one unseen, `sharpness` would fall short of `audit_sharpness`.

    Yields:
        step; sharpness and eigenvalue_2 ... eigenvalue_k; residual and products of the solve; audit_sharpness,
        audit_residual and audit_products, NaN where no audit was made.
    """
    generator, of_audits = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    previous: list[EigenPair] = []
    for index, (step, theta) in enumerate(snapshots):
        hvp = objective.hvp(theta)
        random = torch.randn(theta.shape, generator=generator).to(theta)
        n_pairs = min(k, theta.numel())
        start = _warm_start(previous, n_pairs, hvp.grad, random)
        previous = top_eigenpairs(hvp, start, k=n_pairs, rtol=rtol, max_products=max_products, extra=N_COMPANIONS)
        pairs = previous[:n_pairs]
        row = {"step": step, "sharpness": pairs[0].value}
        row |= {f"eigenvalue_{i}": pair.value for i, pair in enumerate(pairs[1:], start=2)}
        row |= {"residual": max(pair.residual for pair in pairs), "products": pairs[0].products}
        if index % audit_every:
            yield row | {"audit_sharpness": nan, "audit_residual": nan, "audit_products": nan}
        else:
            # A random vector of its own: the one above has had its say in the warm start.
            another = torch.randn(theta.shape, generator=of_audits).to(theta)
            cold = top_eigenpairs(hvp, another, rtol=rtol / 10, max_products=max_products)[0]
            audit = {"audit_sharpness": cold.value, "audit_residual": cold.residual, "audit_products": cold.products}
            yield row | audit


def _warm_start(previous: list[EigenPair], n_pairs: int, grad: Tensor, random: Tensor) -> Tensor:
    # The old eigenvector alone would be a fixed point of Lanczos: right about an eigenpair, wrong about the largest.
    # What overtakes it was often among the next ones, and past the edge the gradient leans towards what oscillates.
    start = _unit(grad) * WEIGHT_OF_GRADIENT + _unit(random) * WEIGHT_OF_RANDOM
    for index, pair in enumerate(previous):
        start = start + pair.vector * (1 if index < n_pairs else WEIGHT_OF_COMPANION)
    return start


def _unit(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector / norm if norm > 0 else vector

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

# How a solve starts: from the pairs of the one before, the k largest and this many of its approximate ones, and with
# these weights from the gradient, which past the edge leans towards what oscillates, and a random direction, which
# alone can show what none of them has a part in.
N_COMPANIONS = 5
WEIGHT_OF_GRADIENT = 0.5
WEIGHT_OF_RANDOM = 0.03


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
    gradient and a random direction; `top_eigenpairs` sees to it that none of them is lost in the mixture.
    Every `audit_every`-th snapshot is solved a second time, from a random vector alone and 10 times as accurately:
    where a new direction has overtaken the old one unseen, `sharpness` would fall short of `audit_sharpness`.

    Yields:
        step; sharpness and eigenvalue_2 ... eigenvalue_k; residual and products of the solve; audit_sharpness,
        audit_residual and audit_products, NaN where no audit was made.
    """
    generator, of_audits = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    previous: list[EigenPair] = []
    older: list[EigenPair] = []
    for index, (step, theta) in enumerate(snapshots):
        hvp = objective.hvp(theta)
        start = WEIGHT_OF_GRADIENT * _unit(hvp.grad) + WEIGHT_OF_RANDOM * _random_unit(theta, generator)
        n_pairs = min(k, theta.numel())
        # What oscillates with period 2 returns after two snapshots an odd number of iterations apart: watch these too.
        latest = top_eigenpairs(
            hvp,
            start,
            k=n_pairs,
            rtol=rtol,
            max_products=max_products,
            extra=N_COMPANIONS,
            known=previous,
            watched=older,
        )
        older, previous = previous, latest
        pairs = previous[:n_pairs]
        row = {"step": step, "sharpness": pairs[0].value}
        row |= {f"eigenvalue_{i}": pair.value for i, pair in enumerate(pairs[1:], start=2)}
        row |= {"residual": max(pair.residual for pair in pairs), "products": pairs[0].products}
        if index % audit_every:
            yield row | {"audit_sharpness": nan, "audit_residual": nan, "audit_products": nan}
        else:
            # A random vector of its own: the one above has had its say in the warm start.
            another = _random_unit(theta, of_audits)
            cold = top_eigenpairs(hvp, another, rtol=rtol / 10, max_products=max_products)[0]
            if cold.value > pairs[0].value + pairs[0].residual:
                previous = [cold, *previous]  # the next solve shall not miss it too
            audit = {"audit_sharpness": cold.value, "audit_residual": cold.residual, "audit_products": cold.products}
            yield row | audit


def _random_unit(theta: Tensor, generator: torch.Generator) -> Tensor:
    return _unit(torch.randn(theta.shape, generator=generator).to(theta))


def _unit(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector / norm if norm > 0 else vector

"""Spectrum of the loss Hessian: both ends, the trace, the share below zero, and where the gradient lies in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Annotated, Literal

from eosrepro.core.along import dot
from eosrepro.core.lanczos import bottom_eigenpair, random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.quadrature import average, stochastic_quadratures
from eosrepro.core.types import AtLeast, EigenPair, Position, Rtol, Seed

if TYPE_CHECKING:
    from torch import Tensor

MAX_K = 5  # one column each


@dataclass(frozen=True)
class SpectrumRow:
    """∇²f at one snapshot. Eigenvalues, residuals and trace have the unit of the sharpness, loss/θ²."""

    step: int
    top_eigenvalue_1: float
    top_eigenvalue_2: float  # this and the following: NaN beyond k
    top_eigenvalue_3: float
    top_eigenvalue_4: float
    top_eigenvalue_5: float
    spectrum_residual: float  # the largest of those of the k pairs
    smallest_eigenvalue: float  # the most negative
    smallest_residual: float
    trace: float  # the sum of all P eigenvalues
    trace_standard_error: float
    negative_mass: float  # Σ|λ| over the negative eigenvalues / Σ|λ| over all, in 0..1; NaN where ∇²f = 0
    gradient_overlap_1: float  # ⟨∇f, v_1⟩² / ‖∇f‖²
    gradient_overlap: float  # share of ‖∇f‖² in the span of the k eigenvectors
    alignment: float  # |⟨v_1, v_1 of the snapshot before⟩|; NaN where a block begins
    spectrum_products: int  # Hessian-vector products spent on all of this


def spectrum(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    k: Literal[1, 2, 3, 4, 5],
    n_probes: Annotated[int, AtLeast(2)],
    n_nodes: Annotated[int, AtLeast(1)],
    rtol: Rtol,
    max_products: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[SpectrumRow]:
    """The spectrum of ∇²f at each snapshot, one row a snapshot.

    Every solve starts from a random vector of its own: slower than from a sketch, as that of the sharpness, and
    independent of it. Trace and negative mass come from the same stochastic Lanczos quadratures (Ghorbani, Krishnan,
    Xiao 2019, arXiv 1901.10159): the first coefficient of each is Hutchinson's sample zᵀ∇²f z/P. The share of the
    gradient in the top eigenvectors is that of Gur-Ari, Roberts, Dyer 2018 (arXiv 1812.04754). Negative eigenvalues
    are weighed and not counted: nearly all of a network's lie so close to zero that their sign is rounding.

    Args:
        k: how many of the largest eigenvalues.
        n_probes: random vectors of the quadratures.
        n_nodes: products for each of them.
        rtol: largest residual of the k pairs and of the smallest one, as a share of each one's eigenvalue.
        max_products: products allowed in each of the two solves.

    Raises:
        NotConvergedError: rtol was not reached within max_products.
    """
    generator = torch.Generator().manual_seed(seed)
    before: Tensor | None = None
    for step, theta, _state in snapshots:
        hvp, size = objective.hvp(theta), theta.numel()
        first, second = (random_unit(theta, generator) for _ in range(2))
        pairs = top_eigenpairs(hvp, first, k=min(k, size), rtol=rtol, max_products=max_products)
        smallest = bottom_eigenpair(hvp, second, rtol=rtol, max_products=max_products)
        quadratures = stochastic_quadratures(hvp, theta, n_probes=n_probes, n_nodes=n_nodes, generator=generator)
        mean, standard_error = average(quadratures, lambda values: values)
        overlaps = _shares(hvp.grad, pairs)
        values = [pair.value for pair in pairs] + [nan] * (MAX_K - len(pairs))
        yield SpectrumRow(
            step=step,
            top_eigenvalue_1=values[0],
            top_eigenvalue_2=values[1],
            top_eigenvalue_3=values[2],
            top_eigenvalue_4=values[3],
            top_eigenvalue_5=values[4],
            spectrum_residual=max(pair.residual for pair in pairs),
            smallest_eigenvalue=smallest.value,
            smallest_residual=smallest.residual,
            trace=size * mean,
            trace_standard_error=size * standard_error,
            negative_mass=_ratio(
                average(quadratures, lambda values: (-values).clamp(min=0))[0], average(quadratures, torch.abs)[0]
            ),
            gradient_overlap_1=overlaps[0],
            gradient_overlap=sum(overlaps),
            alignment=nan if before is None else abs(dot(before, pairs[0].vector)),
            spectrum_products=pairs[0].products + smallest.products + sum(len(rule.nodes) for rule in quadratures),
        )
        before = pairs[0].vector


def _shares(grad: Tensor, pairs: list[EigenPair]) -> list[float]:
    return [_ratio(dot(grad, pair.vector) ** 2, dot(grad, grad)) for pair in pairs]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else nan

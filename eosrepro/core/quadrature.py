"""Density of the eigenvalues of a symmetric matrix that is known only by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eosrepro.core.lanczos import Matvec, krylov_spaces
from eosrepro.core.later import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Quadrature:
    """Gauss quadrature of the spectral measure of A seen from one unit vector q: qᵀ f(A) q ≈ Σ weights·f(nodes).

    Exact where f is a polynomial of degree up to 2m − 1 (Golub & Meurant, Matrices, Moments and Quadrature, 2010).
    """

    nodes: Tensor  # (m,), float64, ascending
    weights: Tensor  # (m,), float64, of sum 1

    def __call__(self, function: Callable[[Tensor], Tensor]) -> float:
        """Σ weights·function(nodes), with `function` (m,) → (m,)."""
        return torch.dot(self.weights, function(self.nodes).double()).item()


def quadrature(matvec: Matvec, start: Tensor, n_nodes: int) -> Quadrature:
    """The quadrature of `n_nodes` nodes from `start`, one product each; of fewer where the space is exhausted."""
    *_, space = krylov_spaces(matvec, start[None], n_nodes)
    return Quadrature(space.values, space.vectors[0].square())


def stochastic_quadratures(
    matvec: Matvec, like: Tensor, *, n_probes: int, n_nodes: int, generator: torch.Generator
) -> list[Quadrature]:
    """Stochastic Lanczos quadrature: one quadrature for each of `n_probes` vectors of random signs.

    Their average estimates the density of eigenvalues, tr f(A)/P for any f (Lin, Saad, Yang 2016; Ghorbani, Krishnan,
    Xiao 2019, arXiv 1901.10159). With f(λ) = λ it is Hutchinson's estimate of the trace, for which one node is enough.

    Args:
        like: (P,); gives size, dtype and device of the probes, which are drawn on the CPU.
    """
    signs = (torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1 for _ in range(n_probes))
    return [quadrature(matvec, probe, n_nodes) for probe in signs]


def average(quadratures: Sequence[Quadrature], function: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The estimate of tr f(A)/P from at least two probes, and its standard error."""
    samples = torch.tensor([rule(function) for rule in quadratures], dtype=torch.float64)
    return samples.mean().item(), samples.std().item() / len(samples) ** 0.5

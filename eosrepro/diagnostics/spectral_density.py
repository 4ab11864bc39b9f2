"""Density of the eigenvalues of the loss Hessian, as nodes and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.quadrature import stochastic_quadratures
from eosrepro.core.types import AtLeast, Position, Seed


@dataclass(frozen=True)
class DensityRow:
    """One node of the quadratures at one snapshot."""

    step: int
    probe: int  # which random vector it belongs to, from 0
    eigenvalue: float  # the node, unit loss/θ²
    weight: float  # share of the P eigenvalues that it stands for; of sum 1 over all nodes of a snapshot


def spectral_density(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    n_probes: Annotated[int, AtLeast(1)],
    n_nodes: Annotated[int, AtLeast(1)],
    seed: Seed,
) -> Iterator[DensityRow]:
    """Stochastic Lanczos quadrature at each snapshot (Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159).

    n_probes × n_nodes Hessian products a snapshot. Σ weight·h(eigenvalue) estimates the mean of h over all eigenvalues:
    with h a Gaussian around λ it is the smoothed density at λ, as plots show it.
    """
    generator = torch.Generator().manual_seed(seed)
    for step, theta, _state in snapshots:
        rules = stochastic_quadratures(
            objective.hvp(theta), theta, n_probes=n_probes, n_nodes=n_nodes, generator=generator
        )
        for probe, rule in enumerate(rules):
            for node, weight in zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True):
                yield DensityRow(step, probe, node, weight / n_probes)

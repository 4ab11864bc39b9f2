"""Products of the Hessian with vectors, from the parts of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from eosrepro.core.later import torch
from eosrepro.core.ranks import Piece
from eosrepro.core.types import HessianProduct

if TYPE_CHECKING:
    from torch import Tensor

    from eosrepro.core.objective import Objective

# θ → (share of f that one chunk contributes, float64 scalar; sum of the scores of its examples, or NaN)
Part: TypeAlias = "Callable[[Tensor], tuple[Tensor, Tensor]]"


def products(objective: Objective, theta: Tensor) -> HessianProduct:
    """The map v ↦ ∇²f(θ) v, with one graph in memory at a time: see `Objective.hvp`."""
    if objective.over is None and len(objective.parts) == 1:
        return _KeptGraph(objective.parts[0], theta)
    return _Summed(objective, theta)


class _KeptGraph:
    def __init__(self, part: Part, theta: Tensor) -> None:
        from eosrepro.core.slope import Slope

        self._slope = Slope.apply
        self._leaf = theta.detach().requires_grad_()
        self._grad = torch.autograd.grad(part(self._leaf)[0], self._leaf, create_graph=True)[0]
        self.grad = self._grad.detach()

    def __call__(self, vector: Tensor) -> Tensor:
        if not self._grad.requires_grad:  # f is affine in θ
            return torch.zeros_like(vector)
        # The gradient of ⟨∇f, v⟩, whose value nobody asks for. Handing v over as `grad_outputs` gives the same, but
        # loads a whole algebra system.
        slope: Tensor = self._slope(self._grad, vector)
        return torch.autograd.grad(slope, self._leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


class _Summed:
    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self._objective, self._theta = objective, theta
        whole = objective.over == 1  # one part, which one of the ranks has
        if not whole:
            self.grad = objective.value_and_grad(theta).grad
        # The graph of the only part of this rank can be kept.
        kept = len(objective.parts) <= 1
        self._graphs = [_KeptGraph(part, theta) for part in objective.parts] if kept else None
        if whole:
            self.grad = self._sum(lambda graph: graph.grad)

    def __call__(self, vector: Tensor) -> Tensor:
        return self._sum(lambda graph: graph(vector))

    def _sum(self, of: Callable[[_KeptGraph], Tensor]) -> Tensor:
        parts = self._objective.parts
        graphs = (_KeptGraph(part, self._theta) for part in parts) if self._graphs is None else self._graphs
        total = self._objective.sum((Piece(of(graph)) for graph in graphs), like=self._theta).vector
        assert total is not None
        return total

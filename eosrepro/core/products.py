"""Products of the Hessian with vectors, from the parts of a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from eosrepro.core.later import torch
from eosrepro.core.networks import LinearFirst
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
    """The graph of ∇f of one part. Of a first linear layer it has the outputs Z alone: ∇f in its weights is δᵀX, a
    product as large as that of the layer, and a Hessian product needs the derivative of δ and not δᵀX itself.
    """

    def __init__(self, part: Part, theta: Tensor) -> None:
        from eosrepro.core.slope import Slope

        self._slope, self._part = Slope.apply, part
        self._leaves = [piece.detach().requires_grad_() for piece in self._apart(theta)]
        value, _scores = part.rest(*self._leaves) if isinstance(part, LinearFirst) else part(*self._leaves)
        self._grads = torch.autograd.grad(value, self._leaves, create_graph=True, materialize_grads=True)

    @cached_property
    def grad(self) -> Tensor:
        return self._joined([grad.detach() for grad in self._grads])

    def __call__(self, vector: Tensor) -> Tensor:
        # The gradient of ⟨∇f, v⟩, whose value nobody asks for. Handing v over as `grad_outputs` gives the same, but
        # loads a whole algebra system.
        pairs = zip(self._grads, self._apart(vector), strict=True)
        slopes: list[Tensor] = [self._slope(grad, piece) for grad, piece in pairs if grad.requires_grad]
        if not slopes:  # f is affine in θ
            return torch.zeros_like(vector)
        return self._joined(torch.autograd.grad(slopes, self._leaves, retain_graph=True, materialize_grads=True))

    def _apart(self, vector: Tensor) -> Sequence[Tensor]:
        return self._part.apart(vector) if isinstance(self._part, LinearFirst) else [vector]

    def _joined(self, pieces: Sequence[Tensor]) -> Tensor:
        return self._part.joined(*pieces) if isinstance(self._part, LinearFirst) else pieces[0]


class _Summed:
    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self._objective, self._theta = objective, theta
        # The graph of the only part of this rank can be kept.
        kept = len(objective.parts) <= 1
        self._graphs = [_KeptGraph(part, theta) for part in objective.parts] if kept else None

    @cached_property
    def grad(self) -> Tensor:
        return self._sum(lambda graph: graph.grad)

    def __call__(self, vector: Tensor) -> Tensor:
        return self._sum(lambda graph: graph(vector))

    def _sum(self, of: Callable[[_KeptGraph], Tensor]) -> Tensor:
        parts = self._objective.parts
        graphs = (_KeptGraph(part, self._theta) for part in parts) if self._graphs is None else self._graphs
        total = self._objective.sum((Piece(of(graph)) for graph in graphs), like=self._theta).vector
        assert total is not None
        return total

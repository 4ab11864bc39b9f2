"""Networks that begin with a linear layer, in coordinates that have as many inputs as there are examples.

The layer sees the inputs X, (n, d), through their row space alone. With Xᵀ = QR, Q of shape (d, n) with orthonormal
columns, X W₁ᵀ = Rᵀ (W₁Q)ᵀ: training W₁Q on Rᵀ is training W₁ on X. f, ‖∇f‖, every eigenvalue of ∇²f other than 0 and
all inner products of gradients are the same; what W₁ has beside the row space no gradient reaches, so it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from eosrepro.core.later import nn, pytree, torch
from eosrepro.core.networks import LinearFirst, flattened
from eosrepro.core.sequences import first_and_rest
from eosrepro.core.types import Position

if TYPE_CHECKING:
    from torch import Tensor

    from eosrepro.core.objective import Objective


@dataclass(frozen=True)
class RowSpace:
    """What leads from these coordinates back to the parameters of the network."""

    basis: Tensor = field(repr=False)  # Q, (d, n); float64 where a run is trained in it
    weights: Tensor = field(repr=False)  # what W₁ has beside it for good, (width, d): that of the start

    def n_parameters(self, n_coordinates: int) -> int:
        """P."""
        n_inputs, n = self.basis.shape
        return n_coordinates + len(self.weights) * (n_inputs - n)

    def parameters(self, theta: Tensor) -> Tensor:
        """θ of the network, of shape (P,), from θ in these coordinates."""
        return self._widened(theta, lambda first: self.weights + (first - self.weights @ self.basis) @ self.basis.T)

    def directions(self, vectors: Tensor) -> Tensor:
        """(..., P') → (..., P): what in the network has these coordinates, and nothing beside the row space."""
        return self._widened(vectors, lambda first: _times(first, self.basis))

    def coordinates(self, vectors: Tensor) -> Tensor:
        """(..., P) → (..., P'): what they have in this space."""
        first, others = vectors[..., : self.weights.numel()], vectors[..., self.weights.numel() :]
        inside = _times(first.reshape(*vectors.shape[:-1], *self.weights.shape).to(self.basis), self.basis.T)
        return torch.cat([inside.to(vectors).flatten(-2), others], dim=-1)

    def position(self, at: Position) -> Position:
        """The same place, and the state of the optimizer there, in the parameters of the network.

        A state of vectors is one of sums of gradients: nothing of them is beside the row space.
        """
        size = len(at.theta)

        def widened(each: Tensor) -> Tensor:
            return self.directions(each) if each.shape[-1:] == (size,) else each

        return Position(at.step, self.parameters(at.theta), pytree.tree_map_only(torch.Tensor, widened, at.state))

    def _widened(self, vectors: Tensor, wide: Callable[[Tensor], Tensor]) -> Tensor:
        """(..., P') → (..., P), where the first layer, (..., width, n), becomes a `wide` one, (..., width, d)."""
        width, n = len(self.weights), self.basis.shape[1]
        first = vectors[..., : width * n].reshape(*vectors.shape[:-1], width, n).to(self.basis)
        return torch.cat([wide(first).to(vectors).flatten(-2), vectors[..., width * n :]], dim=-1)


def _times(left: Tensor, right: Tensor) -> Tensor:
    """A Bᵀ of A, (..., m, k), and B, (n, k)."""
    from eosrepro.core.onednn import product

    return product(left.flatten(0, -2), right).reshape(*left.shape[:-1], len(right))


def size_in_row_space(module: nn.Module, n_examples: int) -> int | None:
    """The number of coordinates, of a module on any device; None where `in_row_space` finds none."""
    parts = first_and_rest(module)
    if parts is None or n_examples >= parts[0].in_features:
        return None
    return len(flattened(module)) - parts[0].out_features * (parts[0].in_features - n_examples)


def in_row_space(module: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor, RowSpace] | None:
    """The module on fewer inputs, the inputs Rᵀ of shape (n, n), and the way back.

    None where it does not begin with a linear layer for certain, or where there are as many examples as inputs.
    """
    parts = first_and_rest(module)
    if parts is None or len(inputs) >= parts[0].in_features:
        return None
    first, rest = parts
    basis, triangle = torch.linalg.qr(inputs.flatten(1).double().T)
    weights = first.weight.detach().double()
    layer = nn.Linear(len(inputs), first.out_features, bias=first.bias is not None, device="meta")
    layer.weight = nn.Parameter((weights @ basis).to(first.weight))
    layer.bias = first.bias
    return nn.Sequential(nn.Flatten(), layer, *rest), triangle.T.to(inputs).contiguous(), RowSpace(basis, weights)


def on_own_row_space(objective: Objective, indices: Tensor) -> tuple[Objective, RowSpace] | None:
    """The mean over few examples, as a function of the coordinates of the row space of their own inputs.

    Its eigenvectors are those of the mean over these examples as it is: `RowSpace.directions` leads to them. All ranks
    hold all of it.

    None where the network does not begin with a linear layer, or where they are as many as its inputs.
    """
    layer = objective.batch(indices[:1], everywhere=True).parts[0]
    if not isinstance(layer, LinearFirst) or len(indices) >= layer.inputs.shape[1]:
        return None
    few = objective.batch(indices, everywhere=True)
    (part, *others) = few.parts
    if others or not isinstance(part, LinearFirst):
        return None
    inputs = part.inputs
    basis, triangle = torch.linalg.qr(inputs.to(torch.promote_types(inputs.dtype, torch.float32)).T)
    space = RowSpace(basis, basis.new_zeros(part.width, inputs.shape[1]))
    narrow = replace(part, inputs=triangle.T.to(inputs).contiguous())
    return replace(few, start=space.coordinates(few.start), parts=[narrow], of_examples=None, rough=None), space

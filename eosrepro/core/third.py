"""Third derivatives: how the curvature of f along given directions changes with θ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def curvature_grads(part: Callable[[Tensor], tuple[Tensor, Tensor]], theta: Tensor, vectors: Tensor) -> Tensor:
    """∇_θ ⟨v_i, ∇²f(θ) v_j⟩ for all pairs, (k, k, P), of a part of f: by three backward passes.

    Args:
        part: as those of an `Objective`.
        theta: (P,).
        vectors: v_i, (k, P).
    """
    k = len(vectors)
    found = theta.new_zeros(k, k, len(theta))
    leaf = theta.detach().requires_grad_()
    grad = _derivative(part(leaf)[0], leaf)
    for i in range(k):
        product = _derivative(torch.dot(grad, vectors[i]), leaf)
        for j in range(i + 1):
            found[i, j] += _derivative(torch.dot(product, vectors[j]), leaf).detach()
    lower = torch.tril_indices(k, k, -1)
    found[lower[1], lower[0]] = found[lower[0], lower[1]]
    return found


def _derivative(value: Tensor, leaf: Tensor) -> Tensor:
    """With its graph; 0 where nothing depends on θ, as the Hessian of a quadratic."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    return torch.autograd.grad(value, leaf, create_graph=True, allow_unused=True, materialize_grads=True)[0]

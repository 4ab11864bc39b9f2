"""What published code does, as simply: `eosrepro bench` measures against these, and tests compare results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from eosrepro.core.objective import Objective


def matrix_products(n_examples: int, device: str, sizes: Sequence[int]) -> Callable[[], object]:
    """The matrix products of one gradient of a fully connected network with these layers, and nothing else.

    For two hidden layers: forward X W₁ᵀ, A₁W₂ᵀ, A₂W₃ᵀ; backward δ₃ᵀA₂, δ₃W₃, δ₂ᵀA₁, δ₂W₂, δ₁ᵀX. (The inputs need no
    gradient.)
    """
    activations = [torch.rand(n_examples, size, device=device) for size in sizes]
    weights = [torch.rand(after, before, device=device) for before, after in pairwise(sizes)]

    def multiply() -> None:
        for layer, weight in enumerate(weights):
            activations[layer] @ weight.T
        for layer in reversed(range(len(weights))):
            activations[layer + 1].T @ activations[layer]
            if layer:
                activations[layer + 1] @ weights[layer]

    return multiply


def cold_eigsh(objective: Objective, theta: Tensor) -> tuple[float, int]:
    """The sharpness as SciPy finds it: from a random vector, to machine precision, by fresh double backward passes.

    Returns:
        The algebraically largest eigenvalue and the Hessian products it took.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    n_products = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal n_products
        n_products += 1
        direction = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(theta)
        total = torch.zeros_like(theta)
        for part in objective.parts:
            leaf = theta.detach().requires_grad_()
            grad = torch.autograd.grad(part(leaf)[0], leaf, create_graph=True)[0]
            total += torch.autograd.grad(torch.dot(grad, direction), leaf)[0]
        return total.cpu().numpy()

    size = theta.numel()
    kind = np.float64 if theta.dtype == torch.float64 else np.float32
    operator = LinearOperator((size, size), matvec=product, dtype=kind)
    start = np.random.default_rng(0).standard_normal(size).astype(kind)
    (value,) = eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)
    return float(value), n_products


def without_first_layer(objective: Objective) -> Objective:
    """The same function, known by its values alone: whatever is measured on it takes full gradients."""
    parts = [partial(lambda part, theta: part(theta), part) for part in objective.parts]
    return replace(objective, parts=parts)

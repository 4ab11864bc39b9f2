"""What published code does, as simply: `eosrepro bench` measures against these, and tests compare results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

from eosrepro.core.objective import Objective


def by_pytorch(left: Tensor, right: Tensor) -> Tensor:
    """A Bᵀ, by the library that PyTorch takes."""
    return left @ right.T


def matrix_products(
    n_examples: int, device: str, sizes: Sequence[int], product: Callable[[Tensor, Tensor], Tensor] = by_pytorch
) -> Callable[[], object]:
    """The matrix products of one gradient of a fully connected network with these layers, and nothing else.

    For two hidden layers: forward X W₁ᵀ, A₁W₂ᵀ, A₂W₃ᵀ; backward δ₃ᵀA₂, δ₃W₃, δ₂ᵀA₁, δ₂W₂, δ₁ᵀX. (The inputs need no
    gradient.)

    Args:
        product: A, B ↦ A Bᵀ.
    """
    activations = [torch.rand(n_examples, size, device=device) for size in sizes]
    weights = [torch.rand(after, before, device=device) for before, after in pairwise(sizes)]

    def multiply() -> None:
        for layer, weight in enumerate(weights):
            product(activations[layer], weight)
        for layer in reversed(range(len(weights))):
            product(activations[layer + 1].T, activations[layer].T)
            if layer:
                product(activations[layer + 1], weights[layer].T)

    return multiply


@dataclass(frozen=True)
class Reference:
    """What the reference code of Cohen et al. 2021 does (locuslab/edge-of-stability), with torch.nn alone.

    Passes are over batches of 1,000. A step is a full evaluation of loss and accuracy, the gradient by `backward`, and
    a step of torch.optim.SGD. A sharpness is ARPACK's from cold, tolerance 0, on products by a fresh double backward.
    (That code takes the largest eigenvalue in magnitude; this one the largest.)
    """

    module: nn.Module
    inputs: Tensor  # (N, ...)
    targets: Tensor  # (N,)
    step_size: float
    batch_size: int = 1000

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of each."""
        yield from zip(*(torch.split(each, self.batch_size) for each in (self.inputs, self.targets)), strict=True)

    def evaluate(self) -> tuple[float, float]:
        """Loss and accuracy."""
        loss = hits = 0.0
        with torch.no_grad():
            for x, y in self.batches():
                outputs = self.module(x)
                loss += cross_entropy(outputs, y, reduction="sum").item()
                hits += (outputs.argmax(1) == y).sum().item()
        return loss / len(self.targets), hits / len(self.targets)

    def step(self) -> tuple[float, float]:
        """Loss and accuracy before it."""
        before, optimizer = self.evaluate(), torch.optim.SGD(self.module.parameters(), lr=self.step_size)
        optimizer.zero_grad()
        for x, y in self.batches():
            (cross_entropy(self.module(x), y, reduction="sum") / len(self.targets)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return before

    def sharpness(self) -> tuple[float, int]:
        """The sharpness, and the Hessian products it took."""
        parameters = list(self.module.parameters())

        def product(direction: Tensor) -> Tensor:
            total = torch.zeros_like(direction)
            for x, y in self.batches():
                loss = cross_entropy(self.module(x), y, reduction="sum") / len(self.targets)
                grad = torch.autograd.grad(loss, parameters, create_graph=True)
                slope = parameters_to_vector(grad).mul(direction).sum()
                total += parameters_to_vector(torch.autograd.grad(slope, parameters))
            return total

        return _eigsh(product, parameters_to_vector(parameters).detach())


def without_first_layer(objective: Objective) -> Objective:
    """The same function, known by its values alone: whatever is measured on it takes full gradients."""
    parts = [partial(lambda part, theta: part(theta), part) for part in objective.parts]
    return replace(objective, parts=parts)


def _eigsh(product: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[float, int]:
    from scipy.sparse.linalg import LinearOperator, eigsh

    n_products = 0

    def counted(vector: np.ndarray) -> np.ndarray:
        nonlocal n_products
        n_products += 1
        direction = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(theta)
        return product(direction).cpu().numpy()

    size = theta.numel()
    kind = np.float64 if theta.dtype == torch.float64 else np.float32
    operator = LinearOperator((size, size), matvec=counted, dtype=kind)
    start = np.random.default_rng(0).standard_normal(size).astype(kind)
    (value,) = eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)
    return float(value), n_products

"""What published code does, as simply: `eosrepro bench` measures against these, and tests compare results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

from eosrepro.core.objective import Objective
from eosrepro.core.onednn import outer, product


class Library(NamedTuple):
    """Two ways to multiply matrices."""

    product: Callable[[Tensor, Tensor], Tensor]  # A Bᵀ of A, (m, k), and B, (n, k)
    outer: Callable[[Tensor, Tensor], Tensor]  # Aᵀ B of A, (n, m), and B, (n, k)


PYTORCH = Library(lambda left, right: left @ right.T, lambda left, right: left.T @ right)
FASTER = Library(product, outer)


@dataclass(frozen=True)
class MatrixProducts:
    """The matrix products of a fully connected network with layers of these sizes, of which the first is its inputs.

    Nothing else is computed: this is the floor of what takes them.
    """

    n_examples: int
    sizes: Sequence[int]
    device: str
    library: Library
    dtype: torch.dtype = torch.float32

    def gradient(self) -> None:
        """For two hidden layers: X W₁ᵀ, A₁W₂ᵀ, A₂W₃ᵀ; δ₃ᵀA₂, δ₃W₃, δ₂ᵀA₁, δ₂W₂, δ₁ᵀX. (X needs no gradient.)"""
        self.graph()
        self.library.outer(self._activations[1], self._activations[0])

    def graph(self) -> None:
        """The gradient in Z = X W₁ᵀ and the later layers: what Hessian products at one θ share."""
        for layer, weight in enumerate(self._weights):
            self.library.product(self._activations[layer], weight)
        for layer in reversed(range(1, len(self._weights))):
            self.library.outer(self._activations[layer + 1], self._activations[layer])
            self.library.product(self._activations[layer + 1], self._weights[layer].T)

    def hessian_product(self) -> None:
        """Along V: X V₁ᵀ, and of a later layer AVᵀ and A'Wᵀ; δV, δ'W, δᵀA' and δ'ᵀA; δ₁'ᵀX."""
        for layer in range(len(self._weights)):
            for _ in range(2 if layer else 1):
                self.library.product(self._activations[layer], self._weights[layer])
                self.library.outer(self._activations[layer + 1], self._activations[layer])
                if layer:
                    self.library.product(self._activations[layer + 1], self._weights[layer].T)

    @cached_property
    def _activations(self) -> list[Tensor]:
        return [torch.rand(self.n_examples, size, device=self.device).to(self.dtype) for size in self.sizes]

    @cached_property
    def _weights(self) -> list[Tensor]:
        return [torch.rand(after, before, device=self.device).to(self.dtype) for before, after in pairwise(self.sizes)]


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

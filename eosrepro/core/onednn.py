"""Linear layers and tanh by the faster of two libraries that PyTorch carries.

PyTorch multiplies float32 on a processor by MKL, which on an AMD EPYC with AVX-512 reaches half of what the processor
can do. oneDNN, which it has for convolutions and bfloat16, writes its code for the processor at hand. It sums in
float32 as well, and finds tanh to 1.2 units in the last place. Any number of threads finds the same bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SMALL = 10_000_000  # multiplications; of fewer, the calls take longer than the product
FEW = 60_000  # numbers; of fewer, the calls take longer than tanh
BLOCK = 100_000  # numbers; oneDNN is given copies, which caches should hold
LARGE = 3_200_000  # numbers; a transposed matrix of more is multiplied a piece at a time, as caches hold no more


def linear(inputs: Tensor, weights: Tensor, biases: Tensor | None = None) -> Tensor:
    """X Wᵀ + b, (n, width); any number of derivatives.

    Args:
        inputs: X, (n, ..., n_inputs).
        weights: W, (width, n_inputs).
        biases: b, (width,).
    """
    if not _suit(inputs, weights):
        return functional.linear(inputs, weights, biases)
    outputs: Tensor = _Outputs.apply(inputs.flatten(0, -2), weights, biases)
    return outputs.reshape(*inputs.shape[:-1], len(weights))


def tanh(inputs: Tensor) -> Tensor:
    """Of each number; any number of derivatives."""
    if inputs.dtype != torch.float32 or inputs.device.type != "cpu" or inputs.numel() < FEW or not _is_faster():
        return torch.tanh(inputs)
    outputs: Tensor = _Tanh.apply(inputs)
    return outputs


class OneDNN(TorchFunctionMode):
    """With this, the linear layers of any module are `linear`, and its tanh is `tanh`."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return {functional.linear: linear, torch.tanh: tanh}.get(func, func)(*args, **kwargs or {})


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Aᵀ B of A, (n, m), and B, (n, k), without derivatives."""
    if left.shape[1] > right.shape[1]:  # oneDNN copies the factor on the left: that should be the narrow one
        return product(right.T, left.T).T.contiguous()
    return product(left.T, right.T)


def product(left: Tensor, right: Tensor) -> Tensor:
    """A Bᵀ of A, (m, k), and B, (n, k), without derivatives."""
    return _multiply(left, right) if _suit(left, right) else left @ right.T


# X Wᵀ + b, and the two products that its derivatives consist of. Their derivatives are these three again. What they
# find lies row by row in memory: a transposed one would slow down whatever follows.


class _Product(torch.autograd.Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])


class _Outputs(_Product):
    """X Wᵀ + b of X, (n, d), W, (m, d), and b, (m,)."""

    @staticmethod
    def forward(inputs: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        return _multiply(inputs, weights, biases)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weights = ctx.saved_tensors
        of_inputs, of_weights, of_biases = ctx.needs_input_grad
        return (
            _ToInputs.apply(grad, weights) if of_inputs else None,
            _ToWeights.apply(grad, inputs) if of_weights else None,
            grad.sum(0) if of_biases else None,
        )

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> tuple[Tensor, int]:
        return torch.vmap(functional.linear, in_dims)(*operands), 0


class _ToInputs(_Product):
    """D W of D, (n, m), and W, (m, d)."""

    @staticmethod
    def forward(delta: Tensor, weights: Tensor) -> Tensor:
        return product(delta, weights.T)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        delta, weights = ctx.saved_tensors
        of_delta, of_weights = ctx.needs_input_grad
        return linear(grad, weights) if of_delta else None, _ToWeights.apply(delta, grad) if of_weights else None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *operands: Tensor) -> tuple[Tensor, int]:
        return torch.vmap(torch.mm, in_dims)(*operands), 0


class _ToWeights(_Product):
    """Dᵀ X of D, (n, m), and X, (n, d)."""

    @staticmethod
    def forward(delta: Tensor, inputs: Tensor) -> Tensor:
        return outer(delta, inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        delta, inputs = ctx.saved_tensors
        of_delta, of_inputs = ctx.needs_input_grad
        return linear(inputs, grad) if of_delta else None, _ToInputs.apply(delta, grad) if of_inputs else None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *operands: Tensor) -> tuple[Tensor, int]:
        return torch.vmap(lambda delta, inputs: delta.T @ inputs, in_dims)(*operands), 0


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Tensor) -> Tensor:
        found = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        pieces = (torch.split(each.view(-1), BLOCK) for each in (inputs.contiguous(), found))
        for piece, place in zip(*pieces, strict=True):
            place.copy_(piece.to_mkldnn().tanh().to_dense())
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        of_inputs: Tensor = torch.ops.aten.tanh_backward(grad, output)
        return of_inputs

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> tuple[Tensor, int]:
        return torch.vmap(torch.tanh, in_dims)(*operands), 0


def _multiply(left: Tensor, right: Tensor, biases: Tensor | None = None) -> Tensor:
    by_one_dnn = torch.ops.mkldnn._linear_pointwise
    if right.is_contiguous() or right.numel() <= LARGE:
        found: Tensor = by_one_dnn(left, right, biases, "none", [], "")
        return found
    piece = max(1, LARGE // right.shape[0])
    first, *others = zip(torch.split(left, piece, 1), torch.split(right, piece, 1), strict=True)
    found = by_one_dnn(*first, biases, "none", [], "")
    for one, other in others:
        found += by_one_dnn(one, other, None, "none", [], "")
    return found


def _suit(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and left.ndim > 1
        and left[..., 0].numel() * right.numel() >= SMALL
        and _is_faster()
    )


@cache
def _is_faster() -> bool:
    """Whether the processor has AVX-512, and this PyTorch the operation, which is not public."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(torch.ops.mkldnn, "_linear_pointwise")

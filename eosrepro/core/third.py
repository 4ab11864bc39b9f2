"""Third derivatives: how the curvature of f along given directions changes with θ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode


def curvature_grads(
    parts: Sequence[Callable[[Tensor], tuple[Tensor, Tensor]]], theta: Tensor, vectors: Tensor
) -> Tensor:
    """∇_θ ⟨v_i, ∇²f(θ) v_j⟩ for all pairs, (k, k, P), of the sum f of the parts: by three backward passes.

    Args:
        parts: as those of an `Objective`.
        theta: (P,).
        vectors: v_i, (k, P).
    """
    k = len(vectors)
    found = theta.new_zeros(k, k, len(theta))
    for part in parts:
        leaf = theta.detach().requires_grad_()
        with _PlainBatchNorm():
            value = part(leaf)[0]
        grad = _derivative(value, leaf)
        for i in range(k):
            product = _derivative(torch.dot(grad, vectors[i]), leaf)
            for j in range(i + 1):
                found[i, j] += _derivative(torch.dot(product, vectors[j]), leaf).detach()
    lower = torch.tril_indices(k, k, -1)
    found[lower[1], lower[0]] = found[lower[0], lower[1]]
    return found


class _PlainBatchNorm(TorchFunctionMode):
    """Batch normalisation by operations that PyTorch differentiates three times: its own it does twice."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not batch_norm:
            return func(*args, **kwargs)
        return _plain_batch_norm(*args, **kwargs)


def _plain_batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Tensor:
    """(n, channels, ...) with the statistics of each channel, or the running ones, which it does not change."""
    channels = (-1, *[1] * (inputs.ndim - 2))
    others = [each for each in range(inputs.ndim) if each != 1]
    if training or running_mean is None or running_var is None:
        mean = inputs.mean(others).view(channels)
        variance = (inputs - mean).square().mean(others).view(channels)
    else:
        mean, variance = running_mean.view(channels), running_var.view(channels)
    normal = (inputs - mean) / (variance + eps).sqrt()
    scaled = normal if weight is None else normal * weight.view(channels)
    return scaled if bias is None else scaled + bias.view(channels)


def _derivative(value: Tensor, leaf: Tensor) -> Tensor:
    """With its graph; 0 where nothing depends on θ, as the Hessian of a quadratic."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    return torch.autograd.grad(value, leaf, create_graph=True, allow_unused=True, materialize_grads=True)[0]

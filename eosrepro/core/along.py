"""The loss along straight lines: from θ in a given direction, and from θ against the gradient of every minibatch.

Both need f and its derivative along the line at many points. In general a point costs one loss and gradient. Where a
network begins with a linear layer (`objective.LinearFirst`), the layer's outputs Z are affine along the line: they are
computed once, and a point costs the layers after it alone, a sixth of a gradient for the network of Ahn et al. 2022.
A minibatch of m examples, moreover, changes that layer by a matrix of rank m, which acts on the inputs X through the
inner products X X_Bᵀ with its own: along its gradient Z needs m columns of X Xᵀ instead of a product with X.

The derivative is taken backwards, as ⟨∇f, d⟩ with the gradient with respect to Z and the later layers. Forward mode
needs as many matrix products, and PyTorch's forward derivatives of activations are slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from eosrepro.core.later import torch
from eosrepro.core.networks import LinearFirst
from eosrepro.core.objective import Objective, is_lost
from eosrepro.core.products import Part
from eosrepro.core.ranks import Piece

if TYPE_CHECKING:
    from torch import Tensor


class LinePoint(NamedTuple):
    """f at one point of a line."""

    loss: float  # f(θ + t·d)
    slope: float  # d/dt f(θ + t·d) = ⟨∇f(θ + t·d), d⟩


class MinibatchStep(NamedTuple):
    """The step θ − ηg that one minibatch with gradient g would take, seen by the loss over all examples."""

    weight: float  # its share of the examples of all minibatches
    grad_sq_norm: float  # ‖g‖²
    grad_dot_full: float  # ⟨g, ∇f(θ)⟩
    next_loss: float  # f(θ − ηg)
    grad_dot_next_full: float  # ⟨g, ∇f(θ − ηg)⟩


def along(objective: Objective, theta: Tensor, direction: Tensor, times: Sequence[float]) -> list[LinePoint]:
    """f and its derivative at the points θ + t·d of a line.

    Args:
        theta: (P,).
        direction: d, (P,).
        times: the values of t.
    """

    def piece(part: Part) -> Piece:
        # The chunk is the outer loop, so that only one is in memory with its Z.
        at = _after_layer(part, theta, direction) if isinstance(part, LinearFirst) else _whole(part, theta, direction)
        return Piece(None, [number for time in times for number in at(time)])

    numbers = objective.sum(map(piece, objective.parts), n_numbers=2 * len(times)).numbers
    return [LinePoint(*point) for point in zip(numbers[::2], numbers[1::2], strict=True)]


def minibatch_steps(
    objective: Objective, theta: Tensor, grad: Tensor, batches: Iterable[Tensor], *, step_size: float
) -> Iterator[MinibatchStep]:
    """The step of gradient descent on each minibatch from the same θ, with f and ∇f over all examples at its end.

    Args:
        theta: (P,).
        grad: ∇f(θ) over all examples, (P,).
        batches: indices of the examples of each minibatch, (m,).
        step_size: η.

    Raises:
        ConfigError: the objective has no examples.
    """
    parts = [part for part in objective.parts if isinstance(part, LinearFirst)]
    if len(parts) < len(objective.parts):
        for indices in batches:
            yield _whole_step(objective, theta, grad, indices, step_size)
        return
    starts = [part.apart(theta) for part in parts]
    for indices in batches:
        yield _low_rank_step(objective, parts, starts, theta, grad, indices, step_size)


def _whole(part: Part, theta: Tensor, direction: Tensor) -> Callable[[float], LinePoint]:
    def at(time: float) -> LinePoint:
        point = (theta + time * direction).requires_grad_()
        value, _ = part(point)
        return LinePoint(value.item(), dot(torch.autograd.grad(value, point)[0], direction))

    return at


def _after_layer(part: LinearFirst, theta: Tensor, direction: Tensor) -> Callable[[float], LinePoint]:
    start, ahead = (part.apart(vector) for vector in (theta, direction))
    return lambda time: _after_first(part, start, ahead, time)


def _after_first(
    part: LinearFirst, start: tuple[Tensor, Tensor], ahead: tuple[Tensor, Tensor], time: float
) -> LinePoint:
    """`start` and `ahead`: Z and the later parameters at t = 0, and their derivatives along the line."""
    first, others = (torch.add(origin, change, alpha=time) for origin, change in zip(start, ahead, strict=True))
    loss, *grads = _rest(part, first, others)
    return LinePoint(loss, sum(dot(grad, change) for grad, change in zip(grads, ahead, strict=True)))


def _whole_step(objective: Objective, theta: Tensor, full: Tensor, indices: Tensor, step_size: float) -> MinibatchStep:
    grad = objective.batch(indices).value_and_grad(theta).grad
    following = objective.value_and_grad(theta - step_size * grad)
    return MinibatchStep(
        weight=len(indices) / objective.n_examples,
        grad_sq_norm=dot(grad, grad),
        grad_dot_full=dot(grad, full),
        next_loss=following.loss,
        grad_dot_next_full=dot(grad, following.grad),
    )


def _low_rank_step(
    objective: Objective,
    parts: Sequence[LinearFirst],
    starts: Sequence[tuple[Tensor, Tensor]],
    theta: Tensor,
    full: Tensor,
    indices: Tensor,
    step_size: float,
) -> MinibatchStep:
    here = objective.batch(indices, everywhere=True)  # all its rows: each rank needs them for its share of f
    batch = [part for part in here.parts if isinstance(part, LinearFirst)]
    inputs = torch.cat([part.inputs for part in batch])  # X_B: (m, n_inputs)
    # The gradient of the first layer's weights is deltaᵀ X_B and that of its biases the sum of delta, (m, width).
    _, deltas, others = zip(*(_rest(part, *part.apart(theta)) for part in batch), strict=True)
    delta, later = torch.cat(deltas), torch.stack(others).sum(0)
    bias = delta.sum(0)
    full_firsts, (full_later, *_) = zip(*(part.apart(full) for part in batch), strict=True)
    full_first = torch.cat(full_firsts)

    def piece(part: LinearFirst, start: tuple[Tensor, Tensor]) -> Piece:
        whole = len(part.inputs) == objective.n_examples
        change = torch.addmm(bias, _inner_products(part, inputs, indices, whole=whole), delta)
        return Piece(None, _after_first(part, start, (change, later), -step_size))

    loss, slope = objective.sum(map(piece, parts, starts), n_numbers=2).numbers
    return MinibatchStep(
        weight=len(indices) / objective.n_examples,
        grad_sq_norm=dot(inputs @ inputs.T, delta @ delta.T) + dot(bias, bias) + dot(later, later),
        grad_dot_full=dot(full_first, delta) + dot(full_later, later),
        next_loss=loss,
        grad_dot_next_full=slope,
    )


def _rest(part: LinearFirst, first: Tensor, others: Tensor) -> tuple[float, Tensor, Tensor]:
    """The part's share of f, and its gradients with respect to Z and the later parameters."""
    leaves = first.detach().requires_grad_(), others.detach().requires_grad_()
    value, _ = part.rest(*leaves)
    grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return value.item(), grads[0], grads[1]


def _inner_products(part: LinearFirst, inputs: Tensor, indices: Tensor, *, whole: bool) -> Tensor:
    """X X_Bᵀ, (n, m): cut from X Xᵀ where the part holds all examples and that is not much larger than X itself."""
    if whole and part.inputs.shape[0] <= 2 * part.inputs.shape[1]:
        return part.inner_products[indices.to(inputs.device)].T
    from eosrepro.core.onednn import product

    return product(part.inputs, inputs)


def step_is_lost(theta: Tensor, update: Tensor) -> bool:
    """As `is_lost`, of a step u from θ, both (P,)."""
    return is_lost(dot(update, update), dot(theta - (theta - update), update))


def dot(left: Tensor, right: Tensor) -> float:
    """The inner product of two vectors, or of two matrices, summed in float64.

    L is a difference that nearly cancels. Of matrices, the sums of rows alone are widened: to copy the outputs of a
    layer takes as long as the layers after it.
    """
    products = (left * right).sum(-1) if left.ndim > 1 else left.double() * right.double()
    return products.sum(dtype=torch.float64).item()

"""One training loss as functions of a flat parameter vector: f(θ), ∇f(θ) and v ↦ ∇²f(θ) v.

A loss is a sum of parts, one a chunk of examples, so that memory is bounded by the chunk and not by the number of
examples; a function of few numbers is a single part. Optimisers, eigensolvers and diagnostics see nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import nan

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from eosrepro.core.networks import as_function, flattened, leading_layer, near, near_by, refuse_unless_function, trained
from eosrepro.core.types import Dataset, Evaluation, Function, HessianProduct, Loss
from eosrepro.errors import ConfigError, is_out_of_memory

# θ → (share of f that one chunk contributes, float64 scalar; number of its examples classified rightly, or NaN)
Part = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LinearFirst:
    """A part whose network begins with a linear layer: the first entries of θ, W and b, enter by Z = X Wᵀ + b alone.

    Along a straight line θ + t·d, Z is affine in t: whoever follows the line need not multiply by X at every point.
    """

    inputs: Tensor  # X: (n, n_inputs)
    width: int  # columns of Z
    rest: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (Z, the other entries of θ) → as a part

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.rest(self.first(theta), self.others(theta))

    def first(self, theta: Tensor) -> Tensor:
        """Z for the layer in θ, or in a direction: (P,) → (n, width)."""
        size = self.width * self.inputs.shape[1]
        return linear(self.inputs, theta[:size].view(self.width, -1), theta[size : size + self.width])

    def others(self, theta: Tensor) -> Tensor:
        """The entries of θ, or of a direction, that belong to the layers after the first."""
        return theta[self.width * (self.inputs.shape[1] + 1) :]

    @cached_property
    def inner_products(self) -> Tensor:
        """X Xᵀ, (n, n), kept once it has been asked for."""
        return self.inputs @ self.inputs.T


@dataclass(frozen=True)
class Objective:
    """f(θ) = Σ_parts part(θ), with θ of shape (P,)."""

    n_params: int
    parts: Sequence[Part]
    n_examples: int
    of_examples: Callable[[Tensor], Objective] | None = None  # the same on some examples only; None: it has none
    quantum: float = 0.0  # how far f is rounded, however small it is

    def batch(self, indices: Tensor) -> Objective:
        """The mean of the loss over the examples with these indices, (n,).

        Raises:
            ConfigError: it has no examples, as a function of few numbers.
        """
        if self.of_examples is None:
            raise ConfigError("a problem has no examples to draw minibatches from: use another optimizer")
        return self.of_examples(indices)

    def loss(self, theta: Tensor) -> float:
        """f(θ)."""
        with torch.no_grad():
            return sum(part(theta)[0].item() for part in self.parts)

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        """f(θ), ∇f(θ) and the accuracy, from one pass over the examples."""
        leaf = theta.detach().requires_grad_()
        loss, correct, grad = 0.0, 0.0, None
        for part in self.parts:
            value, hits = part(leaf)
            piece = torch.autograd.grad(value, leaf)[0]
            grad = piece if grad is None else grad + piece
            loss += value.item()
            correct += hits.item()
        assert grad is not None  # there is at least one part
        return Evaluation(loss, grad, correct / self.n_examples)

    def relative_progress(self, here: Evaluation, after: float, promised: float) -> float:
        """(f(θ − u) − f(θ)) / ⟨u, ∇f(θ)⟩, NaN where the losses are too coarse to tell −1 from 0.

        That is where they are rounded by more than half of what the slope promises.

        Args:
            here: at θ; outputs were computed in the dtype of its gradient.
            after: f(θ − u).
            promised: ⟨u, ∇f(θ)⟩.
        """
        rounding = torch.finfo(here.grad.dtype).eps * min(abs(here.loss), abs(after)) + self.quantum
        return (after - here.loss) / promised if promised and abs(promised) >= 2 * rounding else nan

    def hvp(self, theta: Tensor) -> HessianProduct:
        """The map v ↦ ∇²f(θ) v.

        With one part, all products share one forward and one backward pass, whose graph is kept: a product then costs
        about one gradient. With several, only one part's graph lives at a time and each product rebuilds it, at about
        twice that cost, so the chunk bounds memory here too.
        """
        if len(self.parts) == 1:
            return _KeptGraph(self.parts[0], theta)
        return _RebuiltGraphs(self, theta)


def is_lost(update_sq_norm: float, taken: float) -> bool:
    """Whether rounding takes more than half of the step u from θ − u: then L and RP are not of this step.

    Args:
        update_sq_norm: ‖u‖².
        taken: ⟨θ − (θ − u), u⟩, which would be ‖u‖² without rounding.
    """
    return 2 * abs(update_sq_norm - taken) > update_sq_norm


class _KeptGraph:
    def __init__(self, part: Part, theta: Tensor) -> None:
        self._leaf = theta.detach().requires_grad_()
        self._grad = torch.autograd.grad(part(self._leaf)[0], self._leaf, create_graph=True)[0]
        self.grad = self._grad.detach()

    def __call__(self, vector: Tensor) -> Tensor:
        if not self._grad.requires_grad:  # f is affine in θ
            return torch.zeros_like(vector)
        # The gradient of ⟨∇f, v⟩. Handing v over as `grad_outputs` gives the same, but loads a whole algebra system.
        slope = torch.dot(self._grad, vector)
        return torch.autograd.grad(slope, self._leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


class _RebuiltGraphs:
    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self._parts, self._theta = objective.parts, theta
        self.grad = objective.value_and_grad(theta).grad

    def __call__(self, vector: Tensor) -> Tensor:
        products = (_KeptGraph(part, self._theta)(vector) for part in self._parts)
        total = next(products)
        for product in products:
            total += product
        return total


def network_objective(module: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, chunk_size: int) -> Objective:
    """The mean of `loss` over the examples, as a function of the module's flattened parameters.

    Outputs and gradients are computed in the module's dtype; the outputs (n × n_outputs numbers) enter the loss in
    float64, so that f is good to about 1e-7 and RP, a difference of losses, does not drown in rounding.

    Args:
        inputs: (n, ...), of the module's dtype and on its device.
        targets: (n,).
        chunk_size: examples that are in memory with their activations at one time.

    Raises:
        ConfigError: f is not a function of the parameters alone, or has no second derivatives: see `networks.py`.
    """
    whole, leading, theta = as_function(module), leading_layer(module), near_by(flattened(module))
    ends = torch.tensor([0, -1])  # two examples
    expected = refuse_unless_function(module, whole, loss, inputs[ends], targets[ends], theta)

    def mean_over(inputs: Tensor, targets: Tensor) -> Objective:
        n_examples = len(targets)

        def share(outputs: Tensor, of_outputs: Tensor) -> tuple[Tensor, Tensor]:
            hits = (outputs.argmax(-1) == of_outputs).sum()
            return loss(outputs.double(), of_outputs).sum() / n_examples, hits

        def part(chunk_inputs: Tensor, chunk_targets: Tensor) -> Part:
            if leading is None:
                return lambda theta: share(whole(chunk_inputs, theta), chunk_targets)
            width, following = leading
            flat = chunk_inputs.flatten(1)
            return LinearFirst(flat, width, lambda first, others: share(following(first, others), chunk_targets))

        def of_examples(indices: Tensor) -> Objective:
            chosen = indices.to(targets.device)
            return mean_over(inputs[chosen], targets[chosen])

        chunks = zip(torch.split(inputs, chunk_size), torch.split(targets, chunk_size), strict=True)
        parts = [part(*chunk) for chunk in chunks]
        # Softmax and one-hot classes are of order 1: a loss is the difference of two such numbers, in float64.
        return Objective(len(theta), parts, n_examples, of_examples, quantum=torch.finfo(torch.float64).eps)

    few = mean_over(inputs[ends], targets[ends])
    if leading and not near(expected, expected.new_tensor(few.loss(theta)), theta.dtype):
        leading = None  # whatever it was that `leading_layer` did not see
        few = mean_over(inputs[ends], targets[ends])
    _refuse_without_derivatives(few, theta)

    def in_float64(theta: Tensor) -> tuple[Tensor, Tensor]:
        return loss(whole(inputs[ends].double(), theta), targets[ends]).mean(), theta.new_tensor(nan)

    with suppress(RuntimeError):  # not every model can be evaluated in float64
        _refuse_wrong_products(Objective(len(theta), [in_float64], 2), theta.double())
    return mean_over(inputs, targets)


def _refuse_without_derivatives(objective: Objective, theta: Tensor) -> None:
    try:
        objective.hvp(theta)(theta)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"the Hessian of f cannot be computed: {error}. Use operations that PyTorch differentiates twice"
        ) from error


def _refuse_wrong_products(objective: Objective, theta: Tensor) -> None:
    """Hold Hessian products in float64 to central differences of the gradient, half as far apart the second time.

    By truncation the closer one is off by a third of what they differ by, and by a kink of f by twice that. A product
    that is further from it is wrong.
    """
    hvp, eps = objective.hvp(theta), torch.finfo(theta.dtype).eps
    seeded = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0), dtype=theta.dtype).to(theta)
    direction = normalize(hvp.grad, dim=0) + normalize(theta, dim=0) + normalize(seeded, dim=0)

    def difference(distance: float) -> Tensor:
        ahead, behind = (objective.value_and_grad(theta + t * direction).grad for t in (distance, -distance))
        return (ahead - behind) / (2 * distance)

    step = eps ** (1 / 3)
    product, wide, close = hvp(direction), difference(step), difference(step / 2)
    size = max(product.norm().item(), close.norm().item())
    error, truncation = (product - close).norm().item(), (wide - close).norm().item()
    if error > 0.01 * size and error > 3 * truncation and size * step > 1e3 * eps * hvp.grad.norm().item():
        raise ConfigError(
            "the Hessian of f cannot be computed: PyTorch's second derivatives of it are not those of its gradient. "
            "Some operation has a wrong one, as those of weight_norm are, or a backward of an autograd.Function of "
            "your own that cannot be differentiated: write it out of simpler operations"
        )


def network_problem(
    build: Callable[[tuple[int, ...], int], nn.Module],
    loss: Loss,
    dataset: Dataset,
    *,
    seed: int,
    dtype: torch.dtype,
    device: str,
    chunk_size: int,
) -> tuple[Objective, Tensor]:
    """The objective of a network on a data set, and its start θ₀ of shape (P,).

    The initialisation is drawn in float32 on the CPU whatever `dtype` and `device` are, so it depends on `seed` alone,
    and the global random generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(tuple(dataset.inputs.shape[1:]), dataset.n_classes)
    trained(module)  # PyTorch would make complex parameters real
    module = module.to(device=device, dtype=dtype)
    inputs, targets = _aligned(dataset.inputs.to(device=device, dtype=dtype)), dataset.targets.to(device)
    return network_objective(module, loss, inputs, targets, chunk_size=chunk_size), flattened(module)


def _aligned(tensor: Tensor) -> Tensor:
    """The same numbers where PyTorch would put them: where they begin decides on the last bits of their products.

    Those of a file, or of NumPy, begin anywhere; those that another process shares, at the start of a page.
    """
    return tensor.clone() if tensor.data_ptr() % 64 else tensor


def function_problem(f: Function, start: Sequence[float]) -> tuple[Objective, Tensor]:
    """The objective of a function of few numbers, which has no accuracy, and its start θ₀; in float64.

    Raises:
        ConfigError: it has no second derivatives.
    """
    theta = torch.tensor(start, dtype=torch.float64)
    objective = Objective(len(start), [lambda theta: (f(theta).double(), theta.new_tensor(nan))], 1)
    _refuse_without_derivatives(objective, theta)
    _refuse_wrong_products(objective, near_by(theta))
    return objective, theta

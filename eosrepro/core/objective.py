"""One training loss as functions of a flat parameter vector: f(θ), ∇f(θ) and v ↦ ∇²f(θ) v.

A loss is a sum of parts, one a chunk of examples, so that memory is bounded by the chunk and not by the number of
examples; a function of few numbers is a single part. Optimisers, eigensolvers and diagnostics see nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from eosrepro.core.device import prepare, read
from eosrepro.core.metrics import Metric, metric, one_number_each
from eosrepro.core.networks import (
    LinearFirst,
    as_function,
    flattened,
    leading_layer,
    near,
    near_by,
    refuse_unless_function,
    refuse_without_derivatives,
    refuse_wrong_products,
)
from eosrepro.core.row_space import RowSpace
from eosrepro.core.third import curvature_grads
from eosrepro.core.types import BatchStatistics, Evaluation, HessianProduct, Loss
from eosrepro.errors import ConfigError

FEW = 16  # examples on which a model with batch statistics is tried

# θ → (share of f that one chunk contributes, float64 scalar; sum of the scores of its examples, or NaN)
Part = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """f(θ) = Σ_parts part(θ), with θ of shape (P,)."""

    start: Tensor = field(repr=False)  # θ₀, (P,)
    parts: Sequence[Part] = field(repr=False)
    n_examples: int
    # indices of examples → the same on those alone; None: it has none
    of_examples: Callable[[Tensor], Objective] | None = field(default=None, repr=False)
    quantum: float = 0.0  # how far f is rounded, however small it is
    metric: Metric = "accuracy"  # what the scores of its parts are of
    row_space: RowSpace | None = None  # that of the inputs, where θ is in its coordinates
    rough: Callable[[], Objective] | None = field(default=None, repr=False)  # it in bfloat16: eigensolves start there

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss: Callable[..., Tensor],
        x: Tensor,
        y: Tensor,
        *,
        batch_statistics: BatchStatistics | None = None,
        chunk_size: int | None = None,
    ) -> Objective:
        """f(θ), the mean of `loss(model(x), y)` over the examples; θ are the parameters that require a gradient.

        It starts at the model's weights (`start`), and is computed in their dtype and on their device. The model is
        taken as it is now, in training or eval mode, and left so; f does not see what is changed in it later.

        Args:
            loss: a function of outputs in float64 and targets that returns one number an example, (n,); or a function
                of PyTorch with `reduction="mean"` as its default, such as `nn.functional.mse_loss`, which is called
                with "none". Of what it then returns beyond (n,), the mean over all but the examples is taken, as
                "mean" does. (The weights of classes, and targets to ignore, have no share in the number of examples.)
            x: (n, ...).
            y: (n, ...), classes or numbers.
            batch_statistics: which examples batch normalisation sees together: "whole", all of them, or groups of so
                many, in the order of x. By default the model's attribute of that name, if it has one.
            chunk_size: examples that are in memory with their activations at one time; None: all.

        Raises:
            ConfigError: f is not a function of the parameters alone, or has no second derivatives; or the loss is not
                one number an example.
        """
        if len(x) != len(y) or not len(x):
            raise ConfigError(f"x holds {len(x)} examples and y {len(y)}: they should be as many, and not none")
        theta = flattened(model)
        inputs, targets = (t.to(theta if t.is_floating_point() else theta.device) for t in (x.detach(), y.detach()))
        return network_objective(
            copy.deepcopy(model),
            one_number_each(loss),
            inputs,
            targets.double() if targets.is_floating_point() else targets,
            chunk_size=chunk_size or len(x),
            batch_statistics=batch_statistics,
        )

    @property
    def n_params(self) -> int:
        """P."""
        return len(self.start)

    def batch(self, indices: Tensor) -> Objective:
        """The mean of the loss over the examples with these indices, (n,).

        Raises:
            ConfigError: it has no examples, as a function of few numbers.
        """
        if self.of_examples is None:
            raise ConfigError("a problem has no examples to draw minibatches from: use another optimizer")
        return self.of_examples(indices)

    def through(self, outer: Callable[[Tensor], Tensor]) -> Objective:
        """θ ↦ f(outer(θ)), as a whole."""

        def composed(part: Part) -> Part:
            return lambda theta: part(outer(theta))

        return replace(self, parts=[*map(composed, self.parts)], of_examples=None, rough=None)

    def loss(self, theta: Tensor) -> float:
        """f(θ)."""
        return self.value(theta)[0]

    def value(self, theta: Tensor) -> tuple[float, float]:
        """f(θ) and the metric; NaN where there is none."""
        loss, scores = 0.0, 0.0
        with torch.no_grad():
            for part in self.parts:
                value, scored = read(*part(theta))
                loss += value
                scores += scored
        return loss, scores / self.n_examples

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        """f(θ), ∇f(θ) and the metric, from one pass over the examples."""
        leaf = theta.detach().requires_grad_()
        loss, scores, grad = 0.0, 0.0, None
        for part in self.parts:
            value, scored = part(leaf)
            piece = torch.autograd.grad(value, leaf)[0]
            grad = piece if grad is None else grad + piece
            of_part, score = read(value.detach(), scored)
            loss += of_part
            scores += score
        assert grad is not None  # there is at least one part
        return Evaluation(loss, grad, **{self.metric: scores / self.n_examples})

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

    def curvature_grads(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """∇_θ ⟨v_i, ∇²f(θ) v_j⟩ for all pairs of the vectors (k, P), (k, k, P)."""
        return curvature_grads(self.parts, theta, vectors)


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
        # The gradient of ⟨∇f, v⟩, whose value nobody asks for. Handing v over as `grad_outputs` gives the same, but
        # loads a whole algebra system.
        slope: Tensor = _Slope.apply(self._grad, vector)
        return torch.autograd.grad(slope, self._leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


class _Slope(torch.autograd.Function):
    """A scalar whose gradient by `grad` is `vector`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, vector: Tensor) -> Tensor:
        ctx.vector = vector
        return grad.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _of_slope: Tensor) -> tuple[Tensor, None]:
        return ctx.vector, None


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


def network_objective(
    module: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int,
    batch_statistics: BatchStatistics | None = None,
    may_be_rough: bool = False,
) -> Objective:
    """The mean of `loss` over the examples, as a function of the module's flattened parameters.

    Outputs and gradients are computed in the module's dtype; the outputs (n × n_outputs numbers) enter the loss in
    float64, so that f is good to about 1e-7 and RP, a difference of losses, does not drown in rounding.

    Args:
        inputs: (n, ...), of the module's dtype and on its device.
        targets: (n, ...), classes or numbers.
        chunk_size: examples that are in memory with their activations at one time; with batch statistics, those of one
            group are, whatever it is.
        batch_statistics: as of `Objective.of`; None: the module's attribute. What is left over is in the last group.
        may_be_rough: it has a `rough` one, if the model can be differentiated in bfloat16.

    Raises:
        ConfigError: f is not a function of the parameters alone, or has no second derivatives: see `networks.py`.
    """
    prepare(inputs.device.type)
    declared = getattr(module, "batch_statistics", None) if batch_statistics is None else batch_statistics
    together = _group_size(declared, len(inputs))
    start = flattened(module)
    whole, leading, theta = as_function(module), leading_layer(module), near_by(start)
    few = torch.tensor([0, -1]) if together is None else torch.arange(min(together, FEW))
    tried = inputs[few], targets[few]
    expected = refuse_unless_function(module, whole, loss, *tried, theta, coupled=together is not None)

    named, score = metric(targets)
    # Softmax and one-hot classes are of order 1: a loss is the difference of two such numbers, in float64.
    size = targets.square().sum().item() / len(targets) if targets.is_floating_point() else 1.0
    quantum = torch.finfo(torch.float64).eps * size

    def mean_over(inputs: Tensor, targets: Tensor) -> Objective:
        n_examples = len(targets)

        def share(outputs: Tensor, of_outputs: Tensor) -> tuple[Tensor, Tensor]:
            return loss(outputs.double(), of_outputs).sum() / n_examples, score(outputs, of_outputs).sum()

        def part(chunk_inputs: Tensor, chunk_targets: Tensor) -> Part:
            if leading is None:
                return lambda theta: share(whole(chunk_inputs, theta), chunk_targets)
            width, following = leading
            flat = chunk_inputs.flatten(1)
            return LinearFirst(flat, width, lambda first, others: share(following(first, others), chunk_targets))

        def of_examples(indices: Tensor) -> Objective:
            chosen = indices.to(targets.device)
            return mean_over(inputs[chosen], targets[chosen])

        sizes = chunk_size if together is None else _groups(n_examples, together)
        chunks = zip(torch.split(inputs, sizes), torch.split(targets, sizes), strict=True)
        parts = [part(*chunk) for chunk in chunks]
        return Objective(start, parts, n_examples, of_examples, quantum, named)

    trial = mean_over(*tried)
    if leading and not near(expected, expected.new_tensor(trial.loss(theta)), theta.dtype):
        leading = None  # whatever it was that `leading_layer` did not see
        trial = mean_over(*tried)
    refuse_without_derivatives(trial, theta)

    def in_float64(theta: Tensor) -> tuple[Tensor, Tensor]:
        wide = tried[0].double() if tried[0].is_floating_point() else tried[0]
        return loss(whole(wide, theta), tried[1]).mean(), theta.new_tensor(nan)

    with suppress(RuntimeError):  # not every model can be evaluated in float64
        refuse_wrong_products(replace(trial, parts=[in_float64]), theta.double())
    objective = mean_over(inputs, targets)
    if may_be_rough and start.dtype != torch.bfloat16 and inputs.is_floating_point():
        with suppress(RuntimeError):  # not every layer can be differentiated twice in bfloat16
            coarse = mean_over(tried[0].bfloat16(), tried[1])
            coarse.hvp(theta.bfloat16())(theta.bfloat16())
            return replace(objective, rough=lambda: mean_over(inputs.bfloat16(), targets))
    return objective


def _group_size(statistics: BatchStatistics | None, n_examples: int) -> int | None:
    if statistics is None:
        return None
    if statistics == "whole":
        return n_examples
    if type(statistics) is int and statistics > 0:
        return min(statistics, n_examples)
    raise ConfigError(f'batch_statistics is {statistics!r}: it should be "whole", or the number of examples of a group')


def _groups(n_examples: int, size: int) -> list[int]:
    """Sizes of groups of so many, what is left being in the last: statistics of a few examples would be of none."""
    full = max(1, n_examples // size)
    return [size] * (full - 1) + [n_examples - size * (full - 1)]

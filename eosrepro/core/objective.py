"""One training loss as functions of a flat parameter vector: f(θ), ∇f(θ) and v ↦ ∇²f(θ) v.

A loss is a sum of parts, one a chunk of examples, so that memory is bounded by the chunk and not by the number of
examples; a function of few numbers is a single part. Optimisers, eigensolvers and diagnostics see nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING

from eosrepro.core.device import prepare, read
from eosrepro.core.later import torch
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
from eosrepro.core.products import Part, products
from eosrepro.core.ranks import Piece, ordered_sum
from eosrepro.core.row_space import RowSpace
from eosrepro.core.spread import Spread, chunk_sizes
from eosrepro.core.types import BatchStatistics, Evaluation, HessianProduct, Loss
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

FEW = 16  # examples on which a model with batch statistics is tried


@dataclass(frozen=True)
class Objective:
    """f(θ) = Σ_parts part(θ), with θ of shape (P,)."""

    start: Tensor = field(repr=False)  # θ₀, (P,)
    parts: Sequence[Part] = field(repr=False)
    n_examples: int
    # (indices of examples, whether every rank is to have them all) → the same on those alone; None: it has none
    of_examples: Callable[[Tensor, bool], Objective] | None = field(default=None, repr=False)
    quantum: float = 0.0  # how far f is rounded, however small it is
    metric: Metric = "accuracy"  # what the scores of its parts are of
    row_space: RowSpace | None = None  # that of the inputs, where θ is in its coordinates
    rough: Callable[[], Objective] | None = field(default=None, repr=False)  # it in bfloat16: eigensolves start there
    over: int | None = None  # the number of parts on all ranks together, of which `parts` are ours; None: these are all

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
                or a module of PyTorch with a `reduction`, such as `nn.functional.mse_loss` or `nn.MSELoss()`, which is
                called with "none". Of what it then returns beyond (n,), the mean over all but the examples is taken, as
                "mean" does. (The weights of classes, and targets to ignore, have no share in the number of examples.)
            x: (n, ...).
            y: (n, ...), classes or numbers.
            batch_statistics: which examples batch normalisation sees together: "whole", all of them, or groups of so
                many, in the order of x. By default the model's attribute of that name, if it has one.
            chunk_size: examples that are in memory with their activations at one time; None: all.

        Raises:
            ConfigError: f is not a function of the parameters alone, or has no second derivatives; or the loss is not
                one number an example, or is reduced to a sum, or mixes examples.
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

    def batch(self, indices: Tensor, *, everywhere: bool = False) -> Objective:
        """The mean of the loss over the examples with these indices, (n,).

        Args:
            everywhere: every rank computes it, with all of its parts.

        Raises:
            ConfigError: it has no examples, as a function of few numbers.
        """
        if self.of_examples is None:
            raise ConfigError("a problem has no examples to draw minibatches from: use another optimizer")
        return self.of_examples(indices, everywhere)

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

        def piece(part: Part) -> Piece:
            with torch.no_grad():
                return Piece(None, read(*part(theta)))

        loss, scores = self.sum(map(piece, self.parts), n_numbers=2).numbers
        return loss, scores / self.n_examples

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        """f(θ), ∇f(θ) and the metric, from one pass over the examples."""
        leaf = theta.detach().requires_grad_()

        def piece(part: Part) -> Piece:
            value, scored = part(leaf)
            return Piece(torch.autograd.grad(value, leaf)[0], read(value.detach(), scored))

        grad, (loss, scores) = self.sum(map(piece, self.parts), like=theta, n_numbers=2)
        assert grad is not None  # there is at least one part
        return Evaluation(loss, grad, **{self.metric: scores / self.n_examples})

    def sum(self, pieces: Iterable[Piece], *, like: Tensor | None = None, n_numbers: int = 0) -> Piece:
        """The sum of what comes of each part, over those of all ranks: see `ordered_sum`."""
        return ordered_sum(pieces, like=like, n_numbers=n_numbers, over=self.over)

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
        about one gradient. With several, only one part's graph lives at a time and each product rebuilds it, at up
        to twice that cost, so the chunk bounds memory here too.
        """
        return products(self, theta)

    def curvature_grads(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """∇_θ ⟨v_i, ∇²f(θ) v_j⟩ for all pairs of the vectors (k, P), (k, k, P)."""
        from eosrepro.core.third import curvature_grads

        pieces = (Piece(curvature_grads(part, theta, vectors)) for part in self.parts)
        found = self.sum(pieces, like=theta.expand(len(vectors), len(vectors), -1)).vector
        assert found is not None
        return found


def is_lost(update_sq_norm: float, taken: float) -> bool:
    """Whether rounding takes more than half of the step u from θ − u: then L and RP are not of this step.

    Args:
        update_sq_norm: ‖u‖².
        taken: ⟨θ − (θ − u), u⟩, which would be ‖u‖² without rounding.
    """
    return 2 * abs(update_sq_norm - taken) > update_sq_norm


def network_objective(
    module: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int,
    batch_statistics: BatchStatistics | None = None,
    spread: Spread | None = None,
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
        spread: over the ranks, of the examples: `inputs` are then those of this rank, and `targets` all.
        may_be_rough: it has a `rough` one, if the model can be differentiated in bfloat16.

    Raises:
        ConfigError: f is not a function of the parameters alone, or has no second derivatives: see `networks.py`.
    """
    prepare(inputs.device.type)
    declared = getattr(module, "batch_statistics", None) if batch_statistics is None else batch_statistics
    together = _group_size(declared, len(targets))
    start = flattened(module)
    whole, leading, theta = as_function(module), leading_layer(module), near_by(start)
    in_place = False
    few = torch.tensor([0, len(targets) - 1]) if together is None else torch.arange(min(together, FEW))
    tried = spread.rows(inputs, few) if spread else inputs[few], targets[few]
    expected = refuse_unless_function(module, whole, loss, *tried, theta, coupled=together is not None)

    named, score = metric(targets)
    # Softmax and one-hot classes are of order 1: a loss is the difference of two such numbers, in float64.
    size = targets.square().sum().item() / len(targets) if targets.is_floating_point() else 1.0
    quantum = torch.finfo(torch.float64).eps * size

    def sizes_of(n_examples: int) -> list[int]:
        return chunk_sizes(n_examples, chunk_size) if together is None else _groups(n_examples, together)

    def mean_over(inputs: Tensor, targets: Tensor, spread: Spread | None = None) -> Objective:
        n_examples = len(targets)

        def share(outputs: Tensor, of_outputs: Tensor) -> tuple[Tensor, Tensor]:
            return loss(outputs.double(), of_outputs).sum() / n_examples, score(outputs, of_outputs).sum()

        def part(chunk_inputs: Tensor, chunk_targets: Tensor) -> Part:
            if leading is None:
                return lambda theta: share(whole(chunk_inputs, theta), chunk_targets)
            width, following = leading

            def rest(first: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
                return share(following(first.clone() if in_place else first, others), chunk_targets)

            return LinearFirst(chunk_inputs.flatten(1), width, rest)

        def of_examples(indices: Tensor, everywhere: bool) -> Objective:
            chosen = indices.to(targets.device)
            if spread is None:
                return mean_over(inputs[chosen], targets[chosen])
            if everywhere:
                return mean_over(spread.rows(inputs, indices), targets[chosen])
            there, spread_too = spread.chosen(inputs, indices, sizes_of(len(indices)))
            return mean_over(there, targets[chosen], spread_too)

        sizes, shown = sizes_of(n_examples), targets
        if spread:
            own, here = spread.parts(sizes), spread.here
            sizes, shown, over = sizes[own.start : own.stop], targets[here.start : here.stop], len(sizes)
        chunks = zip(torch.split(inputs, sizes), torch.split(shown, sizes), strict=True) if sizes else ()
        parts = [part(*chunk) for chunk in chunks]
        return Objective(start, parts, n_examples, of_examples, quantum, named, over=over if spread else None)

    trial = mean_over(*tried)
    if leading and not near(expected, expected.new_tensor(trial.loss(theta)), theta.dtype):
        leading = None  # whatever it was that `leading_layer` did not see
        trial = mean_over(*tried)
    in_place = leading is not None and _works_in_place(trial.parts[0], theta)
    refuse_without_derivatives(trial, theta)

    def in_float64(theta: Tensor) -> tuple[Tensor, Tensor]:
        wide = tried[0].double() if tried[0].is_floating_point() else tried[0]
        return loss(whole(wide, theta), tried[1]).mean(), theta.new_tensor(nan)

    with suppress(RuntimeError):  # not every model can be evaluated in float64
        refuse_wrong_products(replace(trial, parts=[in_float64]), theta.double())
    objective = mean_over(inputs, targets, spread)
    if may_be_rough and start.dtype != torch.bfloat16 and inputs.is_floating_point():
        with suppress(RuntimeError):  # not every layer can be differentiated twice in bfloat16
            coarse = mean_over(tried[0].bfloat16(), tried[1])
            coarse.hvp(theta.bfloat16())(theta.bfloat16())

            def coarsely() -> Objective:
                narrow = inputs.bfloat16()
                return mean_over(spread.placed(narrow) if spread else narrow, targets, spread)

            return replace(objective, rough=coarsely)
    return objective


def _works_in_place(part: Part, theta: Tensor) -> bool:
    """Whether the layer after the first changes its inputs, as `nn.ReLU(inplace=True)` does.

    PyTorch forbids that where a gradient in these inputs is wanted.
    """
    assert isinstance(part, LinearFirst)
    first, others = part.apart(theta)
    try:
        part.rest(first.requires_grad_(), others)
    except RuntimeError as error:
        return "in-place" in str(error)
    return False


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

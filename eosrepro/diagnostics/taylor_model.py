"""The optimizer on the quadratic Taylor model of the loss, against the optimizer on the loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING, Annotated, Any

from eosrepro.core.along import dot
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective
from eosrepro.core.types import AtLeast, Evaluation, Examples, HessianProduct, Iterate, Optimizer, Position
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaylorRow:
    """From one θ. Both growths are NaN where f(θ) is not positive."""

    step: int
    taylor_loss: float  # of the model after `steps` steps on it; NaN where it is no longer finite
    true_loss: float  # f after as many steps on f
    taylor_growth: float  # the largest loss of the model on its way, as a multiple of f(θ)
    true_growth: float  # the same of f
    taylor_steps: int  # on the model, before its loss was no longer finite


def taylor_model(
    objective: Objective,
    snapshots: Iterable[Position],
    *,
    optimizer: Optimizer,
    steps: Annotated[int, AtLeast(1)] = 50,
) -> Iterator[TaylorRow]:
    """`steps` steps from each snapshot, with the state that the optimizer has there, on the model and on f.

    The model is f(θ) + ⟨∇f(θ), d⟩ + ½⟨d, ∇²f(θ) d⟩; that of a minibatch, where the optimizer takes minibatches, is of
    its own loss. Past the edge steps on the model diverge, and those on f do not (Cohen et al. 2021, arXiv 2103.00065).
    It takes a Hessian product and a gradient a step. A method that is not defined where a loss is negative, as
    `sqrt_loss_gd`, ends on the model there.
    """
    for at in snapshots:
        model = TaylorModel(objective, at.theta)
        start = model.value_and_grad(at.theta).loss
        of_model = list(_descent(model, at, optimizer, steps))
        of_f = list(_descent(objective, at, optimizer, steps))
        yield TaylorRow(
            step=at.step,
            taylor_loss=of_model[-1] if len(of_model) == steps else nan,
            true_loss=of_f[-1] if len(of_f) == steps else nan,
            taylor_growth=_growth(start, of_model),
            true_growth=_growth(start, of_f),
            taylor_steps=len(of_model),
        )


class TaylorModel:
    """The model of an objective at one θ, as optimizers see it."""

    def __init__(self, objective: Objective, centre: Tensor) -> None:
        self._objective, self._centre = objective, centre
        self._hvp = objective.hvp(centre)
        self._loss = objective.loss(centre)

    @property
    def n_examples(self) -> int:
        """Of the objective."""
        return self._objective.n_examples

    def batch(self, indices: Tensor) -> TaylorModel:
        """The model, at the same θ, of the loss on the examples with these indices."""
        return TaylorModel(self._objective.batch(indices), self._centre)

    def value_and_grad(self, theta: Tensor) -> Evaluation:
        """Of the model; the gradient is exact."""
        away = theta - self._centre
        bent = self._hvp(away)
        return Evaluation(self._loss + dot(self._hvp.grad, away) + dot(away, bent) / 2, self._hvp.grad + bent)

    def hvp(self, theta: Tensor) -> HessianProduct:
        """The same everywhere, but for the gradient."""
        return _Product(self._hvp, self.value_and_grad(theta).grad)

    def curvature_grads(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """Of a quadratic: 0."""
        return theta.new_zeros(len(vectors), *vectors.shape)


class _Product:
    def __init__(self, product: HessianProduct, grad: Tensor) -> None:
        self._product, self.grad = product, grad

    def __call__(self, vector: Tensor) -> Tensor:
        return self._product(vector)


def _descent(examples: Examples, at: Position, optimizer: Optimizer, steps: int) -> Iterator[float]:
    """The loss after each step, as long as it is finite."""
    theta, state = at.theta, at.state
    here = examples.value_and_grad(theta)
    for _ in range(steps):
        moved = _moved(examples, Iterate(theta, here.grad, examples, here.loss), state, optimizer)
        if moved is None:
            return
        theta, state = theta - moved[0], moved[1]
        here = examples.value_and_grad(theta)
        if not isfinite(here.loss) or not torch.isfinite(here.grad).all():
            return
        yield here.loss


def _moved(examples: Examples, at: Iterate, state: Any, optimizer: Optimizer) -> tuple[Tensor, Any] | None:
    """The step and the next state; None where a model is too far out for the method to be defined on it."""
    try:
        return optimizer.update(at, state)
    except ConfigError:
        if isinstance(examples, TaylorModel):
            return None
        raise


def _growth(start: float, losses: list[float]) -> float:
    return max([start, *losses]) / start if start > 0 else nan

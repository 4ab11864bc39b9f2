"""The one loop that every optimiser and every objective runs through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from math import inf, isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from eosrepro.core.columns import computed_by
from eosrepro.core.device import read
from eosrepro.core.later import torch
from eosrepro.core.objective import Objective, is_lost
from eosrepro.core.steps import step as take
from eosrepro.core.types import (
    Evaluation,
    Iterate,
    Observation,
    Optimizer,
    Outcome,
    Position,
    Row,
    Stop,
    Visited,
)
from eosrepro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = {field.name for field in fields(Row)} | {"r2"}


def minimise(
    objective: Objective,
    start: Tensor | Position,
    optimizer: Optimizer,
    *,
    stop: Stop,
    on_iterate: Callable[[Position], None] = lambda _position: None,
    observe: Sequence[Observation] = (),
    origin: Tensor | None = None,
) -> Iterator[Row]:
    """Iterate from `start` until `stop`, and yield one row an iteration.

    `on_iterate` sees every recorded iterate, after the rows of all before it: snapshots and checkpoints are made there.
    A run that diverges ends at its last iterate with a finite loss and gradient; `outcome` tells from the last row how
    a run ended.

    Args:
        start: θ₀, or where an interrupted run stood: it yields the rows that are missing, bit for bit.
        observe: what else to record of an iterate and the next one.
        origin: θ₀ for what is observed, where `start` is not θ₀ itself.

    Raises:
        DataError: loss or gradient is not finite at the start, so there is nothing to minimise.
        EosreproError: the optimizer returns something else than a step and its state.
        ConfigError: the loss at the start counts as divergence already, or two columns would have the same name, or
            there is no accuracy to stop at.
    """
    step, theta, state = start if isinstance(start, Position) else Position(0, start, optimizer.init(start))
    origin = theta if origin is None else origin
    observed = {name: nan for each in observe for name in computed_by(each)}
    here = objective.value_and_grad(theta)
    # Inner products are taken in float64: L is a difference of two that nearly cancel in the stable regime. The three
    # vectors are allocated once, since room for a new one takes longer to find than to fill.
    grad, next_grad, wide_update = (torch.empty_like(theta, dtype=torch.float64) for _ in range(3))
    grad.copy_(here.grad)
    (sq_norm,) = read(grad.dot(grad))
    grad_norm = sqrt(sq_norm)
    refuse_start(step, here, grad_norm, stop)
    on_iterate(Position(step, theta, state))
    while not is_over(step, here, stop):
        at = Iterate(theta, here.grad, objective, here.loss)
        threshold = _threshold(optimizer, at, state)
        update, state = take(optimizer, at, state)
        next_theta = theta - update
        wide_update.copy_(update)
        # Of a step much smaller than θ, rounding takes a part, or all. (`next_grad` holds nothing yet.)
        taken = next_grad.copy_(theta).sub_(next_theta).dot(wide_update)
        following = objective.value_and_grad(next_theta)
        next_grad.copy_(following.grad)
        along_step = (wide_update.dot(grad), wide_update.dot(next_grad), wide_update.dot(wide_update), taken)
        next_sq_norm, *products = read(next_grad.dot(next_grad), *along_step)
        next_grad_norm = sqrt(next_sq_norm)
        if not is_finite(following, next_grad_norm):
            break
        if observe:
            before = Visited(step, theta, here.grad, here.loss, origin)
            after = Visited(step + 1, next_theta, following.grad, following.loss, origin)
            observed = _observed(observe, before, after)
        yield row_of(objective, step, here, following, grad_norm, Products(*products), threshold, observed)
        theta, here, grad_norm, step = next_theta, following, next_grad_norm, step + 1
        grad, next_grad = next_grad, grad
        on_iterate(Position(step, theta, state))
    threshold = _threshold(optimizer, Iterate(theta, here.grad, objective, here.loss), state)
    yield last_row(step, here, grad_norm, threshold, dict.fromkeys(observed, nan))


def outcome(last: Row, stop: Stop) -> Outcome:
    """How the run that ended with the row `last` ended."""
    if _reached(last.accuracy, stop):
        reason = "accuracy"
    elif last.step < stop.max_steps or _exceeded(last.loss, stop):
        reason = "diverged"
    else:
        reason = "max_steps"
    return Outcome(reason, last.step, last.loss, last.accuracy)


class Products(NamedTuple):
    """Inner products with the step u from θ_t to θ_{t+1}."""

    dot_grad: float  # ⟨u, ∇f(θ_t)⟩
    dot_next_grad: float  # ⟨u, ∇f(θ_{t+1})⟩
    sq_norm: float  # ‖u‖²
    taken: float  # ⟨θ_t − θ_{t+1}, u⟩, which would be ‖u‖² without rounding


def row_of(
    objective: Objective,
    step: int,
    here: Evaluation,
    following: Evaluation,
    grad_norm: float,
    update: Products,
    threshold: float,
    observed: Mapping[str, float],
) -> Row:
    """What is recorded of an iterate and the step from it to the following one."""
    lost = is_lost(update.sq_norm, update.taken)
    progress = objective.relative_progress(here, following.loss, update.dot_grad)
    return Row(
        step=step,
        loss=here.loss,
        accuracy=here.accuracy,
        grad_norm=grad_norm,
        update_dot_grad=update.dot_grad,
        update_dot_next_grad=update.dot_next_grad,
        update_sq_norm=update.sq_norm,
        relative_progress=nan if lost else progress,
        directional_smoothness=nan if lost else _ratio(update.dot_grad - update.dot_next_grad, update.sq_norm),
        stability_threshold=threshold,
        observed=_r2(here) | {**observed},
    )


def last_row(step: int, here: Evaluation, grad_norm: float, threshold: float, observed: Mapping[str, float]) -> Row:
    """The same of the last iterate, which takes no step."""
    return Row(step, here.loss, here.accuracy, grad_norm, nan, nan, nan, nan, nan, threshold, _r2(here) | {**observed})


def refuse_start(step: int, here: Evaluation, grad_norm: float, stop: Stop) -> None:
    """Refuse to begin where a run could not, or would never end as it is to.

    Raises:
        DataError, ConfigError: as `minimise`.
    """
    if stop.accuracy is not None and isnan(here.accuracy):
        raise ConfigError(
            f"the run is to stop at an accuracy of {stop.accuracy:g}, and has none, as its targets are no classes: "
            "leave accuracy out of stop"
        )
    if not is_finite(here, grad_norm):
        raise DataError(
            f"the loss at initialisation is {here.loss} and the norm of its gradient {grad_norm}: "
            "look for NaN or huge values in the training data"
        )
    if step == 0 and _exceeded(here.loss, stop):
        raise ConfigError(
            f"the loss at initialisation is {here.loss:g}, above loss_above = {stop.loss_above:g}: no run could "
            "begin. Set loss_above well above it"
        )


def is_over(step: int, here: Evaluation, stop: Stop) -> bool:
    """Whether a run takes no step from here."""
    return step >= stop.max_steps or _reached(here.accuracy, stop) or _exceeded(here.loss, stop)


def _r2(here: Evaluation) -> dict[str, float]:
    """The column of targets that are numbers."""
    return {} if isnan(here.r2) else {"r2": here.r2}


def _observed(observe: Sequence[Observation], here: Visited, following: Visited) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in observe:
        values = each(here, following)
        values = values if isinstance(values, Mapping) else vars(values)
        if taken := values.keys() & (found.keys() | _COLUMNS):
            raise ConfigError(f"what is observed has a name that is taken, {min(taken)}: rename it")
        found |= {name: float(value) for name, value in values.items()}
    return found


def _threshold(optimizer: Optimizer, at: Iterate, state: Any) -> float:
    """The stability threshold at an iterate; L and sharpness are divided by it."""
    threshold, preconditioner = optimizer.geometry(at, state)
    if not 0 < threshold < inf and not (isnan(threshold) and not optimizer.threshold_formula):
        raise ConfigError(f"the stability threshold is {threshold} by the optimizer: it should be positive and finite")
    if optimizer.preconditioned == (preconditioner is None):
        # Else the sharpness would be judged by a threshold of the effective sharpness, or the reverse.
        found = f"preconditioned = {optimizer.preconditioned}, and its geometry has "
        raise ConfigError(f"the optimizer says {found}{'none' if preconditioner is None else 'a preconditioner'}")
    if preconditioner is not None and not (torch.as_tensor(preconditioner) > 0).all():
        raise ConfigError("the preconditioner of the optimizer should be positive everywhere, and is not")
    return threshold


def _reached(accuracy: float, stop: Stop) -> bool:
    return stop.accuracy is not None and accuracy >= stop.accuracy


def _exceeded(loss: float, stop: Stop) -> bool:
    return stop.loss_above is not None and loss > stop.loss_above


def is_finite(evaluation: Evaluation, grad_norm: float) -> bool:
    """Whether loss and gradient are."""
    # A finite norm shows it without another pass over the gradient; the norm alone may overflow.
    return isfinite(evaluation.loss) and (isfinite(grad_norm) or bool(torch.isfinite(evaluation.grad).all()))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else nan

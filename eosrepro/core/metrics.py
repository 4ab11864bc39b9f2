"""How well outputs fit targets, as the mean over the examples of one number each."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from eosrepro.core.later import torch
from eosrepro.core.types import Loss
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Metric = Literal["accuracy", "r2"]

# (outputs (n, ..., n_outputs), targets (n, ...)) → (n,)
Score: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


def metric(targets: Tensor) -> tuple[Metric, Score]:
    """The metric of such targets, and the score whose mean over the examples it is.

    Of classes it is the accuracy: the share of them that have the largest output. Of numbers it is
    R² = 1 − Σ‖z − y‖² / Σ‖y − ȳ‖², of all outputs together; not finite where all targets are the same.

    Args:
        targets: of all examples, for the variance in R².
    """
    if not targets.is_floating_point():
        return "accuracy", on_last_positions(_share_right)
    variance = (targets - targets.mean(0)).square().sum() / len(targets)

    def explained(outputs: Tensor, targets: Tensor) -> Tensor:
        missed = _by_example(outputs.detach().double().reshape(targets.shape) - targets)
        return 1 - missed.square().sum(-1) / variance

    return "r2", explained


def one_number_each(loss: Callable[..., Tensor]) -> Loss:
    """The loss as one number an example; see `Objective.of`.

    Raises:
        ConfigError: it is reduced to a sum.
    """
    reduction = _reduction(loss)
    if reduction in ("sum", "batchmean"):
        raise ConfigError(
            f"the loss has reduction={reduction!r}, and f is a mean over the examples: make it 'mean' or 'none'"
        )
    if reduction not in ("mean", "none"):
        return loss
    of_pytorch = str(getattr(getattr(loss, "func", loss), "__module__", "")).startswith("torch.")
    unreduced = _unreduced(loss)

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        if of_pytorch and targets.is_floating_point() and targets.shape != outputs.shape:
            raise ConfigError(unlike(outputs, targets))
        terms = unreduced(outputs, targets)
        return _by_example(terms).mean(-1) if terms.ndim else terms

    return losses


def unlike(outputs: Tensor, targets: Tensor) -> str:
    """What to do where targets that are numbers have another shape than the outputs, and PyTorch broadcasts both."""
    found, wanted = ((str(tuple(each.shape)).replace(f"{len(each)},", "n,", 1)) for each in (targets, outputs))
    numbers = ", ".join(map(str, outputs.shape[1:]))
    how = f", as by y.reshape(-1, {numbers})" if targets.numel() == outputs.numel() else ""
    return f"the outputs have the shape {wanted} and the targets {found}, which broadcasts: make them alike{how}"


def _reduction(loss: Callable[..., Tensor]) -> object:
    """What a loss of PyTorch's kind does with its terms; None where it is of another."""
    if isinstance(loss, torch.nn.Module):
        return getattr(loss, "reduction", None)
    try:
        return inspect.signature(loss).parameters["reduction"].default
    except (KeyError, TypeError, ValueError):  # the last two where it has no signature
        return None


def _unreduced(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    if not isinstance(loss, torch.nn.Module):
        return partial(loss, reduction="none")
    own = copy.deepcopy(loss).double()  # its weights too, as the outputs that it is given
    own.reduction = "none"  # type: ignore[assignment]  # a module may have any attribute
    return own


def on_last_positions(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss or a score, of outputs that may be at more positions of a sequence than have classes.

    With outputs (n, T, n_outputs) and classes (n, t), the classes are those of the last t positions, and what is said
    at the others does not count.
    """

    def of_last(outputs: Tensor, targets: Tensor) -> Tensor:
        sequences = targets.ndim == 2 and outputs.ndim == 3 and not targets.is_floating_point()
        if sequences and outputs.shape[1] > targets.shape[1]:
            outputs = outputs[:, -targets.shape[1] :]
        return function(outputs, targets)

    return of_last


def _share_right(outputs: Tensor, targets: Tensor) -> Tensor:
    return _by_example(outputs.argmax(-1) == targets).double().mean(-1)


def _by_example(numbers: Tensor) -> Tensor:
    return numbers.reshape(len(numbers), -1)

"""A step of an optimizer. It may be one of others, so what it returns is looked at before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eosrepro.core.later import torch
from eosrepro.core.types import Iterate, Optimizer
from eosrepro.errors import EosreproError, place

if TYPE_CHECKING:
    from torch import Tensor


def step(optimizer: Optimizer, at: Iterate, state: Any) -> tuple[Tensor, Any]:
    """u_t = θ_t − θ_{t+1}, (P,), and the next state.

    Raises:
        EosreproError: `update` returns something else.
    """
    made: object = optimizer.update(at, state)
    if isinstance(made, tuple) and len(made) == 2 and _shape(made[0]) == at.theta.shape:
        return cast("tuple[Tensor, Any]", made)
    found = f"({', '.join(map(_in_words, made))})" if isinstance(made, tuple) else _in_words(made)
    raise EosreproError(
        f"{_origin(optimizer)}update returns {found}, and should return (u, state): u = θ_t − θ_{{t+1}}, a tensor of "
        f"shape {tuple(at.theta.shape)}, and the next state"
    )


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def _in_words(value: object) -> str:
    shape = _shape(value)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _origin(optimizer: Optimizer) -> str:
    code = getattr(optimizer.update, "__code__", None)
    return f"{place(code.co_filename, code.co_firstlineno)}: " if code else "the optimizer's "

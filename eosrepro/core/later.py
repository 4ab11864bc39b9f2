"""PyTorch, imported when it is first asked for: a command that computes nothing does without, and saves seconds.

    from eosrepro.core.later import functional, nn, torch

Whoever imports a module to read a signature in it then waits for no PyTorch. What is only an annotation is imported
`if TYPE_CHECKING`. A module with a class that derives from one of PyTorch's needs it at once: it imports PyTorch
itself, and is imported in the functions that use the class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Later", "functional", "nn", "pytree", "torch"]


class Later:
    """A module in waiting."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(import_module(self._name), attribute)
        setattr(self, attribute, found)  # from now on it is here, and Python asks no more
        return found


if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils import _pytree as pytree
else:
    torch, nn, functional, pytree = map(Later, ("torch", "torch.nn", "torch.nn.functional", "torch.utils._pytree"))

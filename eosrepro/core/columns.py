"""Which quantities a function finds. No run hangs on what they are called on an axis (`quantities.py`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, get_args

from eosrepro.errors import ConfigError


def computed_by(function: Callable[..., Any]) -> list[str]:
    """The quantities that a function returns as a dataclass, or yields as many of one kind: its fields but the step."""
    function = function.func if isinstance(function, partial) else function
    returned = _returned(inspect.unwrap(function)) if inspect.isfunction(function) else None
    row = next(iter(get_args(returned)), returned)
    return [field.name for field in fields(row) if field.name != "step"] if is_dataclass(row) else []


def _returned(function: Any) -> Any:
    # No other annotation is asked for: it may name what is imported for type checkers alone.
    written = function.__annotations__.get("return")
    try:
        return eval(written, function.__globals__) if isinstance(written, str) else written
    except NameError as error:
        raise ConfigError(
            f"{function.__module__}:{function.__name__} returns {written}, and {error}: import it when the file runs, "
            "not below `if TYPE_CHECKING`, so that the columns are known"
        ) from None

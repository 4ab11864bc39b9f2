"""Numbers of a member that params.yaml may write as fractions."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

FRACTION = "0*[1-9][0-9]*/0*[1-9][0-9]*"


@dataclass(frozen=True)
class Fractional:
    """A positive number that params.yaml may give as a fraction too: `factor: Annotated[float, Fractional()]`, 1/10."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        number = {**handler(source), "gt": 0}
        return {"type": "function-before", "function": {"type": "no-info", "function": _number}, "schema": number}

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{FRACTION}$"}
        return {"anyOf": [text, {"type": "number", "exclusiveMinimum": 0}]}


def _number(raw: object) -> object:
    """The number that a fraction stands for; all else as it is, for the schema of numbers to judge."""
    if isinstance(raw, str) and re.fullmatch(FRACTION, raw):
        with suppress(OverflowError):
            return float(Fraction(raw))
    return raw

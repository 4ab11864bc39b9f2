"""Kinds of values that stand in params.yaml: names, folders, step sizes, mappings with exactly these keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from eosrepro.config.words import complaint, quoted, reworded


class Exact(BaseModel):
    """A mapping with exactly these keys; 300 may not be written "300", nor 1 as true."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Section(Exact):
    """One that explains its errors in our words."""

    @model_validator(mode="wrap")
    @classmethod
    def _reword(cls, raw: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(raw)
        except ValidationError as error:
            raise reworded(error, types_of(cls), raw) from None


SectionType = TypeVar("SectionType", bound=Section)


def types_of(model: type[BaseModel]) -> dict[str, Any]:
    """Key → type."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def keys_of(model: type[BaseModel]) -> list[str]:
    return [*types_of(model)]


def _spelt(pattern: str, meaning: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Validator and JSON Schema of a string that matches `pattern`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise complaint(f"found {quoted(text)}, {meaning}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_NAME = _spelt(r"[A-Za-z0-9_]+", "should be made of letters, digits and _ (it names a DVC stage and a folder)")
_FOLDER = _spelt(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*", "should be a relative folder such as tanh/unstable, without dots")
Name = Annotated[str, _NAME[0], _NAME[1]]
Folder = Annotated[str, _FOLDER[0], _FOLDER[1]]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]
_STEP_SIZE = re.compile(r"[0-9]+/[0-9]+|[0-9]*\.?[0-9]+(e[+-]?[0-9]{1,3})?")


class Written(Fraction):
    """A number that knows how it is written; it is equal to any other of its value, and saved as they are."""

    text: str = ""


def _step_size(raw: object) -> Fraction:
    """Read `2/60`, `0.04` or 0.04 exactly as it is written."""
    text = raw if isinstance(raw, str) else repr(raw)
    if _STEP_SIZE.fullmatch(text):
        with suppress(ZeroDivisionError, OverflowError):
            step_size = Written(text)
            step_size.text = text
            if float(step_size) > 0 and float(2 / step_size) > 0:
                return step_size
    raise complaint(
        f"found {quoted(raw)}, should be a positive fraction such as 2/60 or a positive number such as 0.04"
    )


LARGEST_THRESHOLD = 1000  # that is read off a step size


def step_size_text(step_size: Fraction) -> str:
    """η as the paper writes it: `2/60` rather than 1/30, so that the threshold 2/η can be read off it.

    A small one that is a decimal number is written as such: 0.0005 rather than 2/4000. The text reads back exactly.
    """
    threshold, decimal = 2 / step_size, repr(float(step_size))
    if threshold >= LARGEST_THRESHOLD and Fraction(decimal) == step_size:
        return decimal
    return f"2/{threshold}" if threshold.denominator == 1 else str(step_size)


def as_written(step_size: Fraction) -> str:
    """The same as params.yaml has it, 0.5 or 2/4, where that is known."""
    return step_size.text if isinstance(step_size, Written) and step_size.text else step_size_text(step_size)


STEP_SIZE = "{step_size}"  # in a text of a figure or claim it stands for that of the run
_ETA = r"(?:[η𝛈𝜂𝜼]|\b(?:eta|lr|step[ _-]?sizes?|learning[ _-]?rates?)\b)"
_BETWEEN = r"[^\w,;./*]*(?:\b(?:of|is|[dt]?frac)\b[^\w,;./*]*)?"
_SPELT_STEP_SIZE = re.compile(
    rf"(?<!/){_ETA}{_BETWEEN}\.?\d|/\s*\\?{_ETA}\s*[=≈]|(?<![\w./])2\s*[/⁄∕]\s*\d", re.IGNORECASE
)  # η = 0.05; 2/η = 40; 2/40, as the paper writes it


def with_step_size(text: str, step_sizes: Iterable[Fraction]) -> str:
    """The text with these in place of `{step_size}`, each once."""
    return text.replace(STEP_SIZE, ", ".join(map(as_written, dict.fromkeys(step_sizes))))


def spelt_step_size(text: str) -> str | None:
    """What is wrong with a text that spells a step size by hand."""
    found = _SPELT_STEP_SIZE.search(text)
    if not found:
        return None
    return (
        f"{quoted(text)} spells a step size, and would go on doing so for a run with another: "
        f"write {STEP_SIZE} for the number, which is then that of the run"
    )


StepSize = Annotated[
    Fraction,
    PlainValidator(_step_size),
    PlainSerializer(step_size_text, return_type=str),
    WithJsonSchema(
        {
            "description": "η, read exactly: a fraction as the paper writes it (2/60) or a positive number (0.04)",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]+/0*[1-9][0-9]*$"},
                {"type": "number", "exclusiveMinimum": 0},
            ],
        }
    ),
]


def _point(raw: object) -> int | str:
    if raw in ("onset", "end") or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return raw
    raise complaint(f"found {quoted(raw)}, should be a step number, onset or end")


_POINT = {"anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["onset", "end"]}]}
Point = Annotated[int | str, PlainValidator(_point), WithJsonSchema(_POINT)]

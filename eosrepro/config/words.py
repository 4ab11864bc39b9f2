"""What is said of a mistake in params.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from eosrepro.catalog import did_you_mean
from eosrepro.core.types import Above, AtLeast, AtMost, Below
from eosrepro.errors import ConfigError

# Where a finding stands in a file, and what is wrong with it.
Finding = tuple[tuple[str | int, ...], str]

MEANT = {"gpu": "cuda"}  # by what is no known value
OF_DATA = ("label_noise", "noise_seed", "n_examples", "n_test")  # options that stand beside the name of a data source


def complaint(words: str) -> PydanticCustomError:
    return PydanticCustomError("complaint", words)


def places(error: ValidationError) -> list[Finding]:
    """Where each finding of a validation stands, and what is wrong there."""
    return [(line["loc"], line["msg"]) for line in error.errors(include_url=False, include_context=False)]


def refusal(path: Path, findings: Iterable[Finding]) -> ConfigError:
    """One message about a file, with a line a finding."""
    return ConfigError("\n".join(f"{path}: {'.'.join(map(_key, where))}: {what}" for where, what in findings))


def _key(part: str | int) -> str:
    text = str(part)
    return text if text.isprintable() else repr(text)  # a line break in a key would break the message


def reworded(error: ValidationError, allowed: Mapping[str, Any], given: object = None) -> ValidationError:
    """The same findings in our words.

    Args:
        allowed: key → type, of the mapping that was validated.
        given: the mapping.
    """
    lines: dict[Finding, InitErrorDetails] = {}
    for line in error.errors(include_url=False, include_context=False):
        # [key], [range]: notes of pydantic
        place = tuple(part for part in line["loc"] if not str(part).startswith("["))
        found, words = line["input"], _words(line["type"], line["msg"], line["input"], place, allowed)
        wish = _of_several(allowed.get(str(place[0]))) if len(place) > 1 and line["type"] != "complaint" else ""
        if wish and isinstance(given, Mapping):  # pydantic has a finding for each of the types, by its name
            place, found = place[:1], given.get(place[0])
            words = f"found {quoted(found)}, should be {wish}"
        lines[place, words] = InitErrorDetails(type=complaint(words), loc=place, input=found)
    return ValidationError.from_exception_data(error.title, [*lines.values()])


def _of_several(annotation: Any) -> str:
    """What a value may be that may be of several types, beside null; "" where it is of one."""
    types = [each for each in _types(annotation) if each is not type(None)]
    return ", or ".join(map(_meaning, types)) if len(types) > 1 else ""


def _types(annotation: Any) -> list[Any]:
    return [*get_args(annotation)] if get_origin(annotation) in (Union, UnionType) else [annotation]


def _meaning(annotation: Any) -> str:
    """A type in words: "a number of at least 0"."""
    origin, of = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _meaning(of[0]) + " and".join(filter(None, map(_bound, of[1:])))
    if origin is Literal:
        return " or ".join(map(repr, of))
    if origin in (list, tuple):
        return f"a list, each entry {_meaning(of[0])}"
    if origin is dict:
        return f"a mapping, each value {_meaning(of[1])}"
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    return plain.get(origin or annotation, str(annotation))


def _bound(mark: object) -> str:
    match mark:
        case AtLeast(least):
            return f" of at least {least:g}"
        case AtMost(most):
            return f" of at most {most:g}"
        case Above(bound):
            return f" above {bound:g}"
        case Below(bound):
            return f" below {bound:g}"
    return ""


def _words(kind: str, message: str, found: object, location: tuple[str | int, ...], allowed: Mapping[str, Any]) -> str:
    if kind == "complaint":
        return message
    if kind == "missing":
        return "is missing, and there is no default"
    if kind == "extra_forbidden":
        return f"is not a known key{_instead(str(location[-1]), allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("dict_type", "model_type"):
        return f"found {quoted(found)}, should be a mapping"
    wish = re.sub(r"^\w+ should", "should", message).removesuffix(" after validation, not 0")
    wish = wish.replace("valid array", "valid list").replace("tuple", "list")
    meant = MEANT.get(str(found).lower(), str(found))
    hint = did_you_mean(meant, re.findall(r"'([^']*)'", message)) if kind == "literal_error" else ""
    return f"found {quoted(found)}, {wish}{hint}"


def _instead(key: str, allowed: Mapping[str, Any]) -> str:
    """What was meant by a key that is not known, if that can be told."""
    if key in OF_DATA and OF_DATA[0] not in allowed:
        return ": it belongs to the data of a profile, `profiles.<profile>.data`"
    for option, annotation in allowed.items():
        if get_origin(annotation) is Literal and key in get_args(annotation) and key != option:
            return f": it is a choice of {option}, write `{option}: {key}`"
    return did_you_mean(key, [*allowed])


def quoted(found: object) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, (dict, list)):
        return f"a {'mapping' if isinstance(found, dict) else 'list'} of {len(found)}"
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown_name(name: str, known: Iterable[str]) -> str:
    names = list(known)
    hint = did_you_mean(name, names)
    # Thirty runs are no help beside the one that was meant.
    return (
        f"{name!r}{hint}" if hint and len(names) > 12 else f"{name!r}{hint} (there are: {', '.join(names) or 'none'})"
    )

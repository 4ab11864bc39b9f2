"""What is said of a mistake in params.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from eosrepro.catalog import did_you_mean
from eosrepro.errors import ConfigError

# Where a finding stands in a file, and what is wrong with it.
Finding = tuple[tuple[str | int, ...], str]


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


def reworded(error: ValidationError, allowed: list[str]) -> ValidationError:
    """The same findings in our words; `allowed` are the keys of the mapping that was validated."""
    lines = [
        InitErrorDetails(
            type=complaint(_words(line["type"], line["msg"], line["input"], line["loc"], allowed)),
            loc=tuple(
                part for part in line["loc"] if not str(part).startswith("[")
            ),  # [key], [range]: pydantic's notes
            input=line["input"],
        )
        for line in error.errors(include_url=False, include_context=False)
    ]
    return ValidationError.from_exception_data(error.title, lines)


def _words(kind: str, message: str, found: object, location: tuple[str | int, ...], allowed: list[str]) -> str:
    if kind == "complaint":
        return message
    if kind == "missing":
        return "is missing, and there is no default"
    if kind == "extra_forbidden":
        return f"is not a known key{did_you_mean(str(location[-1]), allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("dict_type", "model_type"):
        return f"found {quoted(found)}, should be a mapping"
    wish = re.sub(r"^\w+ should", "should", message).removesuffix(" after validation, not 0").replace("tuple", "list")
    hint = did_you_mean(str(found), re.findall(r"'([^']*)'", message)) if kind == "literal_error" else ""
    return f"found {quoted(found)}, {wish}{hint}"


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

"""Members of the catalogue to test: all that lie in its folders, in every variant that their options name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from eosrepro import catalog
from eosrepro.config.members import annotation_of
from eosrepro.models._options import Activation, Init

# Choices that several members share, each tried by a test of its own: tests/models/test_layers.py.
SHARED = (Activation, Init)


def variants(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of every member of a kind as it comes, and once for each other choice of its Literal options."""
    return [(name, options) for name in catalog.names(kind) for options in [{}, *_choices(kind, name)]]


def identify(value: object) -> str | None:
    """Test ids: `mlp` for a name, `activation=tanh` for options."""
    if isinstance(value, dict):
        return ",".join(f"{key}={choice}" for key, choice in value.items()) or "defaults"
    return value if isinstance(value, str) else None


def _choices(kind: str, name: str) -> Iterator[dict[str, Any]]:
    member = catalog.find(kind, name)
    for parameter in inspect.signature(member).parameters.values():
        annotation = annotation_of(member, parameter) if parameter.kind is parameter.KEYWORD_ONLY else None
        if get_origin(annotation) is Literal and annotation not in SHARED:
            choices = [each for each in get_args(annotation) if each != parameter.default]
            yield from ({parameter.name: choice} for choice in choices)

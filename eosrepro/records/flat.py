"""Nested settings as a flat table: `model.width` → 200."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each setting that holds no others, by its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings that differ between runs, as {dotted key: {run: value or None}}. `name` is ignored."""
    flat = {run: flattened(each) for run, each in settings.items()}
    keys = dict.fromkeys(key for each in flat.values() for key in each if key != "name")
    by_key = {key: {run: each.get(key) for run, each in flat.items()} for key in keys}
    return {key: values for key, values in by_key.items() if not _all_equal([*values.values()])}


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)

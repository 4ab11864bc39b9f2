"""Settings as a flat table, and those in which runs differ."""

from __future__ import annotations

from typing import Any

from eosrepro.records.flat import differences, flattened


def test_keys_are_joined_by_dots() -> None:
    nested: dict[str, Any] = {"seed": 0, "model": {"name": "mlp", "bias": None, "init": {"gain": [1, 2]}}, "empty": {}}
    assert flattened(nested) == {"seed": 0, "model.name": "mlp", "model.bias": None, "model.init.gain": [1, 2]}


def test_settings_that_differ_by_keys_in_dots() -> None:
    one: dict[str, Any] = {"name": "a", "seed": 0, "model": {"name": "mlp", "width": 8}, "stop": {"max_steps": 10}}
    other = one | {"name": "b", "model": {"name": "mlp", "width": 9}, "optimizer": {"seed": 1}}
    assert differences({"a": one, "b": other, "c": one}) == {
        "model.width": {"a": 8, "b": 9, "c": 8},
        "optimizer.seed": {"a": None, "b": 1, "c": None},
    }

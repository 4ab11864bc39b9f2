"""An experiment: one setting, and what varies in it. Each combination of values is a run."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from eosrepro.config.sections import Setting
from eosrepro.config.words import Finding, complaint, places, quoted

MOST_RUNS = 10_000  # of one experiment
VARIABLE = {"vary": "Key path → the values it takes, as a list, or by the names that they have in the names of runs."}


@dataclass(frozen=True)
class Variant:
    """One run of an experiment."""

    suffix: str  # of its name
    varied: Mapping[str, str]  # key path → its value in words
    setting: Setting


Family = tuple[Variant, ...]


class _Vary:
    """Annotation that reads a setting with `vary` as all of its variants."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_family)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        setting = handler.resolve_ref_schema(handler(Setting.__pydantic_core_schema__))
        values = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]}
        vary = {"type": "object", "description": VARIABLE["vary"], "additionalProperties": values}
        properties = {**setting["properties"], "vary": vary}
        return {"type": "object", "properties": properties, "additionalProperties": False}


Experiment = Annotated[Family, _Vary()]


def _family(raw: Any) -> Family:
    if not isinstance(raw, dict):
        raise complaint(f"found {quoted(raw)}, should be a mapping")
    common = {key: value for key, value in raw.items() if key != "vary"}
    findings: dict[Finding, None] = {}  # each once, though every run may have it
    variants: list[Variant] = []
    for names, chosen, varied in _combinations(raw.get("vary", {})):
        try:
            setting = Setting.model_validate(_with(common, chosen))
            variants.append(Variant("_".join(names), varied, setting))
        except ValidationError as error:
            findings |= dict.fromkeys((_where(place, chosen, common), message) for place, message in places(error))
    if findings:
        _refuse(findings)
    return tuple(variants)


def _combinations(vary: Any) -> Iterator[tuple[list[str], dict[str, Any], dict[str, str]]]:
    """For each run the parts of its name, key path → value, and key path → value in words."""
    if not isinstance(vary, dict):
        _refuse([(("vary",), f"found {quoted(vary)}, should be a mapping of key paths")])
    axes = {path: _axis(path, values) for path, values in vary.items()}
    if (runs := math.prod(map(len, axes.values()))) > MOST_RUNS:
        _refuse([(("vary",), f"makes {runs:,} runs, should be at most {MOST_RUNS:,}")])
    for first, then in itertools.combinations(axes, 2):
        if f"{first}.".startswith(f"{then}."):
            _refuse([(("vary", first), f"{then} would replace it in every run: write {then} first")])
    for names in itertools.product(*axes.values()):
        chosen = {path: axis[name] for (path, axis), name in zip(axes.items(), names, strict=True)}
        words = {
            path: name.replace("_", " ") if isinstance(vary[path], dict) else str(chosen[path])
            for path, name in zip(axes, names, strict=True)
        }
        yield list(names), chosen, words


def _axis(path: Any, values: Any) -> dict[str, Any]:
    """The values of one path by the names that they have in the names of runs."""
    if not isinstance(path, str):
        _refuse([(("vary", str(path)), "should be a key path such as model.width")])
    if isinstance(values, dict) and values:
        named = [(str(name), value) for name, value in values.items()]
    elif isinstance(values, list) and values:
        named = [(value_name(value), value) for value in values]
    else:
        _refuse(
            [(("vary", path), f"found {quoted(values)}, should be a list of values, or a mapping of names to values")]
        )
    axis = dict(named)
    if bad := [name for name in axis if not re.fullmatch(r"\w+", name, re.ASCII)]:
        _refuse(
            [(("vary", path), f"{bad[0]!r} should be made of letters, digits and _: it is a part of names of runs")]
        )
    if len(axis) < len(named):
        _refuse([(("vary", path), "holds the same value twice")])
    if any(isinstance(value, (dict, list)) for value in values if isinstance(values, list)):
        _refuse([(("vary", path), "give each value a name, as in {name: value}: it is a part of the names of runs")])
    return axis


def value_name(value: Any) -> str:
    """A value as a part of a name: 2/30 is 2over30, and -0.5 is m0p5."""
    text = str(value).replace("/", "over").replace("-", "m").replace(".", "p").replace("+", "")
    return re.sub(r"\W+", "_", text, flags=re.ASCII)


def _with(common: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    setting = copy.deepcopy(dict(common))
    for path, value in chosen.items():
        *parents, last = path.split(".")
        entry: Any = setting
        for key in parents:
            entry = entry.setdefault(key, {}) if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            _refuse([(("vary", path), f"there is no such key: {'.'.join(parents)} is no mapping")])
        entry[last] = copy.deepcopy(value)
    return setting


def _where(place: tuple[str | int, ...], chosen: Mapping[str, Any], common: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Where a finding of a variant stands in the experiment as it is written."""
    for path in chosen:
        keys = tuple(path.split("."))
        if place[: len(keys)] == keys or (keys[: len(place)] == place != () and place[0] not in common):
            return ("vary", path, *place[len(keys) :])
    return place


def _refuse(findings: Any) -> Any:
    lines = [InitErrorDetails(type=complaint(message), loc=place, input=None) for place, message in findings]
    raise ValidationError.from_exception_data("experiment", lines)

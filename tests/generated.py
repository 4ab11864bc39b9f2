"""Generated params.yaml: the small one of tests/project.py, mutated, with pieces made from the schema and with junk.

`objections` is a second opinion on what may be accepted, written apart from `eosrepro.config`.
"""

from __future__ import annotations

import copy
import datetime
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import jsonschema
from hypothesis import strategies as st

from eosrepro.config.load import schema
from eosrepro.config.params import Config
from tests.project import ROOT, small_params

Path_ = tuple[str | int, ...]

SCHEMA = schema()
DEFINITIONS = SCHEMA["$defs"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PUBLISHED = {path.stem for path in (ROOT / "reference").glob("*.csv")}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([0, -1, 2**63, 10**400, -0.0, 1e-320, 1e308, math.inf, -math.inf, math.nan, 0.5]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", "2/0", "0/1", "-2/60", "2/60", "1e999", "../x", "/etc", "a/../b", "tanh", "gd", "nan", "${x}"]
    ),
    st.just(datetime.date(2022, 7, 17)),
    st.binary(max_size=4),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def instances(piece: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that satisfy a piece of the schema."""
    if "$ref" in piece:
        return st.deferred(lambda: instances(DEFINITIONS[piece["$ref"].rpartition("/")[2]]))
    for choice in ("anyOf", "oneOf"):
        if choice in piece:
            return st.one_of([instances(each) for each in piece[choice]])
    if "const" in piece:
        return st.just(piece["const"])
    if "enum" in piece:
        return st.sampled_from(piece["enum"])
    kind = piece.get("type")
    if kind == "object" and "properties" in piece:
        known = {key: instances(value) for key, value in piece["properties"].items()}
        required = set(piece.get("required", ()))
        return st.fixed_dictionaries(
            {key: value for key, value in known.items() if key in required},
            optional={key: value for key, value in known.items() if key not in required},
        )
    if kind == "object":
        values = piece.get("additionalProperties")
        return st.dictionaries(
            st.from_regex(r"\A[a-z][a-z0-9_]{0,8}\Z"),
            instances(values) if isinstance(values, Mapping) else JUNK,
            min_size=piece.get("minProperties", 0),
            max_size=3,
        )
    if kind == "array" and "prefixItems" in piece:
        return st.tuples(*map(instances, piece["prefixItems"])).map(list)
    if kind == "array":
        return st.lists(instances(piece.get("items", {})), min_size=piece.get("minItems", 0), max_size=4)
    if kind == "integer":
        low = piece.get("minimum", piece.get("exclusiveMinimum", -10) + 1)
        return st.integers(low, min(piece.get("maximum", 1000), piece.get("exclusiveMaximum", 1001) - 1))
    if kind == "number":
        low, high = piece.get("exclusiveMinimum", piece.get("minimum")), piece.get("maximum")
        return st.floats(low, high, exclude_min="exclusiveMinimum" in piece, allow_nan=False, allow_infinity=False)
    if kind == "string":
        return st.from_regex(piece["pattern"]) if "pattern" in piece else st.text(piece_alphabet(), min_size=1)
    return {"boolean": st.booleans(), "null": st.none()}.get(str(kind), JUNK)


def piece_alphabet() -> st.SearchStrategy[str]:
    return st.characters(codec="utf-8", exclude_categories=["C"])


def sites(content: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The places of all values in it."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from sites(value, (*path, key))


def at(content: Any, path: Path_) -> Any:
    for key in path:
        content = content[key]
    return content


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """The small params.yaml after one to three mutations."""
    params: dict[str, Any] = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(sites(params)) or [()]))
        if path:
            _mutate(draw, params, path)
    return params


BASE = small_params()
PIECES = [{"$ref": f"#/$defs/{name}"} for name in DEFINITIONS]


def _mutate(draw: st.DrawFn, params: dict[str, Any], path: Path_) -> None:
    parent, key = at(params, path[:-1]), path[-1]
    value = parent[key]
    kind = draw(st.sampled_from(["junk", "piece", "delete", "add", "rename", "swap", "wrap", "tweak", "empty"]))
    if kind == "junk":
        parent[key] = draw(JUNK)
    elif kind == "piece":
        parent[key] = draw(st.sampled_from(PIECES).flatmap(instances))
    elif kind == "delete":
        del parent[key]
    elif kind == "add" and isinstance(value, dict):
        value[draw(st.text(max_size=8) | st.integers() | st.sampled_from(["name", "seed", "level", "every"]))] = draw(
            JUNK
        )
    elif kind == "rename" and isinstance(parent, dict):
        text = str(key)
        place = draw(st.integers(0, len(text)))
        parent[text[:place] + draw(st.sampled_from(["", "x", "_", " ", "é"])) + text[place + 1 :]] = parent.pop(key)
    elif kind == "swap":
        parent[key] = copy.deepcopy(at(params, draw(st.sampled_from(list(sites(params))))))
    elif kind == "wrap":
        parent[key] = draw(st.sampled_from([[value], {"name": value}, str(value)]))
    elif kind == "tweak" and isinstance(value, (int, float)):
        parent[key] = draw(st.sampled_from([-value, 0, value + 0.5, value * 10**30, float(value), bool(value)]))
    elif kind == "empty":
        parent[key] = type(value)() if isinstance(value, (str, list, dict)) else None


# --- a second opinion -------------------------------------------------------------------------------------------------


def objections(content: dict[str, Any], config: Config) -> list[str]:
    """Why `content`, which was accepted as `config`, should not have been."""
    found = [
        f"schema: {error.message[:200]} at {list(error.absolute_path)}" for error in VALIDATOR.iter_errors(content)
    ]
    written = config.model_dump(mode="json", by_alias=True)
    found += [f"not read as written: {path}" for path in _unfaithful(content, written) if path[0] != "templates"]
    return found + list(_nonsense(content))


def _unfaithful(content: Any, read: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(content, dict):
        for key, value in content.items():
            if not isinstance(read, dict) or key not in read:
                yield (*path, key)
            else:
                yield from _unfaithful(value, read[key], (*path, key))
    elif isinstance(content, list):
        if not isinstance(read, list) or len(read) != len(content):
            yield path
        else:
            for index, value in enumerate(content):
                yield from _unfaithful(value, read[index], (*path, index))
    elif path[-1] == "step_size":
        if Fraction(str(content)) != Fraction(read):
            yield path
    elif content != read or isinstance(content, bool) != isinstance(read, bool):
        yield path


def _nonsense(content: dict[str, Any]) -> Iterator[str]:
    runs = content["experiments"] | content["toys"]
    if content["profile"] not in content["profiles"]:
        yield "profile does not exist"
    if len(runs) < len(content["experiments"]) + len(content["toys"]):
        yield "a toy has the name of an experiment"
    for name, run in runs.items():
        if not 0 < float(Fraction(str(run["step_size"]))) < math.inf:
            yield f"{name}: step size"
        if run["stop"]["max_steps"] < 1 or run["snapshot_every"] < 1:
            yield f"{name}: length"
        folder = run["folder"].split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_]+", part) for part in (*folder, name)):
            yield f"{name}: a folder that leaves its place"
        if (folder[0] == "toys") != (name in content["toys"]):
            yield f"{name}: folder of the other kind"
    for path in sites(content):
        value = at(content, path)
        if path[0] != "templates" and isinstance(value, float) and not math.isfinite(value):
            yield f"{path}: {value}"
    for name, claim in content["claims"].items():
        if claim["run"] not in runs:
            yield f"claim {name}: no such run"
        bound = claim["bound"]
        if (
            not -math.inf
            < (bound.get("min") if bound.get("min") is not None else -1e308)
            <= (bound.get("max") if bound.get("max") is not None else 1.7e308)
        ):
            yield f"claim {name}: bound"
    for name, measurement in content["measurements"].items():
        if content["experiments"].get(measurement["run"], {}).get("folder") != measurement["source"]:
            yield f"measurement {name}: no such run there"
    for name, figure in content["figures"].items():
        for run in figure["runs"]:
            if run not in runs or not f"{runs[run]['folder']}/".startswith(f"{figure['source']}/"):
                yield f"figure {name}: no such run there"
        for curves in figure.get("reference", {}).values():
            if not set(curves.values()) <= PUBLISHED or not curves.keys() <= figure["runs"].keys():
                yield f"figure {name}: no such curve"

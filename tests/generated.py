"""Generated params.yaml and claims.yaml: the small ones, mutated, with pieces made from the schema and with junk.

`objections` and `objections_to_claims` are a second opinion on what may be accepted, written apart from
`eosrepro.config`.
"""

from __future__ import annotations

import copy
import datetime
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import jsonschema
from dvc.utils.serialize import load_yaml
from hypothesis import strategies as st

from eosrepro.config.load import schema
from eosrepro.config.params import Config
from eosrepro.config.statements import Claim
from tests.project import SMALL, small_params

Path_ = tuple[str | int, ...]

SCHEMA = schema()
DEFINITIONS = SCHEMA["$defs"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

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
ODD_KEYS = st.sampled_from([None, True, 0.5, datetime.date(2022, 7, 17), b"a", ("a", 1)])
KEYS = st.text(max_size=6) | st.integers() | ODD_KEYS
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
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
    return _mutated(draw, BASE)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """The small claims.yaml after one to three mutations."""
    return _mutated(draw, CLAIMS)


BASE = small_params()
CLAIMS: dict[str, Any] = load_yaml(SMALL / "papers" / "small" / "claims.yaml")
PIECES = [{"$ref": f"#/$defs/{name}"} for name in DEFINITIONS]


def _mutated(draw: st.DrawFn, base: Mapping[str, Any]) -> dict[str, Any]:
    content = copy.deepcopy(dict(base))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(sites(content)) or [()]))
        if path:
            _mutate(draw, content, path)
    return content


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
        value[draw(KEYS | st.sampled_from(["name", "seed", "level", "every", "of"]))] = draw(JUNK)
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
    others = {key: value for key, value in content.items() if key != "experiments"}
    found += [f"not read as written: {path}" for path in _unfaithful(others, written)]
    expected = dict(_runs(content))
    if list(expected) != list(config.runs):
        return [*found, f"runs {list(config.runs)}, should be {list(expected)}"]
    for name, setting in expected.items():
        read = config.runs[name].setting.model_dump(mode="json")
        found += [f"not read as written: {(name, *path)}" for path in _unfaithful(setting, read)]
        found += [f"{name}: {words}" for words in _nonsense_of_run(setting)]
    return found + list(_nonsense(content, expected))


def _runs(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs that its experiments stand for, and what is written of each."""
    for experiment, written in content["experiments"].items():
        axes = [
            [(path, str(name), value) for name, value in values.items()]
            if isinstance(values, dict)
            else [(path, _named(value), value) for value in values]
            for path, values in written.get("vary", {}).items()
        ]
        for chosen in itertools.product(*axes):
            setting = {key: copy.deepcopy(value) for key, value in written.items() if key != "vary"}
            for path, _, value in chosen:
                *parents, last = path.split(".")
                entry = setting
                for key in parents:
                    entry = entry.setdefault(key, {})
                entry[last] = value
            yield "_".join([experiment, *(name for _, name, _ in chosen)]), setting


def _named(value: Any) -> str:
    letters = {"/": "over", "-": "m", ".": "p", "+": ""}
    return "".join(letters.get(letter, letter) for letter in str(value))


def _unfaithful(content: Any, read: Any, path: Path_ = ()) -> Iterator[Path_]:
    if path[:1] == ("figures",) and path[2:] == ("runs",) and isinstance(content, list):
        content = dict.fromkeys(content, "")
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


def _nonsense_of_run(setting: dict[str, Any]) -> Iterator[str]:
    if not 0 < float(Fraction(str(setting["step_size"]))) < math.inf:
        yield "step size"
    if setting["stop"]["max_steps"] < 1 or setting.get("snapshot_every", 1) < 1:
        yield "length"
    given = {key for key in ("model", "loss", "seed", "problem", "start") if setting.get(key) is not None}
    if given not in ({"model", "loss", "seed"}, {"problem", "start"}):
        yield f"neither network nor problem: {given}"


def _nonsense(content: dict[str, Any], runs: Mapping[str, Any]) -> Iterator[str]:
    if content["profile"] not in content["profiles"]:
        yield "profile does not exist"
    for name in (*runs, *content["experiments"], *content.get("figures", {})):
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            yield f"{name}: a folder that leaves its place"
    for path in sites(content):
        value = at(content, path)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path}: {value}"
    for name, experiment in content["experiments"].items():
        for diagnostic, options in experiment.get("diagnose", {}).items():
            if not all(could_be(each, name) for each in options.get("of") or ()):
                yield f"{diagnostic} of {name}: no such run"
    for name, figure in content.get("figures", {}).items():
        of = [*content["experiments"]] if figure["of"] == "." else [figure["of"]]
        within = set().union(*(meant(each, runs) for each in of))
        some, left = figure.get("runs") or within, figure.get("without", ())
        if not all(could_be(each, *of) for each in (*some, *left)):
            yield f"figure {name}: no such run there"
        whole = set().union(*(meant(each, runs) for each in left if each in content["experiments"]))
        if within and within <= whole:  # runs left out by name may be all that there are: the figure waits for others
            yield f"figure {name}: shows nothing"


def meant(name: str, runs: Iterable[str]) -> set[str]:
    """The runs that a name stands for."""
    return {run for run in runs if f"{run}_".startswith(f"{name}_")}


def could_be(name: str, *experiments: str) -> bool:
    """Whether it stands for runs of one of them, now or with other values of what varies."""
    return any(f"{name}_".startswith(f"{experiment}_") for experiment in experiments)


def objections_to_claims(content: dict[str, Any], claims: Mapping[str, Claim], runs: Iterable[str]) -> Iterator[str]:
    """Why a claims.yaml, which was accepted as `claims`, should not have been."""
    runs, left = list(runs), dict(claims)
    for block in content["claims"]:
        names = [block["of"]] if isinstance(block["of"], str) else block["of"]
        for key, entry in block.items():
            if key in ("source", "of"):
                continue
            entries = entry if isinstance(entry, list) else [entry] * len(names)
            about = [(run, each) for name, each in zip(names, entries, strict=True) for run in meant(name, runs)]
            for run, each in about:
                claim = left.pop(f"{run}_{key}", None)
                statement, said = content["statements"][key], each if isinstance(each, dict) else {"published": each}
                if claim is None:
                    yield f"{key} of {run} is no claim"
                elif claim.published != said.get("published") or isinstance(said.get("published"), bool):
                    yield f"{key} of {run}: published {claim.published}, not {said.get('published')}"
                elif (claim.run, claim.source, claim.claim) != (run, block["source"], statement["claim"]):
                    yield f"{key} of {run}: {claim}"
                elif not _decides(said if said.keys() & {"bound", "within"} else statement, claim):
                    yield f"{key} of {run}: bound {claim.bound}"
    yield from (f"{name} is said nowhere" for name in left)


def _decides(by: Mapping[str, Any], claim: Claim) -> bool:
    """Whether the bound of a claim is what is written."""
    low, high = claim.bound.min, claim.bound.max
    if (low is None and high is None) or (low is not None and high is not None and not low <= high):
        return False
    if by.get("bound") is not None:
        return [low, high] == by["bound"] and claim.needs is None and by.get("within") is None
    number, share = claim.published, float(by["within"].rstrip(" %")) / 100
    if number is None or low is None or high is None or claim.needs != "published":
        return False
    ends = (number - share * abs(number), number + share * abs(number))
    return all(math.isclose(end, is_, rel_tol=1e-9) for end, is_ in zip(ends, (low, high), strict=True))

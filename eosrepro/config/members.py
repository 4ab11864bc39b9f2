"""A name in params.yaml and the options that the function of that name takes.

They are read off the function: `model: {name: mlp, width: 200}` is checked against the keyword-only parameters of
`eosrepro/models/mlp.py`."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, create_model
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema, to_jsonable_python

from eosrepro import catalog
from eosrepro.config.values import Exact, types_of, with_step_size
from eosrepro.config.words import complaint, places, quoted, reworded
from eosrepro.core.types import Seed
from eosrepro.errors import ConfigError


@dataclass(frozen=True)
class Member:
    """A member of a catalogue and all its keyword options: `catalog.find(kind, name)(..., **options)`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """All but the options."""
        return {key.name: getattr(self, key.name) for key in fields(self) if key.name != "options"}


@dataclass(frozen=True)
class Diagnosis(Member):
    """A diagnostic, the snapshots that it looks at, and the runs."""

    every: int = 1
    of: tuple[str, ...] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines what it finds on given snapshots."""
        return {**self.options, "every": self.every}

    @property
    def to(self) -> str | None:
        """The run whose snapshots it looks at beside its own: one that takes `other` names it in its option `to`."""
        takes = inspect.signature(catalog.find("diagnostics", self.name)).parameters
        return str(self.options.get("to")) if "other" in takes else None


@dataclass(frozen=True)
class Source(Member):
    """A data source, and what is done to its labels."""

    label_noise: float = 0.0
    noise_seed: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        return super().facts if self.label_noise else {"name": self.name}


@dataclass(frozen=True)
class Figure(Member):
    """A member of the figures with its keyword options (all but `runs`), and what it is drawn from."""

    of: str = ""  # an experiment, or . for several
    runs: Mapping[str, str] = field(default_factory=dict)  # run → label; as written, names of groups too, and no label
    without: tuple[str, ...] = ()

    def worded(self, step_sizes: Mapping[str, Fraction]) -> Figure:
        """The same with the step sizes of its runs in its texts. Of runs with the same label, it names the run."""
        labels = {run: with_step_size(label, [step_sizes[run]]) for run, label in self.runs.items()}
        many = Counter(labels.values())
        options: dict[str, Any] = {
            key: with_step_size(value, step_sizes.values()) if isinstance(value, str) else value
            for key, value in self.options.items()
        }
        if columns := options.get("columns"):
            options["columns"] = {
                with_step_size(heading, [step_sizes[run] for run in column]): column
                for heading, column in columns.items()
            }
        runs = {run: label if many[label] == 1 else f"{label} ({run})" for run, label in labels.items()}
        return replace(self, runs=runs, options=options)

    @property
    def texts(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What it writes on its face, and where that stands below its name in params.yaml."""
        yield from ((("runs", run), label) for run, label in self.runs.items())
        yield from (((key,), value) for key, value in self.options.items() if isinstance(value, str))
        yield from ((("columns", heading), heading) for heading in self.options.get("columns") or {})


class _MemberKeys(Exact):
    name: str


class _FigureKeys(_MemberKeys):
    of: str
    """The experiment whose runs it shows; . where it shows those of several."""
    runs: dict[str, str] | list[str] = Field(default_factory=list)
    """Which of its runs, by name or by the first part of their names; each with a label if you like, in which
    {step_size} stands for that of the run. None: all, labelled by what varies."""
    without: list[str] = Field(default_factory=list)
    """Runs that it leaves out."""


class _SourceKeys(_MemberKeys):
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of the training examples that get a wrong class, drawn among the others."""
    noise_seed: Seed = 0
    """Of which they are, and of their classes."""


class _DiagnosisKeys(_MemberKeys):
    every: Annotated[int, Field(gt=0)] = 1
    """It looks at the snapshots of those iterations that this divides."""
    of: list[str] | None = None
    """The runs that it looks at, by name or by the first part of their names; None: all of the experiment."""


# Keyword-only parameters that come from the run itself, and from the one beside it.
GIVEN = {"step_size", "minibatches", "optimizer", "test", "other"}


@cache
def _keys_of(member: Callable[..., Any], name: str, common: type[_MemberKeys]) -> type[_MemberKeys]:
    """The model of what may be written for this member: the common keys and its own keyword-only parameters."""
    parameters = inspect.signature(member).parameters.values()
    type_of = _foreign_type if is_foreign(name) else annotation_of
    options: dict[str, Any] = {
        parameter.name: (type_of(member, parameter), ... if parameter.default is parameter.empty else parameter.default)
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in GIVEN | set(common.model_fields)
    }
    own_name: Any = Literal[name]
    others = "allow" if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) else "forbid"
    return create_model(
        name.replace("-", "_"),
        __base__=common,
        __module__=__name__,
        __cls_kwargs__={"extra": others},
        name=(own_name, ...),
        **options,
    )


def is_foreign(name: str) -> bool:
    """Whether it is `package.module:function`, which may be written for anything, and not the name of a member."""
    return ":" in name


def _foreign_type(_member: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter that may have none, or one of which YAML knows nothing."""
    plain = {of.__name__: of for of in (bool, int, float, str)}
    return plain.get(getattr(parameter.annotation, "__name__", parameter.annotation), Any)


def annotation_of(member: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of one parameter; that of the result is not asked for, which in a figure would load matplotlib."""
    written, function = parameter.annotation, inspect.unwrap(member)
    place = f"{function.__module__}: the parameter {parameter.name} of {function.__name__}"
    if written is parameter.empty:
        raise ConfigError(f"{place} has no type: write one, such as {parameter.name}: int")
    try:
        return eval(written, vars(sys.modules[function.__module__])) if isinstance(written, str) else written
    except NameError as error:
        raise ConfigError(f"{place} has the type {written}: {error}") from None


@dataclass(frozen=True)
class _Of:
    """Annotation that reads `{name: ..., options...}` as a member of the catalogue `kind`."""

    kind: str
    common: type[_MemberKeys] = _MemberKeys
    member: type[Member] = Member

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_plain_validator_function(self._read, serialization=written)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        models = [_keys_of(catalog.find(self.kind, name), name, self.common) for name in catalog.names(self.kind)]
        foreign = {"type": "object", "properties": {"name": {"type": "string", "pattern": ":"}}, "required": ["name"]}
        return {"anyOf": [*(handler(model.__pydantic_core_schema__) for model in models), foreign]}

    def _read(self, raw: Any) -> Member:
        model = _keys_of(self._find(raw), raw["name"], self.common)
        try:
            # As JSON, a list may stand for a tuple and text for a path, and nothing else is let through.
            read = model.model_validate_json(json.dumps(raw))
        except ValidationError as error:
            raise reworded(error, types_of(model), raw) from None
        values = dict(read)
        common = {key: values.pop(key) for key in self.common.model_fields}
        if isinstance(runs := common.get("runs"), list):
            common["runs"] = dict.fromkeys(runs, "")
        if is_foreign(raw["name"]):  # its defaults may be anything, classes and modules too
            values = {key: value for key, value in values.items() if key in read.model_fields_set}
        return self.member(options=values, **common)

    def written_schema(self, handler: GetJsonSchemaHandler, name: str) -> dict[str, Any]:
        """Of what may be written below `name`, without the name."""
        keys = handler(_keys_of(catalog.find(self.kind, name), name, self.common).__pydantic_core_schema__)
        keys = handler.resolve_ref_schema(keys)
        properties = {key: of for key, of in keys["properties"].items() if key != "name"}
        return {**keys, "properties": properties, "required": [key for key in keys["required"] if key != "name"]}

    def _find(self, raw: Any) -> Callable[..., Any]:
        known = catalog.names(self.kind)
        if not isinstance(raw, dict):
            raise complaint(f"found {quoted(raw)}, should be a mapping such as {{name: {known[0]}}}")
        if "name" not in raw:
            raise complaint(f"has no name (there are: {', '.join(known)})")
        try:
            return catalog.find(self.kind, str(raw["name"]))
        except (LookupError, ConfigError) as error:
            line = InitErrorDetails(type=complaint(str(error)), loc=("name",), input=raw["name"])
            raise ValidationError.from_exception_data(self.kind, [line]) from None


@dataclass(frozen=True)
class _ByName:
    """Annotation that reads `{name: {options...}, ...}`, or `[name, ...]`, as members of the catalogue, by name."""

    of: _Of

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(
            lambda members: {name: _written(member) for name, member in members.items()}
        )
        return core_schema.no_info_plain_validator_function(self._read, serialization=written)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = {name: self.of.written_schema(handler, name) for name in catalog.names(self.of.kind)}
        foreign = {"patternProperties": {":": {"type": "object"}}}
        by_name = {"type": "object", "properties": known, **foreign, "additionalProperties": False}
        names = {"anyOf": [{"enum": [*known]}, {"type": "string", "pattern": ":"}]}
        return {"anyOf": [by_name, {"type": "array", "items": names}]}

    def _read(self, raw: Any) -> dict[str, Member]:
        if isinstance(raw, list):
            raw = {str(name): {} for name in raw}
        if not isinstance(raw, dict):
            raise complaint(
                f"found {quoted(raw)}, should be a mapping such as {{{catalog.names(self.of.kind)[0]}: {{}}}}"
            )
        found, lines = {}, []
        for name, options in raw.items():
            try:
                if not isinstance(options, dict) or "name" in options:
                    raise complaint(
                        f"found {quoted(options)}, should be a mapping of its options, {{}} where it has none"
                    )
                found[name] = self.of._read({"name": name, **options})
            except ValidationError as error:
                lines += [_line(message, (name, *_less_name(place))) for place, message in places(error)]
            except PydanticCustomError as error:
                lines.append(_line(error.message(), (name,)))
        if lines:
            raise ValidationError.from_exception_data(self.of.kind, lines)
        return found


def _less_name(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return () if place == ("name",) else place


def _line(message: str, place: tuple[str | int, ...]) -> InitErrorDetails:
    return InitErrorDetails(type=complaint(message), loc=place, input=None)


def _written(member: Member) -> dict[str, Any]:
    written: dict[str, Any] = to_jsonable_python({**member.facts, **member.options})
    return written


Model = Annotated[Member, _Of("models")]
LossMember = Annotated[Member, _Of("losses")]
OptimizerMember = Annotated[Member, _Of("optimizers")]
ProblemMember = Annotated[Member, _Of("problems")]
DataMember = Annotated[Source, _Of("data", _SourceKeys, Source)]
Diagnoses = Annotated[dict[str, Diagnosis], _ByName(_Of("diagnostics", _DiagnosisKeys, Diagnosis))]
Observations = Annotated[dict[str, Member], _ByName(_Of("observations"))]
FigureMember = Annotated[Figure, _Of("figures", _FigureKeys, Figure)]

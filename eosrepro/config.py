"""params.yaml as frozen, validated objects. Below this floor nobody knows params.yaml.

What may be written beside a member's name is read off the member itself: `model: {name: mlp, width: 200}` is checked
against the keyword-only parameters of `eosrepro/models/mlp.py`. No number that changes a result has a default here.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema, to_jsonable_python
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import ScalarNode

from eosrepro import catalog
from eosrepro.catalog import did_you_mean
from eosrepro.errors import ConfigError
from eosrepro.lanczos import lowest_rtol
from eosrepro.types import DTYPES, Row, Rtol, Seed, Stop

PARAMS = Path("params.yaml")
MOST_VALUES = 100_000  # in one file; the committed one holds 3,000
LARGEST = 2**63 - 1  # whole number that PyTorch and NumPy can hold

# Where a finding stands in params.yaml, and what is wrong with it.
Finding = tuple[tuple[str | int, ...], str]


# --- words for errors -------------------------------------------------------------------------------------------------


def _complaint(words: str) -> PydanticCustomError:
    return PydanticCustomError("complaint", words)


def _reworded(error: ValidationError, allowed: list[str]) -> ValidationError:
    """The same findings in our words; `allowed` are the keys of the mapping that was validated."""
    lines = [
        InitErrorDetails(
            type=_complaint(_words(line["type"], line["msg"], line["input"], line["loc"], allowed)),
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
        return f"found {_shown(found)}, should be a mapping"
    wish = re.sub(r"^\w+ should", "should", message).removesuffix(" after validation, not 0").replace("tuple", "list")
    hint = did_you_mean(str(found), re.findall(r"'([^']*)'", message)) if kind == "literal_error" else ""
    return f"found {_shown(found)}, {wish}{hint}"


def _shown(found: object) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, (dict, list)):
        return f"a {'mapping' if isinstance(found, dict) else 'list'} of {len(found)}"
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- kinds of values --------------------------------------------------------------------------------------------------


class _Exact(BaseModel):
    """A mapping with exactly these keys; 300 may not be written "300", nor 1 as true."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Section(_Exact):
    """One that explains its errors in our words."""

    @model_validator(mode="wrap")
    @classmethod
    def _reword(cls, raw: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(raw)
        except ValidationError as error:
            raise _reworded(error, _keys(cls)) from None


SectionType = TypeVar("SectionType", bound=Section)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _spelt(pattern: str, meaning: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Validator and JSON Schema of a string that matches `pattern`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise _complaint(f"found {_shown(text)}, {meaning}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_NAME = _spelt(r"[A-Za-z0-9_]+", "should be made of letters, digits and _ (it names a DVC stage and a folder)")
_FOLDER = _spelt(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*", "should be a relative folder such as tanh/unstable, without dots")
Name = Annotated[str, _NAME[0], _NAME[1]]
Folder = Annotated[str, _FOLDER[0], _FOLDER[1]]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]


_STEP_SIZE = re.compile(r"[0-9]+/[0-9]+|[0-9]*\.?[0-9]+(e[+-]?[0-9]{1,3})?")


def _step_size(raw: object) -> Fraction:
    """Read `2/60`, `0.04` or 0.04 exactly as it is written."""
    text = raw if isinstance(raw, str) else repr(raw)
    if _STEP_SIZE.fullmatch(text):
        with suppress(ZeroDivisionError, OverflowError):
            step_size = Fraction(text)
            if float(step_size) > 0 and float(2 / step_size) > 0:
                return step_size
    raise _complaint(
        f"found {_shown(raw)}, should be a positive fraction such as 2/60 or a positive number such as 0.04"
    )


def step_size_text(step_size: Fraction) -> str:
    """η as the paper writes it: `2/60` rather than 1/30, so that the stability threshold 2/η can be read off it."""
    threshold = 2 / step_size
    return f"2/{threshold}" if threshold.denominator == 1 else str(step_size)


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


# --- members: a name and the options that the function of that name takes ---------------------------------------------


@dataclass(frozen=True)
class Member:
    """A member of a catalogue and all its keyword options: `catalog.find(kind, name)(..., **options)`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure(Member):
    """A member of the figures with its keyword options (all but `runs`), and what it is drawn from."""

    source: str = ""  # folder below stages/train and stages/diagnostics that holds all its runs
    runs: Mapping[str, str] = field(default_factory=dict)  # run → label
    reference: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # panel → run → reference/<file>.csv


class _MemberKeys(_Exact):
    name: str


class _FigureKeys(_MemberKeys):
    source: Folder
    """Folder below stages/train and stages/diagnostics that holds all its runs."""
    runs: Annotated[dict[str, str], Field(min_length=1)]
    """Run → its label."""
    reference: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Panel, or what is drawn in one, → run → published curve, a file in reference/ without .csv."""


_GIVEN = {"step_size", "minibatches"}  # keyword-only parameters that come from the run itself


@cache
def _keys_of(member: Callable[..., Any], name: str, common: type[_MemberKeys]) -> type[_MemberKeys]:
    """The model of what may be written for this member: the common keys and its own keyword-only parameters."""
    options: dict[str, Any] = {
        parameter.name: (
            _annotation(member, parameter),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(member).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _GIVEN | set(common.model_fields)
    }
    own_name: Any = Literal[name]
    return create_model(name.replace("-", "_"), __base__=common, __module__=__name__, name=(own_name, ...), **options)


def _annotation(member: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of one parameter; that of the result is not asked for, which in a figure would load matplotlib."""
    written, function = parameter.annotation, inspect.unwrap(member)
    place = f"{function.__module__}: the parameter {parameter.name} of {function.__name__}"
    if written is parameter.empty:
        raise ConfigError(f"{place} has no type: write one, such as {parameter.name}: int")
    try:
        return eval(written, function.__globals__) if isinstance(written, str) else written
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
        return {"anyOf": [handler(model.__pydantic_core_schema__) for model in models]}

    def _read(self, raw: Any) -> Member:
        model = _keys_of(self._find(raw), raw["name"], self.common)
        try:
            # As JSON, a list may stand for a tuple and text for a path, and nothing else is let through.
            read = model.model_validate_json(json.dumps(raw, default=str))
        except ValidationError as error:
            raise _reworded(error, _keys(model)) from None
        values = dict(read)
        common = {key: values.pop(key) for key in self.common.model_fields}
        return self.member(options=values, **common)

    def _find(self, raw: Any) -> Callable[..., Any]:
        known = catalog.names(self.kind)
        if not isinstance(raw, dict):
            raise _complaint(f"found {_shown(raw)}, should be a mapping such as {{name: {known[0]}}}")
        if "name" not in raw:
            raise _complaint(f"has no name (there are: {', '.join(known)})")
        try:
            return catalog.find(self.kind, str(raw["name"]))
        except LookupError as error:
            line = InitErrorDetails(type=_complaint(str(error)), loc=("name",), input=raw["name"])
            raise ValidationError.from_exception_data(self.kind, [line]) from None


def _written(member: Member) -> dict[str, Any]:
    facts = {key.name: getattr(member, key.name) for key in fields(member) if key.name != "options"}
    written: dict[str, Any] = to_jsonable_python({**facts, **member.options})
    return written


Model = Annotated[Member, _Of("models")]
LossMember = Annotated[Member, _Of("losses")]
OptimizerMember = Annotated[Member, _Of("optimizers")]
ToyMember = Annotated[Member, _Of("toys")]
DataMember = Annotated[Member, _Of("data")]
DiagnosticMember = Annotated[Member, _Of("diagnostics")]
FigureMember = Annotated[Figure, _Of("figures", _FigureKeys, Figure)]


# --- the sections of params.yaml --------------------------------------------------------------------------------------


class PixelRange(Section):
    """The pixel value that becomes 0 and the one that becomes 1."""

    zero: float
    one: float

    @model_validator(mode="after")
    def _spans_something(self) -> PixelRange:
        if self.zero == self.one:
            raise _complaint(f"zero and one are both {self.zero:g}, should differ")
        return self


Scale = Annotated[
    Annotated[Literal["unit", "symmetric", "none"], Tag("[name]")] | Annotated[PixelRange, Tag("[range]")],
    Discriminator(lambda raw: "[range]" if isinstance(raw, (dict, PixelRange)) else "[name]"),
]


class Preprocessing(Section):
    """From uint8 pixels to the inputs of the network."""

    scale: Scale
    """To [0, 1], to [−1, 1], left at 0..255, or by two pixel values of your own."""
    standardise: Literal["none", "per_channel", "per_feature", "centre_per_channel", "centre_per_feature"]
    statistics: Literal["subset", "source"]
    """Means and deviations of the images trained on, or of all of the source."""


class Profile(Section):
    """The data and the run lengths: all in which the quick run and the paper's differ."""

    data: DataMember
    preprocessing: Preprocessing
    max_steps: Positive
    """Caps stop.max_steps of every experiment, not of toys."""
    max_epochs: Positive
    """The same for an optimizer whose iterations are epochs."""
    snapshot_every: Positive
    """Least distance of snapshots of every experiment, not of toys: a snapshot takes 4 bytes a parameter of disk."""
    snapshot_every_epochs: Positive
    """The same for an optimizer whose iterations are epochs."""
    published: bool
    """Lay the published curves under ours, and judge claims about the paper's own data and length."""


class Compute(Section):
    """Where and how accurately experiments are computed. Toys are always float64 on the CPU."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "float64"]
    threads: Annotated[int, Field(gt=0, le=1024)]
    """Past the edge, float32 trajectories depend on it."""
    chunk_size: Positive
    """Examples in memory at once."""


class Sharpness(Section):
    """How the largest eigenvalues of the Hessian are measured: see `diagnostics/sharpness.py`."""

    k: Positive
    rtol: Annotated[float, Field(gt=0, lt=1)]
    max_products: Positive
    audit_every: Positive
    seed: Seed

    @model_validator(mode="after")
    def _is_within_reach(self) -> Sharpness:
        if self.k > self.max_products:
            raise _complaint(f"asks for k = {self.k} eigenvalues in max_products = {self.max_products} products")
        return self


class Measurement(Section):
    """A diagnostic on snapshots of an experiment, beside the sharpness, which is measured on all."""

    run: str
    source: Folder
    """The folder of that run."""
    diagnostic: DiagnosticMember
    every: Positive
    """Iterations; it is measured at the snapshots of those that this divides."""


class Mlflow(Section):
    """How runs are shown in MLflow; changes no result."""

    experiment: Text
    paper: Text | None = None
    """What is reproduced, in short: with the `source` of its claims, the tag `reproduction` of a run."""
    window: Positive
    """Iterations over which minimum, mean and maximum of an oscillating series are logged."""


class ToyStop(Section):
    """When a run ends."""

    max_steps: Positive
    loss_above: Annotated[float, Field(gt=0)] | None = None
    """A loss above this counts as divergence."""


class StopConfig(ToyStop):
    """When a run on data ends."""

    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Training accuracy to reach."""


class Experiment(Section):
    """A network trained on the data of the profile."""

    folder: Folder
    """Where its outputs go below stages/train and stages/diagnostics."""
    model: Model
    loss: LossMember
    optimizer: OptimizerMember
    step_size: StepSize
    seed: Seed
    """Of the initial weights."""
    stop: StopConfig
    snapshot_every: Positive
    """Iterations; the sharpness is measured at snapshots."""


class Toy(Section):
    """A function of a few numbers, minimised by the same loop."""

    folder: Folder
    toy: ToyMember
    start: Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
    optimizer: OptimizerMember
    step_size: StepSize
    stop: ToyStop
    snapshot_every: Positive


def _point(raw: object) -> int | str:
    if raw in ("onset", "end") or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return raw
    raise _complaint(f"found {_shown(raw)}, should be a step number, onset or end")


_POINT = {"anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["onset", "end"]}]}
Point = Annotated[int | str, PlainValidator(_point), WithJsonSchema(_POINT)]


class Window(Section):
    """The steps that a statistic is taken over: from a step to a step, both included, or the last share of the run."""

    from_: Annotated[Point | None, Field(alias="from")] = None
    """None: the start."""
    to: Point | None = None
    """None: the end."""
    last: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Window:
        if (self.last is None) == (self.from_ is None and self.to is None):
            raise _complaint("should hold either from and/or to, or last")
        if isinstance(self.from_, int) and isinstance(self.to, int) and self.from_ > self.to:
            raise _complaint(f"holds no step: from {self.from_} is after to {self.to}")
        return self


class Bound(Section):
    """Where the measured value must lie for the claim to hold, ends included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise _complaint("should hold min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise _complaint(f"holds for nothing: min {self.min:g} is above max {self.max:g}")
        return self


STATISTICS_OF_TWO = ("correlation", "largest_difference", "ratio")  # quantities
FACTS_OF_A_RUN = ("onset", "run_length", "run_length_times_step_size", "diverged")  # whatever quantity and window


class Measure(Section):
    """One statistic of one quantity of a run: see `statistics.py`."""

    quantity: str
    """See `quantities`."""
    statistic: Literal[
        "mean",
        "median",
        "min",
        "max",
        "final",
        "fraction_positive",
        "first_above",
        "first_outside",
        "increases",
        "onset",
        "run_length",
        "run_length_times_step_size",
        "diverged",
        "relation_error",
        "correlation",
        "largest_difference",
        "ratio",
    ]
    relative_to: Literal["threshold"] | None = None
    """In units of 2/η."""
    level: float | None = None
    """Of first_above and first_outside; of ratio, above which `against` counts."""
    against: str | None = None
    """Another quantity, of correlation, largest_difference and ratio."""
    window: Window | None = None
    """None: the whole run."""

    @model_validator(mode="after")
    def _has_what_the_statistic_takes(self) -> Measure:
        if self.level is not None and self.statistic not in ("first_above", "first_outside", "ratio"):
            found = f"holds a level, which is for first_above, first_outside and ratio, not for {self.statistic}"
            raise _complaint(found)
        if (self.against is None) == (self.statistic in STATISTICS_OF_TWO):
            with_or_without = "no `against`" if self.against is None else "`against`"
            raise _complaint(f"holds {with_or_without}, which is for {', '.join(STATISTICS_OF_TWO)} and for them alone")
        if self.level is None and self.statistic == "first_outside":
            raise _complaint("holds no level, and first_outside needs one")
        if self.level is None and self.statistic == "first_above" and self.relative_to is None:
            raise _complaint("holds neither level nor relative_to: threshold, and first_above needs one of them")
        if self.window is not None and self.statistic in FACTS_OF_A_RUN:
            raise _complaint(f"holds a window, and {self.statistic} is of the whole run")
        if self.relative_to is not None and self.statistic in (*FACTS_OF_A_RUN, *STATISTICS_OF_TWO, "relation_error"):
            raise _complaint(f"holds relative_to, and {self.statistic} has no unit")
        return self


class Claim(Measure):
    """A published statement as a statistic of one run and the bound that decides it."""

    claim: Text
    source: Text
    """Figure, experiment or theorem of the paper."""
    run: str
    bound: Bound
    published: float | None = None
    needs: Literal["published"] | None = None
    """Only meaningful on the paper's data and length."""


class Config(Section):
    """All of params.yaml."""

    profile: str
    profiles: dict[Name, Profile]
    compute: Compute
    sharpness: Sharpness
    mlflow: Mlflow
    templates: dict[str, Any] = Field(default_factory=dict, exclude=True)  # anchors for `<<:`
    experiments: dict[Name, Experiment]
    toys: dict[Name, Toy]
    measurements: dict[Name, Measurement]
    figures: dict[Name, FigureMember]
    claims: dict[Name, Claim]

    @property
    def active(self) -> Profile:
        """The profile that is switched on."""
        return self.profiles[self.profile]

    @property
    def runs(self) -> dict[str, Experiment | Toy]:
        """Experiments and toys by name."""
        return {**self.experiments, **self.toys}

    def run(self, name: str) -> Experiment | Toy:
        """The experiment or toy of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.runs:
            raise ConfigError(f"params.yaml has no run {_unknown(name, self.runs)}")
        return self.runs[name]

    def members(self) -> set[tuple[str, str]]:
        """(kind, name) of all members of the catalogue that are used."""
        used = {("data", self.active.data.name)}
        used |= {("optimizers", run.optimizer.name) for run in self.runs.values()}
        used |= {("models", run.model.name) for run in self.experiments.values()}
        used |= {("losses", run.loss.name) for run in self.experiments.values()}
        used |= {("toys", run.toy.name) for run in self.toys.values()}
        used |= {("diagnostics", measurement.diagnostic.name) for measurement in self.measurements.values()}
        return used | {("figures", figure.name) for figure in self.figures.values()}

    def stage(self, work: Literal["train", "diagnose"], name: str) -> str:
        """The stage of dvc.yaml that trains a run, or measures its sharpness."""
        return f"{work}_toys" if name in self.toys else f"{work}@{name}"

    def measurement(self, name: str) -> Measurement:
        """The measurement of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.measurements:
            raise ConfigError(f"params.yaml has no measurement {_unknown(name, self.measurements)}")
        return self.measurements[name]

    def stop(self, name: str) -> Stop:
        """When that run ends; experiments are capped by the profile."""
        run = self.run(name)
        stop = Stop(**run.stop.model_dump())
        if isinstance(run, Toy):
            return stop
        cap = self.active.max_epochs if counts_epochs(run) else self.active.max_steps
        return Stop(**asdict(stop) | {"max_steps": min(stop.max_steps, cap)})

    def snapshot_every(self, name: str) -> int:
        """Iterations from one snapshot of that run to the next; the profile has a least for experiments."""
        run = self.run(name)
        if isinstance(run, Toy):
            return run.snapshot_every
        profile = self.active
        least = profile.snapshot_every_epochs if counts_epochs(run) else profile.snapshot_every
        return max(run.snapshot_every, least)

    def resolved(self, name: str) -> dict[str, Any]:
        """Everything in params.yaml that determines that run, ready for JSON; not where its files go."""
        run = self.run(name)
        facts = run.model_dump(mode="json", exclude={"folder"})
        facts |= {"name": name, "stop": asdict(self.stop(name)), "snapshot_every": self.snapshot_every(name)}
        if isinstance(run, Toy):
            return facts
        profile = self.active.model_dump(mode="json", include={"data", "preprocessing"})
        return facts | profile | {"compute": self.compute.model_dump(mode="json")}

    def quantities(self, name: str) -> list[str]:
        """What a claim about that run may be about: see `statistics.series`."""
        run = self.run(name)
        columns = [column.name for column in fields(Row) if not (isinstance(run, Toy) and column.name == "accuracy")]
        columns += ["relative_progress_by_next_gradient", "sharpness"]
        columns += [f"eigenvalue_{i}" for i in range(2, self.sharpness.k + 1)]
        measured = [each.diagnostic.name for each in self.measurements.values() if each.run == name]
        columns += [quantity for diagnostic in measured for quantity in catalog.quantities(diagnostic)]
        n_thetas = len(run.start) if isinstance(run, Toy) else 0
        return columns + [f"{prefix}theta_{i}" for prefix in ("", "abs_") for i in range(1, n_thetas + 1)]


def counts_epochs(run: Experiment | Toy) -> bool:
    """Whether the iterations of the run are epochs, as those of an optimizer that takes minibatches are."""
    optimizer = catalog.find("optimizers", run.optimizer.name)(step_size=float(run.step_size), **run.optimizer.options)
    return optimizer.minibatches is not None


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path = PARAMS) -> Config:
    """Read and validate params.yaml; published curves are looked for in `reference/` beside it.

    Raises:
        ConfigError: it cannot be read or asks for something that is not possible. One line a finding: file, key path,
            what was found, what is allowed.
    """
    return validate(read(path), path, reference=path.parent / "reference")


def validate(content: dict[str, Any], path: Path, *, reference: Path) -> Config:
    """The content of a params.yaml as a `Config`; `path` names it in errors, `reference` holds the published curves."""
    if findings := [*_unusable({key: value for key, value in content.items() if key != "templates"})]:
        raise _refusal(path, findings)
    config = parse(Config, content, path)
    findings = [*_contradictions(config), *_missing_references(config, reference)]
    if findings:
        raise _refusal(path, findings)
    return config


def parse(section: type[SectionType], content: dict[str, Any], path: Path) -> SectionType:
    """The content of a YAML file as an object; `path` names it in errors."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise _refusal(path, [(line["loc"], line["msg"]) for line in error.errors()]) from None


def schema() -> dict[str, Any]:
    """JSON Schema of params.yaml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(by_alias=True),
        "title": "params.yaml of eosrepro",
    }


def _refusal(path: Path, findings: list[Finding]) -> ConfigError:
    return ConfigError("\n".join(f"{path}: {'.'.join(map(_key, where))}: {what}" for where, what in findings))


def _key(part: str | int) -> str:
    text = str(part)
    return text if text.isprintable() else repr(text)  # a line break in a key would break the message


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, by the reader that DVC uses: YAML 1.2, so 1e-4 is a number and `on` is text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        with warnings.catch_warnings(action="error", category=ReusedAnchorWarning):
            content = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: run eosrepro in the folder of the project that holds it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except MarkedYAMLError as error:
        raise ConfigError(f"{path}{_place(error)}: not valid YAML: {error.problem}") from None
    except ReusedAnchorWarning as error:
        raise ConfigError(f"{path}: {str(error).strip().splitlines()[0]}: give each a name of its own") from None
    except ValueError as error:
        words = "a whole number has more digits than can be read" if "digits" in str(error) else str(error)
        raise ConfigError(f"{path}: not valid YAML: {words}") from None
    except (YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if _has_more_than(MOST_VALUES, content):
        raise ConfigError(
            f"{path}: holds more than {MOST_VALUES:,} values: an alias in it contains itself or multiplies"
        )
    if content is None:
        raise ConfigError(f"{path} is empty: it should hold {', '.join(_keys(Config))}")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {_shown(content)}: it should be a mapping of {', '.join(_keys(Config))}")
    return content


def _has_more_than(most: int, content: Any) -> bool:
    """Whether it holds more values, each alias written out. A few lines of aliases of aliases make billions of them."""
    rest, count = [content], 0
    while rest and count <= most:
        value = rest.pop()
        rest.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        count += 1
    return count > most


def _unusable(content: Any, place: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    """Values that nothing could be done with, wherever they stand."""
    if isinstance(content, int) and abs(content) > LARGEST:
        yield place, f"found {_shown(content)}, should be at most {LARGEST}, and at least -{LARGEST}"
    if isinstance(content, str) and re.search("[\ud800-\udfff]", content):
        yield place, f"found {_shown(content)}, which holds half a character: write the character itself"
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from _unusable(key, (*place, key))
        yield from _unusable(value, (*place, key))


class _Composer(Composer):
    """Refuses a key that stands twice in a mapping, which the reader lets pass where the mapping holds a `<<`."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if key.value in seen:
                    raise ComposerError(problem=f"found duplicate key {key.value!r}", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def _place(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


# --- what no single entry can tell ------------------------------------------------------------------------------------


def _contradictions(config: Config) -> Iterator[Finding]:
    if config.profile not in config.profiles:
        yield ("profile",), f"there is no profile {_unknown(config.profile, config.profiles)}"
    # Audits are ten times as accurate as the solves.
    if complaint := _out_of_reach(config, config.sharpness.rtol, times=10):
        yield ("sharpness", "rtol"), complaint
    yield from _run_contradictions(config)
    yield from _measurement_contradictions(config)
    for name, figure in config.figures.items():
        yield from _figure_contradictions(config, name, figure)
    for name, claim in config.claims.items():
        if claim.run not in config.runs:
            yield ("claims", name, "run"), f"there is no run {_unknown(claim.run, config.runs)}"
            continue
        known = config.quantities(claim.run)
        for key, quantity in (("quantity", claim.quantity), ("against", claim.against)):
            if quantity is not None and quantity not in known:
                yield ("claims", name, key), f"{claim.run} has no {_unknown(quantity, known)}"


def _out_of_reach(config: Config, rtol: float, *, times: int = 1) -> str | None:
    """Why an eigenvalue cannot be found to `rtol` in the precision of `compute`, if it cannot."""
    least = times * lowest_rtol(DTYPES[config.compute.dtype])
    return f"found {rtol:g}, should be at least {least:.2g} in {config.compute.dtype}" if rtol < least else None


def _run_contradictions(config: Config) -> Iterator[Finding]:
    for name in config.experiments.keys() & config.toys.keys():
        yield ("toys", name), "an experiment has this name too, and names of runs are unique"
    places = {f"{run.folder}/{name}": name for name, run in config.runs.items()}
    for name, run in config.runs.items():
        section = "toys" if isinstance(run, Toy) else "experiments"
        if (run.folder.split("/")[0] == "toys") != isinstance(run, Toy):
            yield (section, name, "folder"), f"found {run.folder!r}, but toys, and nothing else, lie below toys/"
        if isinstance(run, Toy) and (complaint := _refused(run)):
            yield (section, name, "start"), complaint
        if isinstance(run, Toy) and counts_epochs(run):
            yield (section, name, "optimizer"), f"{run.optimizer.name} takes minibatches, and a toy has no examples"
        for place, other in places.items():
            if f"{run.folder}/".startswith(f"{place}/"):
                yield (section, name, "folder"), f"found {run.folder!r}, which lies in the outputs of the run {other!r}"


def _refused(toy: Toy) -> str | None:
    """Why the function of the toy does not take its start, if it does not."""
    f = catalog.find("toys", toy.toy.name)(**toy.toy.options)
    try:
        value = f(torch.tensor(toy.start, dtype=torch.float64))
    except (RuntimeError, ValueError, IndexError) as error:
        return f"{toy.toy.name} cannot be evaluated at the {len(toy.start)} numbers of start: {error}"
    return None if value.ndim == 0 else f"{toy.toy.name} has {value.numel()} values there, and a toy has one"


def _measurement_contradictions(config: Config) -> Iterator[Finding]:
    places: dict[tuple[str, str], str] = {}
    for name, measurement in config.measurements.items():
        run, diagnostic = measurement.run, measurement.diagnostic.name
        if diagnostic == "sharpness":
            found = "sharpness is measured on every run, as the section `sharpness` says: remove this"
            yield ("measurements", name, "diagnostic", "name"), found
        if run not in config.experiments:
            yield ("measurements", name, "run"), f"there is no experiment {_unknown(run, config.experiments)}"
            continue
        experiment = config.experiments[run]
        if measurement.source != experiment.folder:
            found = f"found {measurement.source!r}, but the run {run!r} lies in {experiment.folder!r}"
            yield ("measurements", name, "source"), found
        member = catalog.find("diagnostics", diagnostic)
        takes, options = inspect.signature(member).parameters, measurement.diagnostic.options
        for key, value in options.items():
            if _annotation(member, takes[key]) == Rtol and (complaint := _out_of_reach(config, value)):
                yield ("measurements", name, "diagnostic", key), complaint
        if options.get("k", 0) > options.get("max_products", LARGEST):
            found = f"asks for k = {options['k']} eigenvalues in max_products = {options['max_products']} products"
            yield ("measurements", name, "diagnostic"), found
        if "minibatches" in takes and not counts_epochs(experiment):
            found = f"{diagnostic} is about minibatches, and {experiment.optimizer.name} of {run} takes none"
            yield ("measurements", name, "diagnostic"), found
        if (other := places.setdefault((run, diagnostic), name)) != name:
            yield ("measurements", name), f"{other} measures {diagnostic} on {run} already"


def _figure_contradictions(config: Config, name: str, figure: Figure) -> Iterator[Finding]:
    for run in figure.runs:
        if run not in config.runs:
            yield ("figures", name, "runs", run), f"there is no run {_unknown(run, config.runs)}"
        elif not f"{config.runs[run].folder}/".startswith(f"{figure.source}/"):
            folder = config.runs[run].folder
            yield ("figures", name, "source"), f"found {figure.source!r}, but the run {run!r} lies in {folder!r}"
    for heading, column in (figure.options.get("columns") or {}).items():
        for run in set(column) - figure.runs.keys():
            yield ("figures", name, "columns", heading), f"the figure has no run {_unknown(run, figure.runs)}"
    panels = figure.options.get("panels", ())
    for what, names in (("panels", list(panels)), ("runs", list(figure.runs.values()))):
        if twice := {each for each in names if names.count(each) > 1}:
            yield ("figures", name, what), f"{', '.join(sorted(twice))!r} stands there twice"
    if "accuracy" in panels and (toys := figure.runs.keys() & config.toys.keys()):
        yield ("figures", name, "panels"), f"accuracy: the toy {min(toys)!r} has none"
    for key, (low, high) in (figure.options.get("limits") or {}).items():
        if not low < high:
            yield ("figures", name, "limits", key), f"found [{low:g}, {high:g}], should be the lower and the higher end"
        if panels and key not in panels:
            yield ("figures", name, "limits", key), f"the figure has no panel {_unknown(key, panels)}"
    named = _published_curves(figure)
    for panel, curves in figure.reference.items():
        if panel not in named:
            yield ("figures", name, "reference", panel), f"the figure has no panel {_unknown(panel, named)}"
        for run in curves.keys() - figure.runs.keys():
            yield ("figures", name, "reference", panel, run), f"the figure has no run {_unknown(run, figure.runs)}"


def _published_curves(figure: Figure) -> Iterable[str]:
    """What the keys of `reference` may be: those in the type of the figure's `published`, or else its panels."""
    draw = catalog.find("figures", figure.name)
    takes = inspect.signature(draw).parameters.get("published")
    key, *_ = (takes and get_args(_annotation(draw, takes))) or (str,)
    return get_args(key) or figure.options.get("panels", ())


def _missing_references(config: Config, folder: Path) -> Iterator[Finding]:
    known = {path.stem for path in folder.glob("*.csv")}
    for name, figure in config.figures.items():
        for panel, curves in figure.reference.items():
            for run, curve in curves.items():
                if curve not in known:
                    near = did_you_mean(curve, sorted(known))
                    yield ("figures", name, "reference", panel, run), f"there is no {folder / curve}.csv{near}"


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(known)
    hint = did_you_mean(name, names)
    # Thirty runs are no help beside the one that was meant.
    return (
        f"{name!r}{hint}" if hint and len(names) > 12 else f"{name!r}{hint} (there are: {', '.join(names) or 'none'})"
    )

"""A study: one run of params.yaml as a grid of settings, and their table beside the published curves.

A study is a YAML file (see studies/preprocessing.yaml). Its runs are found in the store, or go there, as those of an
experiment; so a study that was interrupted goes on.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from eosrepro import catalog
from eosrepro.catalog import did_you_mean
from eosrepro.config.checks import supposes_another_optimizer
from eosrepro.config.families import value_name
from eosrepro.config.load import parse, read_params, validate
from eosrepro.config.params import PARAMS, Config
from eosrepro.config.runs import Run
from eosrepro.config.sections import Profile
from eosrepro.config.statements import Statistic
from eosrepro.config.values import Section, keys_of
from eosrepro.config.yaml import read
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from eosrepro.figures import _style
from eosrepro.figures._map import heat_map
from eosrepro.records import store
from eosrepro.records.files import save_table, save_text
from eosrepro.records.identity import fingerprint
from eosrepro.records.places import STAGES
from eosrepro.records.published import published
from eosrepro.records.runs import Record, load_record
from eosrepro.stages import batched, build, diagnose, train
from eosrepro.stages.batched import Batch
from eosrepro.stages.recorded import provenance_of
from eosrepro.stages.track import mlflow_view
from eosrepro.verdicts import characteristics, statistics
from eosrepro.views import markdown
from eosrepro.views.mlflow.sync import About, sync_run

STUDIES = STAGES / "studies"
EVENTS = ("onset", "first_above", "first_outside", "run_length")  # statistics that are iterations
OF_PARAMS = ("profile", "profiles", "compute", "mlflow")  # key paths of params.yaml; all others are of the run


class Axis(Section):
    """One setting that varies."""

    path: str | Annotated[list[str], Field(min_length=1)]  # key path, or several that vary together
    values: Annotated[dict[str, Any], Field(min_length=1)]  # name in the table → value set there


class Published(Section):
    """The published curves that some of the variants can be laid over."""

    where: dict[str, str]  # axis → name of its value
    run: str | Annotated[list[str], Field(min_length=1)]  # of the paper; the second tells what the first does not show


class Map(Section):
    """A picture of one measure over two of the axes, averaged over the pooled ones."""

    x: str
    y: str
    measure: str


class Study(Section):
    """A study file. Key paths are those of the run (step_size, model.width), or of params.yaml: see `OF_PARAMS`."""

    run: str  # of params.yaml, which all variants start from
    set: dict[str, Any] = Field(default_factory=dict)  # key path → value, for all variants
    vary: Annotated[dict[str, Axis], Field(min_length=1)]
    pooled: list[str]  # axes whose variants are summarised in one row, e.g. seeds
    measures: Annotated[dict[str, Statistic], Field(min_length=1)]
    published: list[Published] = Field(default_factory=list)
    batched: bool = False  # train runs together that differ in step size, seed and start alone: see `stages.batched`
    map: Map | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Study:
        named = [self.pooled, *(list(published.where) for published in self.published)]
        unknown = {axis for axes in named for axis in axes} - self.vary.keys()
        unknown |= {
            value
            for published in self.published
            for axis, value in published.where.items()
            if axis in self.vary and value not in self.vary[axis].values
        }
        if unknown:
            raise PydanticCustomError("complaint", f"nothing varies by the name of {', '.join(sorted(unknown))}")
        if len({frozenset(published.where) for published in self.published}) > 1:
            raise PydanticCustomError("complaint", "published: `where` should name the same axes everywhere")
        return self

    @model_validator(mode="after")
    def _map_shows_all(self) -> Study:
        if self.map is None:
            return self
        if self.map.measure not in self.measures:
            hint = did_you_mean(self.map.measure, [*self.measures])
            raise PydanticCustomError("complaint", f"map.measure: there is no {self.map.measure!r} in measures{hint}")
        axes = [self.map.x, self.map.y, *self.pooled]
        if len({*axes}) < len(axes) or {*axes} != {*self.vary}:
            say = f"x, y and those that are pooled should be {', '.join(self.vary)}, each once"
            raise PydanticCustomError("complaint", f"map: {say}, and are {', '.join(axes)}")
        return self


def run(file: Path, *, jobs: int) -> Path:
    """Run all variants of a study, write table.csv (a row each) and table.md (a row a group), name the folder.

    Raises:
        ConfigError: the file, or params.yaml with the settings of a variant, is not valid.
    """
    study = parse(Study, read(file, keys_of(Study), remedy="give the path of a study, from here"), file)
    params = read_params()
    folder = STUDIES / file.stem
    # All is read before the first variant is run: a mistake in the last is not found hours later.
    start = validate(params, PARAMS).run(study.run)
    theirs = [(each.where, _published(params, each.run, file)) for each in study.published]
    combinations = itertools.product(*(axis.values for axis in study.vary.values()))
    variants = {names: _variant(study, start, params, names, file) for names in combinations}
    batches = _batches(study, variants.values(), file) if study.batched else {}
    rows, data = [], set()
    for names, variant in variants.items():
        record = _record(variant, folder / "runs", jobs, batches)
        data.add(record.origin.data)
        facts = {"source": "ours", "steps": record.summary["steps"]}
        rows.append(dict(zip(study.vary, names, strict=True)) | facts | _measured(study, record))
    rows += [where | {"source": "published"} | _measured(study, record) for where, record in theirs]
    table = pd.DataFrame(rows)
    save_table(folder / "table.csv", table)
    save_text(folder / "table.md", as_markdown(study, table))
    if study.map:
        ours, title = table[table["source"] == "ours"], _title(study, file.stem, len(variants))
        values = {axis: [*study.vary[axis].values] for axis in (study.map.x, study.map.y)}
        drawn = heat_map(ours, values, study.map.measure, title=title, data_label="; ".join(sorted(data - {""})))
        _style.save(drawn, folder / "map.png", folder / "map.svg")
    return folder


def _title(study: Study, name: str, n_runs: int) -> str:
    over = f", mean over {' and '.join(study.pooled)}" if study.pooled else ""
    return f"{name.replace('_', ' ').capitalize()}: {n_runs} runs{' in batches' if study.batched else ''}{over}"


def _batches(study: Study, variants: Iterable[Config], file: Path) -> dict[str, Batch]:
    runs = [run for variant in variants for run in variant.runs.values()]
    try:
        return batched.tried(runs, study.measures, _data_of)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}. Leave `batched` out, or change that") from error


def as_markdown(study: Study, table: pd.DataFrame) -> str:
    """One table for each combination of the settings that the published curves distinguish, the published row first.

    Cells are means over the pooled axes, with their range. The last column, misfit, is the mean over all measures of
    |ln(measured / published)|: 0.1 means about 10 % away. An event that did not come counts as coming at the end.
    """
    fixed = list(study.published[0].where) if study.published else []
    candidates = [key for key in study.vary if key not in fixed and key not in study.pooled]
    blocks = []
    for names in itertools.product(*(study.vary[key].values for key in fixed)):
        part = table[(table[fixed] == list(names)).all(axis=1)] if fixed else table
        theirs = part[part["source"] == "published"]
        head = [*(candidates or [""]), *study.measures, *(["misfit"] if len(theirs) else [])]
        rows = []
        if len(theirs):
            rows.append(["published", *[""] * (len(candidates) - 1), *(_cell(theirs[m]) for m in study.measures), ""])
        ours = part[part["source"] == "ours"]
        for key, group in ours.groupby(candidates, sort=False) if candidates else [(("ours",), ours)]:
            misfit = [f"{_misfit(study, group, theirs):.2f}"] if len(theirs) else []
            rows.append([*map(str, key), *(_cell(group[m]) for m in study.measures), *misfit])
        title = ", ".join(f"{key} {name}" for key, name in zip(fixed, names, strict=True))
        blocks.append((f"**{title}**\n\n" if title else "") + markdown.table(head, rows) + "\n")
    return "\n".join(blocks)


def _published(params: Mapping[str, Any], names: str | list[str], file: Path) -> Record:
    whole: Record | None = None
    for name in [names] if isinstance(names, str) else names:
        found = published(Path(params.get("paper") or ""), name)
        if found is None:
            raise ConfigError(f"{file}: published: there are no published curves of {name!r}")
        whole = found if whole is None else _with_more(whole, found, file)
    assert whole
    return whole


def _with_more(record: Record, other: Record, file: Path) -> Record:
    """A record with the quantities of another that it has not."""
    if other.step_size != record.step_size:
        raise ConfigError(f"{file}: published: {record.name} and {other.name} have different step sizes")
    more = other.trajectory[["step", *other.trajectory.columns.difference(record.trajectory.columns)]]
    trajectory = record.trajectory.merge(more, on="step", how="outer")
    return replace(record, trajectory=trajectory, measured={**other.measured, **record.measured})


def _variant(study: Study, start: Run, params: Mapping[str, Any], names: tuple[str, ...], file: Path) -> Config:
    """params.yaml with one variant in it and nothing else: `names` are those of its values, an axis each."""
    chosen = {
        path: axis.values[name]
        for axis, name in zip(study.vary.values(), names, strict=True)
        for path in ([axis.path] if isinstance(axis.path, str) else axis.path)
    }
    place = Path(f"{file} ({', '.join(names)})")
    name = "_".join(map(value_name, (file.stem, *names)))
    content = {key: value for key, value in params.items() if key not in ("figures", "paper", "diagnose")}
    content["experiments"] = {name: _written(start)}
    for path, value in (study.set | chosen).items():
        inside = path if path.split(".")[0] in OF_PARAMS else f"experiments.{name}.{path}"
        content = _with(content, inside, value)
    asked = {quantity for each in study.measures.values() for quantity in (each.quantity, each.against) if quantity}
    variant = validate(_less(content, name, asked, place), place)
    run = variant.run(name)
    # Coordinates of θ are read from snapshots, and a study keeps none.
    known = [quantity for quantity in variant.quantities(name) if "theta_" not in quantity]
    for key, of in study.measures.items():
        if of.beside is not None:
            raise ConfigError(f"{file}: measures.{key}.beside: a study measures each run by itself: leave it out")
        for which, quantity in (("quantity", of.quantity), ("against", of.against)):
            if quantity is not None and quantity not in known:
                hint = did_you_mean(quantity, known)
                raise ConfigError(f"{file}: measures.{key}.{which}: {study.run} has no {quantity!r}{hint}")
        if complaint := supposes_another_optimizer(run, of):
            raise ConfigError(f"{place}: measures.{key}: {complaint}")
    return variant


def _written(start: Run) -> dict[str, Any]:
    """An experiment of the one run, as it would be written with all its diagnostics that need no other run."""
    diagnose = {name: each.settings for name, each in start.diagnose.items() if each.to is None}
    return {**start.setting.model_dump(mode="json", exclude={"diagnose"}, exclude_none=True), "diagnose": diagnose}


def _less(content: dict[str, Any], name: str, asked: set[str], place: Path) -> dict[str, Any]:
    """Without the diagnostics that tell nothing of what is asked for."""
    declared = validate(content, place).run(name).diagnose
    told = {each for each, of in declared.items() if asked & {*catalog.quantities(each, of.options)}}
    written = content["experiments"][name]["diagnose"]
    return _with(content, f"experiments.{name}.diagnose", {each: written[each] for each in written if each in told})


def _with(params: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(params))
    *parents, last = path.split(".")
    entry: Any = changed
    for key in parents:
        entry = entry.setdefault(key, {}) if isinstance(entry, dict) else None
    if not isinstance(entry, dict):
        raise ConfigError(f"params.yaml has no setting {path}: {'.'.join(parents)} is no mapping")
    entry[last] = value
    return changed


def _record(variant: Config, folder: Path, jobs: int, batches: Mapping[str, Batch]) -> Record:
    (run,) = variant.runs.values()
    data, batch, place = _data_of(run), batches.get(run.name), folder / run.name
    if batch:
        settings, key = batch.settings[run.name], batch.keys[run.name]
        if not store.holds(key):
            batched.into_store(batch, data)
        store.place(key, place)
    else:
        settings, key = run.settings, fingerprint(run.settings, provenance_of(data))
        _trained_and_measured(run, data, key, place, jobs)
    record = load_record(place)
    about = About(summary=characteristics.summary(record), times=store.times(key))
    sync_run(run.name, settings, provenance_of(data), record, about=about, **mlflow_view(variant))
    return record


def _trained_and_measured(run: Run, data: Dataset | None, key: str, place: Path, jobs: int) -> None:
    train.into_store(run, data, key)
    store.place(key, place)
    due = [each for each in run.diagnose if not store.holds(diagnose.entry_of(run, each, place))]
    if due and not (place / "snapshots").exists():  # dropped before that was asked for
        store.remove(key)
        train.into_store(run, data, key)
        store.place(key, place)
    for found in diagnose.into_store([run], {run.name: place}, data, jobs=jobs)[run.name].values():
        store.place_files(found, place / "diagnostics")
    store.drop_snapshots(key, place)


def _data_of(run: Run) -> Dataset | None:
    return _dataset(run.profile.model_dump_json()) if run.has_examples else None


@lru_cache(maxsize=1)
def _dataset(profile: str) -> Dataset:
    made = build.dataset(Profile.model_validate_json(profile))
    checksum = hashlib.sha256(made.inputs.numpy().tobytes() + made.targets.numpy().tobytes()).hexdigest()
    facts = {"label": made.label, "n_examples": len(made), "n_outputs": made.n_outputs, "sha256": checksum}
    return replace(made, provenance={**made.provenance, **facts})


def _measured(study: Study, record: Record) -> dict[str, float]:
    return {name: statistics.value(record, of) for name, of in study.measures.items()}


def _misfit(study: Study, ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    columns = [name for name in study.measures if theirs[name].notna().all()]
    # What did not happen within a run happened at its end at the earliest: its misfit is a lower bound.
    events = {name: ours["steps"] for name in columns if study.measures[name].statistic in EVENTS}
    ratios = (ours[columns].fillna(pd.DataFrame(events)).mean() / theirs[columns].iloc[0]).dropna()
    return float(np.abs(np.log(np.abs(ratios.to_numpy(float)))).mean())


def _cell(values: pd.Series) -> str:
    low, mean, high = values.min(), values.mean(), values.max()
    if np.isnan(mean):
        return "–"
    missing = f" ({values.isna().sum()} of {len(values)} never)" if values.isna().any() else ""
    return (markdown.number(mean) if low == high else f"{_three(mean)} ({_three(low)}–{_three(high)})") + missing


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

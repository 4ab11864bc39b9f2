"""Variants of one run as a declared grid of settings over params.yaml, and their table beside the published curves.

A sweep is a YAML file (see studies/preprocessing.yaml). Each variant is params.yaml with a few keys set anew, validated
and run as usual. A variant whose files are there is not run again, so a sweep that was interrupted goes on.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Mapping
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
from eosrepro.config.load import parse, read_params, validate
from eosrepro.config.params import Config
from eosrepro.config.sections import Measurement, Profile
from eosrepro.config.statements import Statistic
from eosrepro.config.values import Section, keys_of
from eosrepro.config.yaml import read
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from eosrepro.records.code import diagnostic_code
from eosrepro.records.files import save_table, save_text
from eosrepro.records.identity import fingerprint, members_of
from eosrepro.records.places import STAGES
from eosrepro.records.published import REFERENCE, load_published
from eosrepro.records.runs import Record, load_record
from eosrepro.stages import build
from eosrepro.stages.diagnose import diagnose_into, measure_into
from eosrepro.stages.train import train_into
from eosrepro.verdicts import statistics
from eosrepro.views import markdown

SWEEPS = STAGES / "sweeps"
EVENTS = ("onset", "first_above", "first_outside", "run_length")  # statistics that are iterations


class Axis(Section):
    """One setting that varies."""

    path: str | Annotated[list[str], Field(min_length=1)]  # key path in params.yaml, or several that vary together
    values: Annotated[dict[str, Any], Field(min_length=1)]  # name in the table → value set there


class Published(Section):
    """The published curves that some of the variants can be laid over."""

    where: dict[str, str]  # axis → name of its value
    curves: dict[str, str]  # quantity → reference/<file>.csv


class Sweep(Section):
    """A sweep file."""

    run: str  # the experiment that all variants start from
    set: dict[str, Any] = Field(default_factory=dict)  # key path in params.yaml → value, for all variants
    vary: Annotated[dict[str, Axis], Field(min_length=1)]
    pooled: list[str]  # axes whose variants are summarised in one row, e.g. seeds
    measures: Annotated[dict[str, Statistic], Field(min_length=1)]
    published: list[Published] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_agree(self) -> Sweep:
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


def run(file: Path) -> Path:
    """Run all variants of a sweep file, write table.csv (a row each) and table.md (a row a group), name the folder.

    Raises:
        ConfigError: the file, or params.yaml with the settings of a variant, is not valid.
    """
    sweep = parse(Sweep, read(file, keys_of(Sweep)), file)
    params = read_params()
    folder = SWEEPS / file.stem
    # All is read before the first variant is run: a mistake in the last is not found hours later.
    theirs = [(published.where, load_published("published", published.curves)) for published in sweep.published]
    combinations = itertools.product(*(axis.values for axis in sweep.vary.values()))
    variants = {names: _variant(sweep, params, names, file) for names in combinations}
    rows = []
    for names, variant in variants.items():
        record = _record(variant, sweep, folder / "runs")
        facts = {"source": "ours", "steps": record.summary["steps"]}
        rows.append(dict(zip(sweep.vary, names, strict=True)) | facts | _measured(sweep, record))
    rows += [where | {"source": "published"} | _measured(sweep, record) for where, record in theirs]
    table = pd.DataFrame(rows)
    save_table(folder / "table.csv", table)
    save_text(folder / "table.md", as_markdown(sweep, table))
    return folder


def as_markdown(sweep: Sweep, table: pd.DataFrame) -> str:
    """One table for each combination of the settings that the published curves distinguish, the published row first.

    Cells are means over the pooled axes, with their range. The last column, misfit, is the mean over all measures of
    |ln(measured / published)|: 0.1 means about 10 % away. An event that did not come counts as coming at the end.
    """
    fixed = list(sweep.published[0].where) if sweep.published else []
    candidates = [key for key in sweep.vary if key not in fixed and key not in sweep.pooled]
    blocks = []
    for names in itertools.product(*(sweep.vary[key].values for key in fixed)):
        part = table[(table[fixed] == list(names)).all(axis=1)] if fixed else table
        theirs = part[part["source"] == "published"]
        head = [*(candidates or [""]), *sweep.measures, *(["misfit"] if len(theirs) else [])]
        rows = []
        if len(theirs):
            rows.append(["published", *[""] * (len(candidates) - 1), *(_cell(theirs[m]) for m in sweep.measures), ""])
        ours = part[part["source"] == "ours"]
        for key, group in ours.groupby(candidates, sort=False) if candidates else [(("ours",), ours)]:
            misfit = [f"{_misfit(sweep, group, theirs):.2f}"] if len(theirs) else []
            rows.append([*map(str, key), *(_cell(group[m]) for m in sweep.measures), *misfit])
        title = ", ".join(f"{key} {name}" for key, name in zip(fixed, names, strict=True))
        blocks.append((f"**{title}**\n\n" if title else "") + markdown.table(head, rows) + "\n")
    return "\n".join(blocks)


def _variant(sweep: Sweep, params: Mapping[str, Any], names: tuple[str, ...], file: Path) -> Config:
    """params.yaml with the settings of one variant: `names` are those of its values, an axis each."""
    chosen = {
        path: axis.values[name]
        for axis, name in zip(sweep.vary.values(), names, strict=True)
        for path in ([axis.path] if isinstance(axis.path, str) else axis.path)
    }
    place = Path(f"{file} ({', '.join(names)})")
    variant = validate(_with(params, sweep.set | chosen), place, reference=REFERENCE)
    # Coordinates of θ are read from snapshots, and a sweep keeps none.
    known = [quantity for quantity in variant.quantities(sweep.run) if "theta_" not in quantity]
    for name, measure in sweep.measures.items():
        for key, quantity in (("quantity", measure.quantity), ("against", measure.against)):
            if quantity is not None and quantity not in known:
                hint = did_you_mean(quantity, known)
                raise ConfigError(f"{file}: measures.{name}.{key}: {sweep.run} has no {quantity!r}{hint}")
        if complaint := supposes_another_optimizer(variant.run(sweep.run), measure):
            raise ConfigError(f"{place}: measures.{name}: {complaint}")
    return variant


def _with(params: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(params))
    for path, value in settings.items():
        *parents, last = path.split(".")
        entry = changed
        for key in parents:
            entry = entry.setdefault(key, {}) if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            raise ConfigError(f"params.yaml has no setting {path}: {'.'.join(parents)} is no mapping")
        entry[last] = value
    return changed


def _record(variant: Config, sweep: Sweep, folder: Path) -> Record:
    name = sweep.run
    resolved, data = variant.resolved(name), _dataset(variant.active.model_dump_json())
    made_by = fingerprint(resolved, {"sha256": _checksum(data)})
    measurements = _measurements(variant, sweep)
    settings = [each.model_dump(mode="json") for each in measurements]
    if measures_sharpness := _needs_sharpness(sweep):
        settings.append(variant.sharpness.model_dump())
    diagnostics = ["sharpness", *(each.diagnostic.name for each in measurements)]
    code = [diagnostic_code(each, members_of(resolved)) for each in diagnostics]
    key = json.dumps([made_by, settings, code], sort_keys=True)
    place = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    trained, snapshots = place / "run.json", place / "snapshots"  # the last file of a training
    measured = place / "measured"
    to_measure = [each for each in measurements if not (measured / f"{each.diagnostic.name}.json").exists()]
    measures_sharpness &= not (measured / "summary.json").exists()
    if not (trained.exists() and (snapshots.exists() or not (to_measure or measures_sharpness))):
        train_into(place, variant, name, data, fingerprint=made_by)
    if measures_sharpness:
        diagnose_into(measured, place, variant, name, data)
    for each in to_measure:
        measure_into(measured, place, variant, each, data)
    shutil.rmtree(snapshots, ignore_errors=True)
    return load_record(place)


def _measurements(variant: Config, sweep: Sweep) -> list[Measurement]:
    """The measurements of params.yaml that tell a quantity of the sweep."""
    of_run = [each for each in variant.measurements.values() if each.run == sweep.run]
    return [each for each in of_run if _asked(sweep) & {*catalog.quantities(each.diagnostic.name)}]


@lru_cache(maxsize=1)
def _dataset(profile: str) -> Dataset:
    return build.dataset(Profile.model_validate_json(profile))


def _checksum(data: Dataset) -> str:
    return hashlib.sha256(data.inputs.numpy().tobytes() + data.targets.numpy().tobytes()).hexdigest()


def _needs_sharpness(sweep: Sweep) -> bool:
    return any(re.match("sharpness|eigenvalue_", quantity) for quantity in _asked(sweep))


def _asked(sweep: Sweep) -> set[str]:
    """The quantities that its measures take."""
    quantities = (each for measure in sweep.measures.values() for each in (measure.quantity, measure.against))
    return {quantity for quantity in quantities if quantity}


def _measured(sweep: Sweep, record: Record) -> dict[str, float]:
    return {name: statistics.value(record, of) for name, of in sweep.measures.items()}


def _misfit(sweep: Sweep, ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    columns = [name for name in sweep.measures if theirs[name].notna().all()]
    # What did not happen within a run happened at its end at the earliest: its misfit is a lower bound.
    events = {name: ours["steps"] for name in columns if sweep.measures[name].statistic in EVENTS}
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

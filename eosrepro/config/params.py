"""All of params.yaml, and the runs that it declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from eosrepro import catalog
from eosrepro.config.families import Experiment
from eosrepro.config.members import Diagnoses, Figure, FigureMember
from eosrepro.config.runs import Run, named, resolve
from eosrepro.config.sections import Compute, Mlflow, Profile
from eosrepro.config.statements import BY_NEXT_GRADIENT, Claim
from eosrepro.config.values import Folder, Name, Section
from eosrepro.config.words import unknown_name
from eosrepro.core.types import Row
from eosrepro.errors import ConfigError

PARAMS = Path("params.yaml")
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|[0-9]+/[0-9]+")
ALL = "."  # what a figure is of that shows runs of several experiments


class Config(Section):
    """All of params.yaml."""

    profile: str
    profiles: dict[Name, Profile]
    compute: Compute
    mlflow: Mlflow
    paper: Folder | None = None
    """What is reproduced: the folder of its claims.yaml and of curves/<run>/<quantity>.csv. It may be empty; dvc.yaml
    needs the key."""
    diagnose: Diagnoses = Field(default_factory=dict)
    """Diagnostics of all experiments, by name."""
    experiments: dict[Name, Experiment]
    figures: dict[Name, FigureMember] = Field(default_factory=dict)

    @property
    def active(self) -> Profile:
        """The profile that is switched on."""
        return self.profiles[self.profile]

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs of all experiments, by name."""
        return self.runs_in(self.profile)

    def runs_in(self, profile: str) -> dict[str, Run]:
        """The same in one of the profiles."""
        declared = [
            resolve(experiment, variant, self.profiles[profile], self.compute, self.diagnose)
            for experiment, family in self.experiments.items()
            for variant in family
        ]
        return {run.name: run for run in declared}

    @cached_property
    def drawn(self) -> dict[str, Figure]:
        """The figures, with every run that they show and its label."""
        return {name: self._drawn(figure) for name, figure in self.figures.items()}

    def _drawn(self, figure: Figure) -> Figure:
        own = [run.name for run in self.runs.values() if figure.of in (run.experiment, ALL)]
        labels = figure.runs or dict.fromkeys(own, "")
        shown = {run: labels[name] for name in labels for run in self.chosen(own, name)}
        left = {run: label for run, label in shown.items() if run not in named(shown, figure.without)}
        options: dict[str, Any] = dict(figure.options)
        if columns := options.get("columns"):
            options["columns"] = {
                heading: [run for name in names for run in self.chosen(left, name)]
                for heading, names in columns.items()
            }
        labelled = {run: label or self._label(run, [*left]) for run, label in left.items()}
        return replace(figure, runs=labelled, options=options)

    def chosen(self, runs: Mapping[str, Any] | list[str], name: str) -> list[str]:
        """Those of the runs that a name stands for: an experiment, a run, or the first part of the names of some."""
        if name in self.experiments:
            return [run for run in runs if self.runs[run].experiment == name]
        return named(runs, [name])

    def may_be(self, name: str, of: str = ALL) -> bool:
        """Whether a run of an experiment could have the name, with other values than vary now: no mistake, then."""
        return bool(named([name], self.experiments if of == ALL else [of]))

    def _label(self, name: str, beside: list[str]) -> str:
        """What tells a run from those beside it: its values of what varies between them."""
        of = [self.runs[each].varied for each in beside]
        varied = self.runs[name].varied
        differ = [path for path in varied if len({each.get(path) for each in of}) > 1] or [*varied] or ["step_size"]
        return ", ".join("η = {step_size}" if path == "step_size" else _said(path, varied[path]) for path in differ)

    def run(self, name: str) -> Run:
        """The run of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.runs:
            raise ConfigError(f"params.yaml has no run {unknown_name(name, self.runs)}")
        return self.runs[name]

    def select(self, name: str) -> list[Run]:
        """The runs that a name stands for: an experiment, the first part of the names of its runs, or a run.

        Raises:
            ConfigError: it stands for none.
        """
        if found := self.chosen([*self.runs], name):
            return [self.runs[run] for run in found]
        known = [*self.experiments, *self.runs]
        raise ConfigError(f"params.yaml has no experiment and no run {unknown_name(name, known)}")

    def quantities(self, name: str) -> list[str]:
        """What a claim about that run may be about: see `records.series`."""
        run = self.run(name)
        columns = [column.name for column in fields(Row) if run.has_examples or column.name != "accuracy"]
        columns.remove("observed")
        columns += ["r2"] if run.has_examples else []  # of targets that are numbers
        columns.append(BY_NEXT_GRADIENT)
        for kind, members in (("observations", run.setting.observe), ("diagnostics", run.diagnose)):
            columns += [each for name, of in members.items() for each in catalog.quantities(name, of.options, kind)]
        n_thetas = len(run.setting.start or ())
        return columns + [f"{prefix}theta_{i}" for prefix in ("", "abs_") for i in range(1, n_thetas + 1)]

    @property
    def claims_file(self) -> Path | None:
        """What the paper says; None where there is no paper, or it is a folder without claims."""
        file = Path(self.paper or "") / "claims.yaml"
        return None if self.paper is None or (file.parent.is_dir() and not file.exists()) else file

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """What the paper says about the runs, by <run>_<statement>.

        Raises:
            ConfigError: claims.yaml cannot be read, or asks for something that is not possible.
        """
        from eosrepro.config.claims import claims

        return claims(self.claims_file, self._runs_of) if self.claims_file else {}

    @property
    def left_out(self) -> list[str]:
        """The runs that claims, figures and diagnostics are about and that no experiment has now."""
        from eosrepro.config.claims import left_out

        asked = [name for figure in self.figures.values() for name in (*figure.runs, *figure.without)]
        for family in self.experiments.values():
            asked += [name for variant in family for of in variant.setting.diagnose.values() for name in of.of or ()]
        missing = {name for name in asked if not self.chosen([*self.runs], name)}
        return sorted(missing | ({*left_out(self.claims_file, self._runs_of)} if self.claims_file else set()))

    @property
    def _runs_of(self) -> dict[str, list[str]]:
        return {experiment: [run.name for run in self.select(experiment)] for experiment in self.experiments}


def _said(path: str, value: str) -> str:
    """A value that varies, in words: a number alone would not say what it is of."""
    return f"{path.rpartition('.')[2].replace('_', ' ')} = {value}" if _NUMBER.fullmatch(value) else value

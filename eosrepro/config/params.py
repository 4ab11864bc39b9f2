"""All of params.yaml, and what follows from it for one run."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from eosrepro import catalog
from eosrepro.config.members import FigureMember
from eosrepro.config.sections import Compute, Experiment, Measurement, Mlflow, Profile, Sharpness, Toy
from eosrepro.config.statements import BY_NEXT_GRADIENT, Claim
from eosrepro.config.values import Name, Section
from eosrepro.config.words import unknown_name
from eosrepro.core.types import Row, Stop
from eosrepro.errors import ConfigError

PARAMS = Path("params.yaml")


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
            raise ConfigError(f"params.yaml has no run {unknown_name(name, self.runs)}")
        return self.runs[name]

    def stage(self, work: Literal["train", "diagnose"], name: str) -> str:
        """The stage of dvc.yaml that trains a run, or measures its sharpness."""
        return f"{work}_toys" if name in self.toys else f"{work}@{name}"

    def measurement(self, name: str) -> Measurement:
        """The measurement of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.measurements:
            raise ConfigError(f"params.yaml has no measurement {unknown_name(name, self.measurements)}")
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
        return facts | self.active.made_with | {"compute": self.compute.model_dump(mode="json")}

    def quantities(self, name: str) -> list[str]:
        """What a claim about that run may be about: see `records.series`."""
        run = self.run(name)
        columns = [column.name for column in fields(Row) if not (isinstance(run, Toy) and column.name == "accuracy")]
        columns += [BY_NEXT_GRADIENT, "sharpness"]
        columns += [f"eigenvalue_{i}" for i in range(2, self.sharpness.k + 1)]
        measured = [each.diagnostic.name for each in self.measurements.values() if each.run == name]
        columns += [quantity for diagnostic in measured for quantity in catalog.quantities(diagnostic)]
        n_thetas = len(run.start) if isinstance(run, Toy) else 0
        return columns + [f"{prefix}theta_{i}" for prefix in ("", "abs_") for i in range(1, n_thetas + 1)]


def counts_epochs(run: Experiment | Toy) -> bool:
    """Whether the iterations of the run are epochs, as those of an optimizer that takes minibatches are."""
    optimizer = catalog.find("optimizers", run.optimizer.name)(step_size=float(run.step_size), **run.optimizer.options)
    return optimizer.minibatches is not None

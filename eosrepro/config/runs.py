"""A run: one training, with all that determines it and what looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from eosrepro import catalog
from eosrepro.config.families import Variant
from eosrepro.config.members import Diagnosis
from eosrepro.config.sections import Compute, Profile, Setting
from eosrepro.core.schedules import scheduled, times
from eosrepro.core.types import Observation, Optimizer, Stop


@dataclass(frozen=True)
class Run:
    """A run as params.yaml declares it, with nothing left to look up."""

    name: str
    experiment: str
    varied: Mapping[str, str]  # key path → its value in words, of what varies in the experiment
    setting: Setting
    stop: Stop
    snapshot_every: int
    diagnose: Mapping[str, Diagnosis]  # by diagnostic
    profile: Profile
    compute: Compute

    @property
    def has_examples(self) -> bool:
        """Whether it is trained on data: a network is, a problem is not."""
        return self.setting.problem is None

    @property
    def method(self) -> Optimizer:
        """The optimizer with its step size."""
        chosen, step_size, schedule = self.setting.optimizer, float(self.setting.step_size), self.setting.schedule
        make = partial(catalog.find("optimizers", chosen.name), **chosen.options)
        if schedule:
            return scheduled(lambda factor: make(step_size=step_size * factor), schedule.factor)
        made: Optimizer = make(step_size=step_size)
        return made

    @property
    def observe(self) -> list[Observation]:
        """What else is recorded at every iteration."""
        chosen = self.setting.observe.values()
        return [partial(catalog.find("observations", each.name), **each.options) for each in chosen]

    @property
    def counts(self) -> str:
        """What its steps are: epochs for an optimizer that takes minibatches."""
        return "epochs" if self.method.minibatches else "iterations"

    @property
    def times(self) -> list[Fraction]:
        """The sum of the step sizes before each iteration that it may come to, exactly."""
        schedule = self.setting.schedule
        return times(self.setting.step_size, self.stop.max_steps, schedule.factor if schedule else None)

    @property
    def limits(self) -> list[str]:
        """Where the profile gives it another length than the experiment says, one line each."""
        lengths = {
            "max_steps": (self.setting.stop.max_steps, self.stop.max_steps),
            "snapshot_every": (self.setting.snapshot_every, self.snapshot_every),
        }
        return [
            f"{key} is {given}: the active profile overrides the {written} of the experiment"
            for key, (written, given) in lengths.items()
            if written != given
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines its training, ready for JSON."""
        facts = self.setting.model_dump(mode="json", exclude={"diagnose"}, exclude_none=True)
        facts |= {"name": self.name, "stop": asdict(self.stop), "snapshot_every": self.snapshot_every}
        if not self.has_examples:
            return facts
        return facts | self.profile.made_with | {"compute": self.compute.of_training}


def resolve(
    experiment: str, variant: Variant, profile: Profile, compute: Compute, common: Mapping[str, Diagnosis]
) -> Run:
    """One run of an experiment. The profile caps those of networks; `common` are the diagnostics of all."""
    setting = variant.setting
    name = run_name(experiment, variant)
    run = Run(
        name=name,
        experiment=experiment,
        varied=variant.varied,
        setting=setting,
        stop=Stop(**setting.stop.model_dump()),
        snapshot_every=setting.snapshot_every,
        diagnose={**common, **_of(name, setting.diagnose)},
        profile=profile,
        compute=compute,
    )
    return _capped(run) if run.has_examples else run


def run_name(experiment: str, variant: Variant) -> str:
    return "_".join(filter(None, [experiment, variant.suffix]))


def _of(name: str, diagnoses: Mapping[str, Diagnosis]) -> dict[str, Diagnosis]:
    return {key: each for key, each in diagnoses.items() if each.of is None or named([name], each.of)}


def _capped(run: Run) -> Run:
    profile, by_epoch = run.profile, run.counts == "epochs"
    most = profile.max_epochs if by_epoch else profile.max_steps
    least = profile.snapshot_every_epochs if by_epoch else profile.snapshot_every
    stop = Stop(**asdict(run.stop) | {"max_steps": min(run.stop.max_steps, most)})
    return replace(run, stop=stop, snapshot_every=max(run.snapshot_every, least))


def named(runs: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of the runs that are named, or whose names begin with a name and _."""
    names = list(names)
    return [run for run in runs if any(run == name or run.startswith(f"{name}_") for name in names)]

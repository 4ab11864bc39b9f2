"""The sections of params.yaml as frozen objects. No number that changes a result has a default here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eosrepro.config.members import (
    DataMember,
    Diagnoses,
    LossMember,
    Model,
    Observations,
    OptimizerMember,
    ProblemMember,
)
from eosrepro.config.values import Positive, Section, StepSize, Text
from eosrepro.config.words import complaint
from eosrepro.core.fractional import Fractional
from eosrepro.core.schedules import share_of
from eosrepro.core.types import Seed
from eosrepro.data._preprocessing import NamedScale, Standardise, Statistics

Numbers = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]


class PixelRange(Section):
    """The pixel value that becomes 0 and the one that becomes 1."""

    zero: float
    one: float

    @model_validator(mode="after")
    def _spans_something(self) -> PixelRange:
        if self.zero == self.one:
            raise complaint(f"zero and one are both {self.zero:g}, should differ")
        return self


Scale = Annotated[
    Annotated[NamedScale, Tag("[name]")] | Annotated[PixelRange, Tag("[range]")],
    Discriminator(lambda raw: "[range]" if isinstance(raw, (dict, PixelRange)) else "[name]"),
]


class ChannelStatistics(Section):
    """Given means and deviations, one a channel, of images scaled as `scale` says."""

    mean: Numbers
    deviation: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=1)] | None = None
    """None where channels are centred and keep their scale."""


OfWhat = Annotated[
    Annotated[Statistics, Tag("[name]")] | Annotated[ChannelStatistics, Tag("[given]")],
    Discriminator(lambda raw: "[given]" if isinstance(raw, (dict, ChannelStatistics)) else "[name]"),
]


class Preprocessing(Section):
    """From uint8 pixels to the inputs of the network."""

    scale: Scale
    """To [0, 1], to [−1, 1], left at 0..255, or by two pixel values of your own."""
    standardise: Standardise
    statistics: OfWhat
    """Means and deviations of the images trained on, of all of the source, or given ones."""

    @model_validator(mode="after")
    def _given_statistics_are_used(self) -> Preprocessing:
        if isinstance(self.statistics, ChannelStatistics):
            deviation = self.statistics.deviation
            if self.standardise not in ("per_channel", "centre_per_channel"):
                raise complaint(
                    f"statistics are given for each channel, and standardise is {self.standardise}: it should be "
                    "per_channel or centre_per_channel"
                )
            if (deviation is None) != (self.standardise == "centre_per_channel"):
                say = "leave deviation out" if deviation else "write deviation beside mean"
                raise complaint(f"statistics: standardise is {self.standardise}, so {say}")
        return self


class Profile(Section):
    """The data and the run lengths: all in which the quick run and the paper's differ."""

    data: DataMember
    preprocessing: Preprocessing | None = None
    """Of images."""
    max_steps: Positive
    """Caps stop.max_steps of every network."""
    max_epochs: Positive
    """The same for an optimizer whose iterations are epochs."""
    snapshot_every: Positive
    """Least distance of snapshots of every network: a snapshot takes 4 bytes a parameter of disk."""
    snapshot_every_epochs: Positive
    """The same for an optimizer whose iterations are epochs."""
    published: bool
    """Lay the published curves under ours, and judge claims about the paper's own data and length."""

    @property
    def made_with(self) -> dict[str, Any]:
        """All that determines the data, ready for JSON."""
        return self.model_dump(mode="json", include={"data", *(["preprocessing"] if self.preprocessing else [])})


class Compute(Section):
    """Where and how accurately networks are computed. Problems are always float64 on the CPU."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "float64"]
    threads: Annotated[int, Field(gt=0, le=1024)]
    """Past the edge, float32 trajectories depend on it."""
    chunk_size: Positive
    """Examples in memory at once."""
    reduce_inputs: bool = False
    """Train a network that begins with a linear layer in the row space of its inputs, which is exact and has fewer
    numbers, where there are fewer examples than inputs and the steps of the optimizer are sums of gradients."""
    krylov: Literal["sketch", "bfloat16", "auto"] = "sketch"
    """Where a sharpness starts: at the eigenvectors of the Hessian of a tenth of the examples, or from there at those
    of all of them, by products in bfloat16; `auto`: in bfloat16 where the processor is fast at it. It is found by
    products in `dtype` then, to its `rtol` in any case."""

    @property
    def of_training(self) -> dict[str, Any]:
        """All of it that a training depends on, ready for JSON."""
        return self.model_dump(mode="json", exclude={"krylov"}, exclude_defaults=True)

    @property
    def of_diagnostics(self) -> dict[str, Any]:
        """The same of a diagnostic."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Mlflow(Section):
    """How runs are shown in MLflow; changes no result."""

    experiment: Text
    paper: Text | None = None
    """What is reproduced, in short: with the `source` of its claims, the tag `reproduction` of a run."""
    window: Positive
    """Iterations over which minimum, mean and maximum of an oscillating series are logged."""


class Schedule(Section):
    """How the step size changes along the run, for any optimizer; an iteration is an epoch for one with minibatches."""

    warm_up: Annotated[int, Field(ge=0)] = 0
    """Iterations in which it rises from η/warm_up to η, in equal steps."""
    drops: dict[Annotated[int, Field(gt=0)], Annotated[float, Fractional()]] = Field(default_factory=dict)
    """From this iteration on → it is η times this: 1/2, whatever it was before."""

    def factor(self, step: int) -> float:
        """The step size at an iteration, as a share of η."""
        return share_of(step, warm_up=self.warm_up, drops=self.drops)

    @model_validator(mode="after")
    def _changes_something(self) -> Schedule:
        if not self.warm_up and not self.drops:
            raise complaint("changes nothing: write warm_up or drops, or leave it out")
        return self


class StopSetting(Section):
    """When a run ends: at whichever comes first."""

    max_steps: Positive
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Training accuracy to reach, of a network."""
    loss_above: Annotated[float, Field(gt=0)] | None = None
    """A loss above this counts as divergence."""


class Setting(Section):
    """What one run is: a network on the data of the profile, or a problem, which is a function with a start."""

    model: Model | None = None
    loss: LossMember | None = None
    seed: Seed | None = None
    """Of the initial weights."""
    problem: ProblemMember | None = None
    start: Numbers | None = None
    """θ₀ of a problem."""
    optimizer: OptimizerMember
    step_size: StepSize
    schedule: Schedule | None = None
    stop: StopSetting
    snapshot_every: Positive = 1
    """Iterations; diagnostics look at snapshots."""
    observe: Observations = Field(default_factory=dict)
    """What else is recorded at every iteration, by name."""
    diagnose: Diagnoses = Field(default_factory=dict)
    """Diagnostics beside those of all experiments, by name."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Setting:
        given = {key for key in (*OF_NETWORK, *OF_PROBLEM) if getattr(self, key) is not None}
        if given not in (OF_NETWORK, OF_PROBLEM):
            found = f"holds {', '.join(sorted(given)) or 'neither'}"
            raise complaint(
                f"{found}: it should hold model, loss and seed (a network), or problem and start (a function)"
            )
        late = [at for at in (self.schedule.drops if self.schedule else {}) if at >= self.stop.max_steps]
        if late:
            found = f"schedule.drops: the run ends at iteration {self.stop.max_steps} (stop.max_steps)"
            raise complaint(f"{found}, and the drop at {min(late)} would change nothing")
        if self.problem and self.stop.accuracy is not None:
            raise complaint("stop.accuracy: a problem has no examples to be accurate on")
        return self


OF_NETWORK, OF_PROBLEM = {"model", "loss", "seed"}, {"problem", "start"}

"""The sections of params.yaml as frozen objects. No number that changes a result has a default here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eosrepro.config.members import DataMember, DiagnosticMember, LossMember, Model, OptimizerMember, ToyMember
from eosrepro.config.values import Folder, Positive, Section, StepSize, Text
from eosrepro.config.words import complaint
from eosrepro.core.types import Seed
from eosrepro.data._preprocessing import NamedScale, Standardise, Statistics


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


class Preprocessing(Section):
    """From uint8 pixels to the inputs of the network."""

    scale: Scale
    """To [0, 1], to [−1, 1], left at 0..255, or by two pixel values of your own."""
    standardise: Standardise
    statistics: Statistics
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

    @property
    def made_with(self) -> dict[str, Any]:
        """All that determines the data, ready for JSON."""
        return self.model_dump(mode="json", include={"data", "preprocessing"})


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
            raise complaint(f"asks for k = {self.k} eigenvalues in max_products = {self.max_products} products")
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

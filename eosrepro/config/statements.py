"""A published statement as a statistic of one run, and the bound that decides it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eosrepro.config.values import Point, Section, Text
from eosrepro.config.words import complaint


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
            raise complaint("should hold either from and/or to, or last")
        if isinstance(self.from_, int) and isinstance(self.to, int) and self.from_ > self.to:
            raise complaint(f"holds no step: from {self.from_} is after to {self.to}")
        return self


class Bound(Section):
    """Where the measured value must lie for the claim to hold, ends included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise complaint("should hold min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise complaint(f"holds for nothing: min {self.min:g} is above max {self.max:g}")
        return self


STATISTICS_OF_TWO = ("correlation", "largest_difference", "ratio")  # quantities
BY_NEXT_GRADIENT = "relative_progress_by_next_gradient"
FACTS_OF_A_RUN = ("onset", "run_length", "run_length_times_step_size", "diverged")  # whatever quantity and window


class Statistic(Section):
    """One statistic of one quantity of a run: see `verdicts.statistics`."""

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
        "slope",
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
    """Threshold for first_above and first_outside; for ratio, only steps where `against` exceeds it count."""
    against: str | None = None
    """Another quantity, of correlation, largest_difference and ratio."""
    beside: str | None = None
    """The run that `against` is of; None: the same run."""
    window: Window | None = None
    """None: the whole run."""

    @model_validator(mode="after")
    def _has_what_the_statistic_takes(self) -> Statistic:
        if self.level is not None and self.statistic not in ("first_above", "first_outside", "ratio"):
            found = f"holds a level, which is for first_above, first_outside and ratio, not for {self.statistic}"
            raise complaint(found)
        if (self.against is None) == (self.statistic in STATISTICS_OF_TWO):
            with_or_without = "no `against`" if self.against is None else "`against`"
            raise complaint(f"holds {with_or_without}, which is for {', '.join(STATISTICS_OF_TWO)} and for them alone")
        if self.beside is not None and self.against is None:
            raise complaint("holds `beside`, the run that `against` is of, and no `against`")
        if self.level is None and self.statistic == "first_outside":
            raise complaint("holds no level, and first_outside needs one")
        if self.level is None and self.statistic == "first_above" and self.relative_to is None:
            raise complaint("holds neither level nor relative_to: threshold, and first_above needs one of them")
        if self.window is not None and self.statistic in FACTS_OF_A_RUN:
            raise complaint(f"holds a window, and {self.statistic} is of the whole run")
        if self.relative_to is not None and self.statistic in (*FACTS_OF_A_RUN, *STATISTICS_OF_TWO, "relation_error"):
            raise complaint(f"holds relative_to, and {self.statistic} has no unit")
        return self


class Claim(Statistic):
    """A published statement as a statistic of one run and the bound that decides it."""

    claim: Text
    """In words, in which {step_size} stands for that of the run."""
    source: Text
    """Figure, experiment or theorem of the paper."""
    statement: str
    """Its name in claims.yaml."""
    run: str
    bound: Bound
    published: float | None = None
    needs: Literal["published"] | None = None
    """Only meaningful on the paper's data and length."""

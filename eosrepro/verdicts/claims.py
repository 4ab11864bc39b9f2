"""From recorded runs to a verdict on each published claim."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eosrepro.config.statements import Bound, Claim
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.runs import Record
from eosrepro.verdicts.statistics import UndefinedError, measured

Judgement = Literal["holds", "fails", "not applicable"]
LEGEND = (
    "A claim holds if what was measured lies within its bound. It is not applicable "
    "where the run does not define the number, or where only the paper's own data and run lengths could tell"
)
JUDGEMENTS: tuple[Judgement, ...] = ("holds", "fails", "not applicable")


@dataclass(frozen=True)
class Verdict:
    """What one run says about one claim."""

    id: str
    claim: str
    source: str  # figure, experiment or theorem of the paper
    run: str
    published: float | None  # the paper's number
    measured: float | None  # None where the run does not define it
    difference: float | None  # (measured - published) / |published|
    low: float | None  # the bound
    high: float | None
    verdict: Judgement
    reason: str  # what the number was taken from, or why there is none


def check(
    name: str,
    claim: Claim,
    record: Record | None,
    *,
    at_paper_scale: bool,
    cut_off: bool = False,
    unfit: str | None = None,
    beside: Record | None = None,
) -> Verdict:
    """Judge one claim by the run it is about.

    A number outside its bound fails, at every scale. A number that the run does not define (no onset, cut off before
    the window or before its accuracy) is "not applicable" where the run is smaller than the paper's; else it fails.
    One that was not measured yet is "not applicable", with the command that measures it.

    Args:
        name: key of the claim, <run>_<statement>.
        claim: what is claimed.
        record: the run `claim.run`; None if it has not been run.
        at_paper_scale: the run has the paper's problem and length: a problem, or a network in a profile with
            `published: true`.
        cut_off: the run was ended earlier than its experiment says, as by the profile.
        unfit: why it can't be said of this run, as one about GD of another optimizer.
        beside: the run `claim.beside`.

    Raises:
        ConfigError: no such quantity or statistic.
    """

    def verdict(judgement: Judgement, reason: str, value: float | None = None) -> Verdict:
        return Verdict(
            id=name,
            claim=claim.claim,
            source=claim.source,
            run=claim.run,
            published=claim.published,
            measured=value,
            difference=_difference(value, claim.published),
            low=claim.bound.min,
            high=claim.bound.max,
            verdict=judgement,
            reason=reason,
        )

    if unfit:
        return verdict("not applicable", unfit)
    if claim.needs == "published" and not at_paper_scale:
        return verdict("not applicable", "needs the paper's data and run length (a profile with `published: true`)")
    for run, found in ((claim.run, record), (claim.beside, beside)):
        if run is not None and found is None:
            return verdict("not applicable", f"{run} has not been run: `dvc repro` runs it")
    assert record is not None
    try:
        value, basis = measured(record, claim, beside)
    except StoreError as missing:
        return verdict("not applicable", str(missing))
    except UndefinedError as missing:
        return verdict("fails" if at_paper_scale else "not applicable", str(missing))
    except ConfigError as error:
        raise ConfigError(f"claims.{name}: {error}") from None
    if claim.statistic == "diverged" and not value and record.summary["reason"] == "max_steps" and cut_off:
        return verdict("not applicable", f"{basis}, cut off before it could tell")
    return verdict("holds" if _in_bound(value, claim.bound) else "fails", basis, value)


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Every verdict, by the key of its claim."""
    return {verdict.id: dataclasses.asdict(verdict) for verdict in verdicts}


def from_json(written: Mapping[str, Any], path: Path) -> list[Verdict]:
    """The verdicts that `as_json` wrote to a file.

    Raises:
        StoreError: they are of another version of this package.
    """
    try:
        return [Verdict(**verdict) for verdict in written.values()]
    except TypeError:
        raise StoreError(f"{path} does not hold verdicts as this version writes them: run `eosrepro verify`") from None


def _in_bound(value: float, bound: Bound) -> bool:
    return (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)


def _difference(measured: float | None, published: float | None) -> float | None:
    return (measured - published) / abs(published) if measured is not None and published else None


def counts(verdicts: Sequence[Verdict]) -> Mapping[str, int]:
    """The number of verdicts of each kind."""
    found = Counter(verdict.verdict for verdict in verdicts)
    return {kind: found[kind] for kind in JUDGEMENTS}

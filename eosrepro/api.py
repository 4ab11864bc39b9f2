"""eosrepro as a library, on an objective of your own; `eosrepro/__init__.py` lists the names."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eosrepro import catalog
from eosrepro.core import training
from eosrepro.core.objective import Objective
from eosrepro.core.types import Observation, Optimizer, Position, Row, Stop
from eosrepro.errors import ConfigError
from eosrepro.records.runs import Measured, Origin, Record, load_record
from eosrepro.records.snapshots import load_snapshots
from eosrepro.stages.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, repr=False)
class Run:
    """A run, made by `minimise` or loaded from files, and what was found on it."""

    record: Record  # what figures are drawn from
    kept: Sequence[Position] = ()  # iterates, with the state of the optimizer; of a loaded run they are on disk
    objective: Objective | None = None  # None for a loaded run
    optimizer: Optimizer | None = None

    def __repr__(self) -> str:
        last = self.table.iloc[-1]
        return f"Run: {self.record.ended} {self.record.origin.counts}, loss {last['loss']:.4g}"

    @property
    def table(self) -> pd.DataFrame:
        """A row an iteration: loss, relative_progress, directional_smoothness, ..., and what was observed."""
        return self.record.trajectory

    @property
    def snapshots(self) -> Iterable[Position]:
        """The iterates that were kept: `step` and `theta`, (P,).

        Of a loaded run that was trained with `compute.reduce_inputs` they are in the row space of its inputs, where θ
        is shorter: `eosrepro weights` writes the parameters of the network.
        """
        return self.kept or load_snapshots(self.record.snapshots)

    @property
    def theta(self) -> Tensor:
        """Where it ended, (P,); of a loaded run the last snapshot, in its coordinates: see `snapshots`."""
        *_, last = self.snapshots
        return last.theta

    def sharpness(
        self, *, k: int = 1, rtol: float = 3e-3, max_products: int = 200, audit_every: int = 10, seed: int = 0
    ) -> pd.DataFrame:
        """The `k` largest eigenvalues of the Hessian at each snapshot, to the relative accuracy `rtol`.

        See `eosrepro/diagnostics/sharpness.py`.
        """
        options = {"k": k, "rtol": rtol, "max_products": max_products, "audit_every": audit_every, "seed": seed}
        return self.diagnose("sharpness", **options)

    def diagnose(self, name: str, **options: Any) -> pd.DataFrame:
        """What the diagnostic of that name finds on the snapshots, a row each. Figures then show it.

        Of a loaded run it is what has been found before.

        Args:
            options: of the function in `eosrepro/diagnostics/<name>.py`. Those that `sharpness` has too are as there,
                unless you say otherwise. Where it holds this run to another one, as `distance` does, `to` is that
                `Run`.

        Raises:
            LookupError: there is no such diagnostic.
            ConfigError: it needs what this run has not: minibatches, steps along −η∇f, or its objective; or an option
                is missing, or is none of it.
        """
        look = catalog.find("diagnostics", name)
        if self.objective is None or self.optimizer is None:
            if name not in self.record.measured:
                raise ConfigError(
                    f"{name} was not found on this run before it was saved, and its objective was not saved"
                )
            return self.record.measured[name].table
        takes = inspect.signature(look).parameters
        given = {key: value for key, value in self._facts().items() if key in takes and key not in options}
        if lacking := [key for key, value in given.items() if value is None]:
            raise ConfigError(f"{name} is about runs with {lacking[0]}, and the optimizer of this run has none")
        options = _complete(name, look, options, {*given, "other"})
        if "other" in takes:
            options = self._beside(**options)
        rows = [_as_mapping(row) for row in look(self.objective, self.kept, **given, **options)]
        said = {key: value for key, value in options.items() if key not in ("other", "test")}
        self.record.measured[name] = Measured(pd.DataFrame(rows), said)  # type: ignore[index]  # made by `minimise`
        return self.record.measured[name].table

    def _beside(self, *, to: object, **options: Any) -> dict[str, Any]:
        """The same options with the snapshots of the run `to` at the times of this one.

        Iterations of both are as long where the step size of one of them is not known.
        """
        if not isinstance(to, Run):
            raise ConfigError(f"to is {to!r}: it should be the run itself, an `eos.Run`")
        kept = {at.step: at for at in to.snapshots}
        own, its = float(self.record.step_size), float(to.record.step_size)
        ratio = own / its if own and its else 1.0

        def other(step: int) -> Position | None:
            at = step * ratio
            return kept.get(round(at)) if abs(at - round(at)) <= 1e-9 * at else None

        return {"to": to.record.name, "other": other, **options}

    def _facts(self) -> dict[str, Any]:
        """What a diagnostic may ask for beside its options; None where this run has none."""
        assert self.optimizer is not None
        step_size = float(self.record.step_size) or None
        return {"optimizer": self.optimizer, "step_size": step_size, "minibatches": self.optimizer.minibatches}


def minimise(
    objective: Objective,
    *,
    optimizer: Optimizer,
    steps: int,
    keep_every: int | None = None,
    start: Tensor | None = None,
    accuracy: float | None = None,
    loss_above: float | None = None,
    observe: Sequence[Observation] = (),
) -> Run:
    """Take `steps` steps, of which an optimizer with minibatches takes an epoch each.

    Args:
        keep_every: an iterate of so many is kept, for diagnostics; None: the first. The last always is.
        start: θ₀, (P,); None: that of the objective.
        accuracy: on the examples, in 0..1, at which it ends earlier.
        loss_above: a loss that counts as divergence; None: only one that is not finite does.
        observe: functions of an iterate and the next one, `Visited` both, that return numbers by name, as a dataclass
            or a mapping. They become columns of the table.

    Raises:
        DataError: loss or gradient is not finite at the start.
        ConfigError: the loss at the start counts as divergence already, or two columns would have the same name; or
            the optimizer is of another library.
    """
    _refuse_other(optimizer)
    kept: list[Position] = []
    rows: list[Row] = []
    last: Position | None = None

    def keep(at: Position) -> None:
        nonlocal last
        last = at
        if at.step == 0 or (keep_every and at.step % keep_every == 0):
            kept.append(at)

    theta, stop = objective.start if start is None else start, Stop(steps, accuracy, loss_above)
    shown = progress("minimise", steps) if sys.stderr.isatty() else nullcontext(lambda _step, **_quantities: None)
    with shown as report:
        for row in training.minimise(objective, theta, optimizer, stop=stop, on_iterate=keep, observe=observe):
            rows.append(row)
            report(row.step, loss=row.loss, RP=row.relative_progress, L=row.directional_smoothness)
    assert last is not None
    record = Record(
        name="run",
        step_size=_step_size(optimizer, rows[0]),
        trajectory=pd.DataFrame([row.columns for row in rows]),
        measured={},
        summary=dataclasses.asdict(training.outcome(rows[-1], stop)),
        origin=Origin(
            settings={},
            data="",
            data_sha256=None,
            counts="epochs" if optimizer.minibatches else "iterations",
            fingerprint="",
            threshold_formula=optimizer.threshold_formula,
            preconditioned=optimizer.preconditioned,
        ),
        snapshots=Path(),
    )
    return Run(record, kept if last is kept[-1] else [*kept, last], objective, optimizer)


def load(folder: str | Path) -> Run:
    """A run that `eosrepro train` wrote, with what diagnostics found on it: `load("stages/train/exp3/exp3_2over30")`.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return Run(load_record(Path(folder)))


def plot(
    runs: Run | Mapping[str, Run],
    panels: Sequence[str],
    *,
    title: str = "",
    limits: Mapping[str, tuple[float, float]] | None = None,
    in_thresholds: bool = False,
) -> Figure:
    """Columns of the tables of a run, or of several by their labels, over its iterations.

    Args:
        panels: the columns, from top to bottom: of the run's table, or of what a diagnostic found on it.
        limits: panel → (lowest, highest) value shown.
        in_thresholds: sharpness and L in units of the stability threshold of each run.

    Raises:
        ConfigError: a run has no such column.
    """
    from eosrepro.figures.trajectories import trajectories

    labelled = {"run": runs} if isinstance(runs, Run) else runs
    for label, run in labelled.items():
        for panel in panels:
            _refuse_unknown(label, run, panel)
    figure, _ = trajectories(
        [replace(run.record, name=label) for label, run in labelled.items()],
        "; ".join(sorted({run.record.origin.data for run in labelled.values()} - {""})),
        {},
        title=title,
        runs={label: label for label in labelled},
        panels=[*panels],
        limits=dict(limits) if limits else None,
        units="threshold" if in_thresholds else "absolute",
    )
    return figure


_COMMON = {
    key: parameter.default
    for key, parameter in inspect.signature(Run.sharpness).parameters.items()
    if parameter.default is not parameter.empty
}
_LIKE = {"test": "eos.Objective.of(model, loss, x_test, y_test)", "to": "another_run"}  # how an option is written


def _complete(
    name: str, look: Callable[..., Any], options: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    """The options of a diagnostic with those that `sharpness` has defaults for; what it is given needs no option."""
    takes = inspect.signature(look).parameters
    asked = {key: each for key, each in takes.items() if each.kind is each.KEYWORD_ONLY and key not in given}
    anything = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    if unknown := [] if anything else [key for key in options if key not in asked]:
        near = catalog.did_you_mean(unknown[0], [*asked])
        raise ConfigError(f"{name} has no option {unknown[0]!r}{near} (there are: {', '.join(asked) or 'none'})")
    needed = [key for key, each in asked.items() if each.default is each.empty and key not in options]
    if missing := [key for key in needed if key not in _COMMON]:
        call = ", ".join([repr(name), *(f"{key}={_LIKE.get(key, '...')}" for key in missing)])
        them = f"the option{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        raise ConfigError(f"{name} needs {them}: diagnose({call}); see the module {look.__module__}")
    return {key: _COMMON[key] for key in needed} | {**options}


def _refuse_other(optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer is of the type {type(optimizer).__qualname__}: it should be one of eosrepro with a step size, "
            f"as eos.gd(0.1) (there are: {', '.join(catalog.names('optimizers'))})"
        )


def _refuse_unknown(label: str, run: Run, panel: str) -> None:
    tables = [run.table, *(measured.table for measured in run.record.measured.values())]
    known = [str(column) for table in tables for column in table if column != "step"]
    if panel in known:
        return
    finds = [each for each in catalog.names("diagnostics") if panel in catalog.quantities(each)]
    if finds:
        raise ConfigError(f"{label} has no {panel!r} yet: call its method diagnose({finds[0]!r})")
    raise ConfigError(f"{label} has no {panel!r}{catalog.did_you_mean(panel, known)} (there are: {', '.join(known)})")


def _step_size(optimizer: Optimizer, first: Row) -> Fraction:
    """η where the threshold says it, which is where the steps are along −η∇f; else 0, which makes nothing of it."""
    return Fraction(2 / first.stability_threshold) if optimizer.takes_gradient_steps else Fraction(0)


def _as_mapping(row: Any) -> Mapping[str, Any]:
    return row if isinstance(row, Mapping) else dataclasses.asdict(row)

"""Stage `track`, and what the stages before it show in MLflow of their own accord, where they take long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.types import Dataset, Row
from eosrepro.records import store
from eosrepro.records.places import FIGURES, diagnostics_folder, train_folder
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.recorded import is_trained, provenance_now, provenance_of, recorded, recorded_runs
from eosrepro.stages.verify import verdicts_on
from eosrepro.verdicts import characteristics
from eosrepro.views.mlflow import description
from eosrepro.views.mlflow.live import LiveRun
from eosrepro.views.mlflow.sync import About, describe, sync_run

SHORT = 30.0  # seconds


def track(config: Config, name: str | None = None) -> bool:
    """Stage `track`: bring MLflow up to date from the recorded files of one run, or of all with figures and verdicts.

    Returns:
        Whether MLflow now has everything.
    """
    runs = config.select(name) if name else [run for run in config.runs.values() if is_trained(run)]
    provenance, names = provenance_now(runs), {run.name for run in runs}
    figures = [figure for figure, entry in config.drawn.items() if entry.runs.keys() <= names]
    if name is None:
        verdicts = verdicts_on(config, recorded_runs(config.runs.values()), config.runs)
        if not describe(config.mlflow.experiment, description.experiment(config.mlflow.paper, verdicts)):
            return False  # MLflow is away: each run would wait for it again
    done = [
        _sync(config, run, provenance if run.has_examples else None, figures=figures)
        for run in reversed(runs)  # MLflow lists the newest first
    ]
    return all(done)


def mlflow_view(config: Config) -> dict[str, Any]:
    return {"experiment": config.mlflow.experiment, "window": config.mlflow.window, "profile": config.profile}


def reproduction_tag(config: Config, name: str) -> dict[str, str]:
    """The tag `reproduction` of a run: the paper, and what in it the claims about this run are about."""
    sources = {claim.source for claim in config.claims.values() if claim.run == name}
    return {"reproduction": description.reproduction(config.mlflow.paper, sources)}


def _colour(config: Config, name: str) -> str | None:
    """The colour that a run has in the first figure that draws it; None where none does."""
    from matplotlib.colors import to_hex

    from eosrepro.figures._style import colours

    for figure in config.drawn.values():
        if name in figure.runs:
            return to_hex(colours(figure.runs)[name])
    return None


def _about(config: Config, run: Run, record: Record, figures: Collection[str]) -> About:
    name = run.name
    verdicts = verdicts_on(config, {name: record}, [name])
    trained, measured = train_folder(run.experiment, name), diagnostics_folder(run.experiment, name)
    drawn = [FIGURES / figure for figure in figures if name in config.drawn[figure].runs]
    tables = [trained / "trajectory.csv", *(measured / f"{diagnostic}.csv" for diagnostic in record.measured)]
    summary = characteristics.summary(record)
    of = reproduction_tag(config, name)
    return About(
        tags={**of, **description.counts(verdicts)},
        description=description.run(record.origin.settings, of["reproduction"], record, summary, verdicts),
        colour=_colour(config, name) if drawn else None,
        summary=summary,
        times=store.times(record.origin.fingerprint),
        artifacts={
            "tables": tables,
            **{f"figures/{folder.name}": sorted(folder.iterdir()) for folder in drawn if folder.exists()},
        },
    )


def _is_worth_mlflow(started: float) -> bool:
    # To load MLflow takes seconds. Where DVC runs the pipeline, short stages leave it to the last one, `track`.
    return "DVC_STAGE" not in os.environ or time.monotonic() - started > SHORT


def live_log(open_run: Callable[[], LiveRun], started: float) -> Callable[[Row], None]:
    """Take the rows of a training, and hand them to its MLflow run as soon as that is worth opening."""
    waiting: list[Row] = []
    opened: list[LiveRun] = []

    def observe(row: Row) -> None:
        waiting.append(row)
        if not opened and _is_worth_mlflow(started):
            opened.append(open_run())
        if opened:
            for each in waiting:
                opened[0].observe(each)
            waiting.clear()

    return observe


def sync_unless_short(config: Config, run: Run, data: Dataset | None, started: float) -> None:
    if _is_worth_mlflow(started):
        _sync(config, run, provenance_of(data))


def _sync(config: Config, run: Run, provenance: Mapping[str, Any] | None, *, figures: Collection[str] = ()) -> bool:
    record = recorded(run)
    if other := outdated.outdated(run, record):
        print(f"Warning: {run.name} was {other}: run `dvc repro`", file=sys.stderr)
        return False
    about = _about(config, run, record, figures)
    return sync_run(run.name, record.origin.settings, provenance, record, about=about, **mlflow_view(config))

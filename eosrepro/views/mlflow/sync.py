"""A run in MLflow brought up to date from what is recorded of it.

Train and diagnose of one experiment share one flat MLflow run, found by its tag `fingerprint`. `sync_run` compares the
MLflow run with the recorded tables, point by point:

* what is recorded and not yet logged is logged, so a re-run adds nothing and an interrupted run is completed;
* where anything logged is not in the record (sharpness measured with other settings, another `mlflow.window`, other
  numbers from another machine), the run goes to MLflow's bin and a new one takes its place: MLflow cannot take back
  single points, and two series under one name would lie. So the settings of the sharpness are no part of the
  fingerprint; they are parameters of the run.

Nothing here raises because MLflow is away: the first failure prints one line, and `eosrepro track` catches up later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosrepro.records.files import sha256
from eosrepro.records.identity import digest
from eosrepro.records.runs import Measured, Record
from eosrepro.views.mlflow.connection import (
    EXPERIMENT_TAG_LENGTH,
    KIND,
    TRAINING,
    Store,
    WarnAndContinue,
    lock_store,
    open_store,
)
from eosrepro.views.mlflow.points import Point, measured_points, summary_points, trajectory_points
from eosrepro.views.mlflow.tags import (
    COLOUR,
    DESCRIPTION,
    is_machine_tag,
    mlflow_name,
    outcome_tags,
    run_params,
    run_tags,
    shortened,
)
from eosrepro.views.mlflow.writing import create_run, find_run, is_complete, log_data, log_params, log_points, set_tags

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class About:
    """What is shown of a run beside its record."""

    tags: Mapping[str, str] = field(default_factory=dict)  # one with no text is taken away
    description: str = ""  # Markdown
    colour: str | None = None  # of its curves, #RRGGBB; None: as it is
    summary: Mapping[str, float] = field(default_factory=dict)  # one number a run; NaN where it has none
    artifacts: Mapping[str, Sequence[Path]] = field(default_factory=dict)  # folder in MLflow → files
    times: tuple[float, float] | None = None  # begin and end of its training, seconds since 1970; None: not known


def sync_run(
    name: str,
    resolved: Mapping[str, Any],
    data_provenance: Mapping[str, Any] | None,
    record: Record,
    *,
    experiment: str,
    window: int,
    profile: str,
    about: About = About(),
) -> bool:
    """Make the MLflow run of a recorded run equal to the record; see the head of this file.

    Args:
        name: name of the run in params.yaml.
        resolved: `Run.settings`.
        data_provenance: stages/data/provenance.json; None for a problem.
        record: what is on disk.
        experiment: MLflow experiment, from `mlflow.experiment`.
        window: steps a windowed value covers, from `mlflow.window`.
        profile: name of the profile, for a tag.
        about: what is shown beside the record.

    Returns:
        Whether MLflow has it all.
    """
    with WarnAndContinue():
        store = open_store(experiment)
        params = run_params(resolved, data_provenance, window, record.measured) | _threshold(record)
        points = [*trajectory_points(record, window), *measured_points(record), *summary_points(about.summary)]
        shown = {**about.tags, DESCRIPTION: about.description, **({COLOUR: about.colour} if about.colour else {})}
        tags = run_tags(name, resolved, data_provenance, profile) | outcome_tags(record.summary) | shown
        files = [[folder, path.name, sha256(path)] for folder, paths in about.artifacts.items() for path in paths]
        # Set last: an interrupted sync does not count.
        synced = {"synced": digest([params, points, shown, files])[:12]}
        with lock_store(store.uri):
            run = find_run(store, tags["fingerprint"])
            if run and is_complete(run, synced, about.artifacts):
                return True
            missing = _missing(store, run, params, points, record.measured) if run else None
            if run and missing is None:
                store.client.delete_run(run.info.run_id)
                tags = {key: value for key, value in run.data.tags.items() if is_machine_tag(key)} | tags
            if run is None or missing is None:
                run, missing = create_run(store, name, tags, (about.times or [None])[0]), points
        run_id = run.info.run_id
        log_params(store, run_id, {key: value for key, value in params.items() if key not in run.data.params})
        log_data(store, run, data_provenance)
        log_points(store, run_id, missing)
        for folder, paths in about.artifacts.items():
            for path in paths:
                store.client.log_artifact(run_id, str(path), folder)
        if run.info.status != "FINISHED":
            ended = None if about.times is None else round(1000 * about.times[1])
            store.client.set_terminated(run_id, "FINISHED", end_time=ended)
        set_tags(store, run, tags | synced)
        return True
    return False


def _threshold(record: Record) -> dict[str, str]:
    """The stability threshold as a parameter, where it is one number."""
    known = record.thresholds.dropna().unique()
    return {"stability_threshold": str(known[0])} if len(known) == 1 else {}


def describe(experiment: str, description: str) -> bool:
    """Write the description of an MLflow experiment, in Markdown, where it has another.

    Returns:
        Whether MLflow has it.
    """
    with WarnAndContinue():
        store = open_store(experiment)
        tags = store.client.get_experiment(store.experiment_id).tags
        shown = shortened(description, EXPERIMENT_TAG_LENGTH)
        for key, value in {DESCRIPTION: shown, KIND: TRAINING}.items():
            if tags.get(key) != value:
                store.client.set_experiment_tag(store.experiment_id, key, value)
        return True
    return False


def _is_recorded(name: str, measured: Mapping[str, Measured]) -> bool:
    """Whether a metric is of what is on record: the trajectory, or a diagnostic that was measured."""
    group, slash, quantity = name.partition("/")
    if group == "curvature" or (group == "summary" and quantity.startswith("sharpness")):
        return "sharpness" in measured
    if group == "diagnostics":
        return any(quantity in map(mlflow_name, map(str, found.table)) for found in measured.values())
    return not slash or group in ("train", "windowed", "summary")


def _missing(
    store: Store, run: Run, params: Mapping[str, str], points: Sequence[Point], measured: Mapping[str, Measured]
) -> list[Point] | None:
    """Points still to log; None if MLflow holds anything that the record does not."""
    names = {point.name for point in points}
    for name in run.data.metrics:
        if _is_recorded(name, measured) and name not in names:
            return None
    if any(run.data.params.get(key, value) != value for key, value in params.items()):
        return None
    open_points = {(point.name, point.step): point.value for point in points}
    for name in names & run.data.metrics.keys():
        for metric in store.client.get_metric_history(run.info.run_id, name):
            recorded = open_points.pop(
                (name, metric.step), None
            )  # None the second time too: no point may be there twice
            if recorded is None or not isclose(metric.value, recorded, rel_tol=1e-12):
                return None
    return [point for point in points if (point.name, point.step) in open_points]

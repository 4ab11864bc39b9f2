"""MLflow against a real SQLite store: what a person sees in the UI is what is on disk."""

from __future__ import annotations

import http.server
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import islice
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, Experiment, Metric, Run, ViewType

from eosrepro.core.types import Outcome, Position, Row
from eosrepro.errors import EosreproError
from eosrepro.records import identity
from eosrepro.records.identity import fingerprint
from eosrepro.records.places import train_folder
from eosrepro.records.runs import Measured, Origin, Record, load_record, save_run
from eosrepro.records.snapshots import save_snapshot
from eosrepro.views.mlflow import live as mlflow_live
from eosrepro.views.mlflow import writing
from eosrepro.views.mlflow.connection import (
    NO_FILE,
    NO_FOLDER,
    NO_HOME,
    NO_SERVER,
    QUIET_AND_QUICK,
    TOO_LONG,
    WarnAndContinue,
    connect,
    redacted,
    store_uri,
)
from eosrepro.views.mlflow.live import LiveRun
from eosrepro.views.mlflow.live import open_run as open_run_of_stage
from eosrepro.views.mlflow.server import check, serve
from eosrepro.views.mlflow.sync import About, describe, sync_run
from eosrepro.views.mlflow.tags import PARAM_LENGTH
from eosrepro.views.mlflow.writing import POINTS_A_REQUEST

NAME = "exp3_2over60"
RESOLVED: Mapping[str, Any] = {
    "name": NAME,
    "model": {"name": "mlp", "width": 200, "depth": 2, "activation": "tanh"},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "gd"},
    "step_size": "2/60",
    "seed": 0,
    "stop": {"max_steps": 300, "accuracy": 0.95, "loss_above": None},
    "data": {"name": "photo-patches", "n_examples": 1000},
    "compute": {"device": "cpu", "dtype": "float32", "threads": 1},
}
PROVENANCE: Mapping[str, Any] = {
    "label": "photo-patches",
    "n_examples": 1000,
    "n_outputs": 10,
    "sha256": "0123456789abcdef" * 4,
    "indices": "x" * 2000,
    "source": {"name": "photo-patches", "rule": "example i: class i mod 10"},
    "preprocessing": {"scale": "unit"},
}
SHARPNESS: Mapping[str, Any] = {"k": 1, "rtol": 1e-3, "seed": 0}
WINDOW = 4
SETTINGS: Mapping[str, Any] = {"experiment": "eosrepro", "window": WINDOW, "profile": "quick"}
LIVE: Mapping[str, Any] = {**SETTINGS, "preconditioned": False}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with no runs, in a folder whose name needs quoting, with no MLflow or DVC around it."""
    folder = tmp_path / "my project"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    WarnAndContinue._warned.clear()
    connect.cache_clear()
    yield folder
    for name in QUIET_AND_QUICK:  # set by the client for the rest of its process
        os.environ.pop(name, None)


def row(step: int, **changes: float) -> Row:
    """A loss that alternates between 1.5 and 0.5 around the edge of stability."""
    sign = 1 if step % 2 == 0 else -1
    values = {
        "loss": 1 + sign * 0.5,
        "accuracy": step / 100,
        "grad_norm": 0.1 + step,
        "update_dot_grad": 1.0,
        "update_dot_next_grad": -1.0,
        "update_sq_norm": 2.0,
        "relative_progress": sign * 0.25,
        "directional_smoothness": 60.0 + sign,
        "stability_threshold": 60.0,
    }
    return Row(step=step, **(values | changes))


def last_row(step: int) -> Row:
    steps = ("update_dot_grad", "update_dot_next_grad", "update_sq_norm", "relative_progress", "directional_smoothness")
    return row(step, **dict.fromkeys(steps, nan))


def rows(n_steps: int) -> list[Row]:
    return [*map(row, range(n_steps)), last_row(n_steps)]


def recorded(trajectory: list[Row], *, sharpness: Mapping[int, float] | None = None) -> Record:
    """The rows as they come back from disk."""
    outcome = Outcome("max_steps", trajectory[-1].step, trajectory[-1].loss, trajectory[-1].accuracy)
    place = train_folder("exp3", NAME)
    save_snapshot(Path("snapshots"), Position(0, torch.zeros(1), None))
    origin = Origin(RESOLVED, "photo-patches, N = 1,000", PROVENANCE["sha256"], "iterations", "of this training", "2/η")
    save_run(place, trajectory, outcome, origin, snapshots=Path("snapshots"))
    record = load_record(place)
    if not sharpness:
        return record
    table = pd.DataFrame({"step": list(sharpness), "sharpness": list(sharpness.values())})
    return replace(record, measured={"sharpness": Measured(table, SHARPNESS)})


def open_run(**changes: Any) -> LiveRun:
    return open_run_of_stage(NAME, RESOLVED, PROVENANCE, **{**LIVE, **changes})


def sync(record: Record, *, resolved: Mapping[str, Any] = RESOLVED, **changes: Any) -> bool:
    return sync_run(NAME, resolved, PROVENANCE, record, **{**SETTINGS, **changes})


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=store_uri())


def all_runs(view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    experiment = client().get_experiment_by_name("eosrepro")
    assert experiment is not None
    return list(client().search_runs([experiment.experiment_id], run_view_type=view))


def the_run() -> Run:
    (run,) = all_runs()
    return run


def series(name: str) -> list[tuple[int, float]]:
    """Every point that is stored, duplicates included, by step."""
    return sorted((metric.step, metric.value) for metric in client().get_metric_history(the_run().info.run_id, name))


def everything() -> dict[str, list[tuple[int, float]]]:
    return {name: series(name) for name in the_run().data.metrics}


# --- a run as MLflow shows it


def test_live_run_holds_every_row_once() -> None:
    with open_run() as live:
        for each in rows(10):
            live.observe(each)
    run = the_run()
    assert (run.info.run_name, run.info.status) == (NAME, "FINISHED")
    assert series("train/loss") == [(step, row(step).loss) for step in range(11)]
    assert series("train/directional_smoothness") == [(step, row(step).directional_smoothness) for step in range(10)]
    assert series("train/directional_smoothness_over_threshold")[0] == (0, 61 / 60)


def test_live_and_synced_run_are_the_same() -> None:
    record = recorded(rows(10))
    assert sync(record)
    from_record = everything()
    client().delete_run(the_run().info.run_id)
    with open_run() as live:
        for each in rows(10):
            live.observe(each)
    assert sync(record)
    assert everything() == from_record
    assert len(all_runs()) == 1


def test_windows_of_an_alternating_series() -> None:
    assert sync(recorded(rows(10)))
    # Steps 0-3 and 4-7 are whole windows; 8-10 is what is left, and step 10 has a loss but no step of its own.
    assert series("windowed/loss_min") == [(3, 0.5), (7, 0.5), (10, 0.5)]
    assert series("windowed/loss_max") == [(3, 1.5), (7, 1.5), (10, 1.5)]
    assert series("windowed/loss_mean") == [(3, 1.0), (7, 1.0), (10, pytest.approx(3.5 / 3))]
    assert series("windowed/relative_progress_mean") == [(3, 0.0), (7, 0.0), (10, 0.0)]
    assert series("windowed/directional_smoothness_max") == [(3, 61.0), (7, 61.0), (10, 61.0)]


def test_infinite_and_undefined_values_are_not_stored() -> None:
    trajectory = [row(0), row(1, loss=inf, relative_progress=-inf), row(2, grad_norm=nan), row(3), last_row(4)]
    with open_run() as live:
        for each in trajectory:
            live.observe(each)
    assert sync(recorded(trajectory))
    assert [step for step, _ in series("train/loss")] == [0, 2, 3, 4]
    assert [step for step, _ in series("train/grad_norm")] == [0, 1, 3, 4]
    assert [step for step, _ in series("train/relative_progress")] == [0, 2, 3]
    assert series("windowed/loss_max") == [(3, 1.5), (4, 1.5)]
    assert all(abs(value) < 1e300 for points in everything().values() for _, value in points)


def test_values_that_are_undefined_throughout_make_no_metric() -> None:
    assert sync(recorded([row(step, accuracy=nan) for step in range(5)]))  # a problem has no accuracy
    assert "train/accuracy" not in the_run().data.metrics


def test_parameters_and_tags() -> None:
    with open_run() as live:
        live.observe(row(0))
    run = the_run()
    params, tags = run.data.params, run.data.tags
    assert (params["model.width"], params["model.activation"], params["step_size"]) == ("200", "tanh", "2/60")
    assert float(params["step_size_float"]) == pytest.approx(1 / 30)
    assert params["dataset.sha256"] == PROVENANCE["sha256"]
    assert len(params["dataset.indices"]) == PARAM_LENGTH
    assert not any(key.startswith(("dataset.source", "dataset.preprocessing")) for key in params)
    assert tags["fingerprint"] == fingerprint(RESOLVED, PROVENANCE)
    assert (tags["profile"], tags["data"]) == ("quick", "photo-patches")
    assert tags["mlflow.source.name"] == "eosrepro train exp3_2over60"
    assert tags["machine.threads"] == "1"
    assert {"machine.device", "machine.torch", "code_version"} <= tags.keys()
    assert sync(recorded([row(0)]))
    assert float(the_run().data.params["stability_threshold"]) == 60
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("photo-patches", "01234567")
    source = json.loads(data.dataset.source)
    assert source == {
        "uri": "stages/data/dataset.safetensors",
        "sha256": PROVENANCE["sha256"],
        "preprocessing": {"scale": "unit"},
        "source": {"name": "photo-patches", "rule": "example i: class i mod 10"},
    }
    assert json.loads(str(data.dataset.profile)) == {"num_rows": 1000, "num_outputs": 10}
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]


def test_problem_without_data() -> None:
    problem = {
        "problem": {"name": "quadratic", "curvatures": [20.0, 1.0]},
        "optimizer": {"name": "gd"},
        "step_size": "2/39",
    }
    with open_run_of_stage("example1", problem, None, **LIVE) as live:
        live.observe(row(0))
    assert the_run().data.params["problem.curvatures"] == "[20.0, 1.0]"
    inputs = the_run().inputs
    assert inputs is None or not inputs.dataset_inputs


def test_a_run_lasts_as_long_as_its_training() -> None:
    assert sync(recorded(rows(3)), about=About(times=(1_000_000.25, 1_000_060.5)))
    assert (the_run().info.start_time, the_run().info.end_time) == (1_000_000_250, 1_000_060_500)


def test_the_threshold_of_a_preconditioned_method_is_that_of_the_effective_sharpness_alone() -> None:
    plain = recorded(rows(10), sharpness={0: 10.0, 5: 30.0})
    effective = pd.DataFrame({"step": [0, 5], "effective_sharpness": [30.0, 90.0]})
    origin = replace(plain.origin, preconditioned=True)
    measured = {**plain.measured, "effective_sharpness": Measured(effective, SHARPNESS)}
    assert sync(replace(plain, origin=origin, measured=measured))
    assert series("curvature/effective_sharpness_over_threshold") == [(0, 0.5), (5, 1.5)]
    assert (
        not {"curvature/sharpness_over_threshold", "train/directional_smoothness_over_threshold"} & everything().keys()
    )


def test_stage_of_dvc_is_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@exp3")
    assert sync(recorded(rows(3)))
    assert the_run().data.tags["dvc_stage"] == "train@exp3"


# --- never twice


def test_rerun_adds_nothing() -> None:
    record = recorded(rows(10))
    for _ in range(2):
        with open_run() as live:
            for each in rows(10):
                live.observe(each)
        assert sync(record)
    assert len(all_runs(ViewType.ALL)) == 1
    assert all(len(points) == len({step for step, _ in points}) for points in everything().values())
    assert len(series("train/loss")) == 11
    assert the_run().info.status == "FINISHED"


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_interrupted_run_is_completed(error: type[BaseException], status: str) -> None:
    with pytest.raises(error), open_run() as live:  # noqa: PT012 (what was seen before the interruption counts)
        for each in rows(10)[:6]:
            live.observe(each)
        raise error
    assert the_run().info.status == status
    assert len(series("train/loss")) == 6
    with open_run() as live:
        assert the_run().info.status == "RUNNING"
        for each in rows(10):
            live.observe(each)
    assert sync(recorded(rows(10)))
    assert len(all_runs(ViewType.ALL)) == 1
    assert series("train/loss") == [(step, row(step).loss) for step in range(11)]
    assert [step for step, _ in series("windowed/loss_mean")] == [3, 7, 10]


def test_training_resumed_inside_a_window() -> None:
    with open_run() as live:
        for each in rows(10)[6:]:
            live.observe(each)
    assert "windowed/loss_mean" not in the_run().data.metrics  # half a window would be called a whole one
    assert sync(recorded(rows(10)))
    assert series("windowed/loss_mean")[1] == (7, 1.0)


def test_sync_completes_a_run_that_stopped_between_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "POINTS_A_REQUEST", 7)  # not a multiple of the points of a row
    real, requests = MlflowClient.log_batch, []

    def failing(self: MlflowClient, run_id: str, metrics: Any = (), **others: Any) -> Any:
        requests.append(len(metrics))
        if sum(map(bool, requests)) > 3:
            raise OSError("the connection was reset")
        return real(self, run_id, metrics=metrics, **others)

    record = recorded(rows(10))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", failing)
        assert not sync(record)
    assert 0 < sum(map(len, everything().values())) < 30
    assert sync(record)
    assert len(all_runs(ViewType.ALL)) == 1
    assert {len(series(name)) for name in ("train/loss", "train/accuracy", "train/grad_norm")} == {11}


def test_second_sync_is_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    record = recorded(rows(10))
    assert sync(record)
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *_args, **_kwargs: pytest.fail("nothing has changed"))
    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda *_args: pytest.fail("nothing has changed"))
    assert sync(record)


# --- what no longer agrees is replaced, not mixed


def test_sharpness_joins_the_run_of_its_training() -> None:
    with open_run() as live:
        live.observe(row(0))
    assert sync(recorded(rows(10)))
    machine = the_run().data.tags["machine.device"]
    assert sync(recorded(rows(10), sharpness={0: 10.0, 5: 66.0}))
    assert len(all_runs(ViewType.ALL)) == 1
    assert series("curvature/sharpness") == [(0, 10.0), (5, 66.0)]
    assert series("curvature/sharpness_over_threshold") == [(0, 10 / 60), (5, 1.1)]
    assert the_run().data.params["sharpness.rtol"] == "0.001"
    assert the_run().data.tags["machine.device"] == machine


def test_other_sharpness_settings_replace_the_series() -> None:
    with open_run() as live:
        live.observe(row(0))
    machine = the_run().data.tags["machine.torch"]
    table = pd.DataFrame({"step": [0, 5], "sharpness": [10.0, 66.0], "eigenvalue_2": [4.0, 30.0]})
    first = replace(recorded(rows(10)), measured={"sharpness": Measured(table, {**SHARPNESS, "k": 2})})
    assert sync(first)
    assert series("curvature/eigenvalue_2") == [(0, 4.0), (5, 30.0)]
    assert sync(recorded(rows(10), sharpness={0: 10.0, 5: 66.0}))
    assert "curvature/eigenvalue_2" not in the_run().data.metrics
    assert the_run().data.params["sharpness.k"] == "1"
    assert series("curvature/sharpness") == [(0, 10.0), (5, 66.0)]
    assert len(series("train/loss")) == 11
    assert the_run().data.tags["machine.torch"] == machine  # it is still the same training
    assert len(all_runs(ViewType.DELETED_ONLY)) == 1


def with_scan(record: Record, means: Mapping[int, float], rtol: float = 1e-4) -> Record:
    """The record and what a scan along the step found."""
    table = pd.DataFrame({"step": list(means), "directional_smoothness_mean": list(means.values())})
    scan = Measured(table, {"n_taus": 100, "rtol": rtol})
    return replace(record, measured={**record.measured, "tau_scan": scan})


SCAN = "diagnostics/directional_smoothness_mean"


def test_other_diagnostics_join_the_run_as_a_group_of_their_own() -> None:
    assert sync(recorded(rows(10), sharpness={0: 10.0, 5: 66.0}))
    before = the_run().info.run_id
    assert sync(with_scan(recorded(rows(10), sharpness={0: 10.0, 5: 66.0}), {0: 59.0, 5: 61.0}))
    assert the_run().info.run_id == before
    assert series(SCAN) == [(0, 59.0), (5, 61.0)]
    assert series("curvature/sharpness") == [(0, 10.0), (5, 66.0)]
    assert the_run().data.params["tau_scan.rtol"] == "0.0001"
    # One that is not at hand, as while it is measured anew, is left as it is.
    assert sync(recorded(rows(10), sharpness={0: 10.0, 5: 66.0}))
    assert the_run().info.run_id == before
    assert series(SCAN) == [(0, 59.0), (5, 61.0)]


def test_a_diagnostic_measured_anew_replaces_what_it_found() -> None:
    assert sync(with_scan(recorded(rows(10)), {0: 59.0, 5: 61.0}))
    assert sync(with_scan(recorded(rows(10)), {0: 59.5}, rtol=1e-6))
    assert series(SCAN) == [(0, 59.5)]
    assert the_run().data.params["tau_scan.rtol"] == "1e-06"


def test_a_curve_at_each_step_is_no_metric() -> None:
    density = Measured(pd.DataFrame({"step": [0, 0, 5, 5], "node": [1.0, 2.0, 1.0, 2.0]}), {})
    assert sync(replace(recorded(rows(10)), measured={"spectral_density": density}))
    assert not any(name.startswith("diagnostics/") for name in the_run().data.metrics)


def test_training_leaves_the_sharpness_of_an_equal_training_alone() -> None:
    assert sync(recorded(rows(10), sharpness={0: 10.0}))
    assert sync(recorded(rows(10)))
    assert series("curvature/sharpness") == [(0, 10.0)]
    assert len(all_runs(ViewType.ALL)) == 1


@pytest.mark.parametrize(
    ("trajectory", "changes"),
    [
        pytest.param([*rows(10)[:5], row(5, loss=1.75), *rows(10)[6:]], {}, id="other numbers"),
        pytest.param(rows(10), {"window": 5}, id="other window"),
        pytest.param(rows(8), {}, id="shorter"),
    ],
)
def test_contradiction_replaces_the_run(trajectory: list[Row], changes: Mapping[str, Any]) -> None:
    assert sync(recorded(rows(10)))
    before = the_run().info.run_id
    assert sync(recorded(trajectory), **changes)
    assert the_run().info.run_id != before
    assert series("train/loss") == [(each.step, each.loss) for each in trajectory]


def test_points_logged_twice_are_mended() -> None:
    assert sync(recorded(rows(10)))
    run_id = the_run().info.run_id
    client().log_metric(run_id, "train/loss", row(3).loss, step=3)
    client().set_tag(run_id, "synced", "")
    assert sync(recorded(rows(10)))
    assert len(series("train/loss")) == 11


# --- what makes a run another run


def test_fingerprint_follows_settings_data_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    base = fingerprint(RESOLVED, PROVENANCE)
    assert base == fingerprint(dict(reversed(list(RESOLVED.items()))), PROVENANCE)
    assert base != fingerprint({**RESOLVED, "seed": 1}, PROVENANCE)
    assert base != fingerprint(RESOLVED, {**PROVENANCE, "sha256": "0" * 64})
    monkeypatch.setattr(identity, "training_code", lambda members, **_: str(members))
    assert base != (edited := fingerprint(RESOLVED, PROVENANCE))
    monkeypatch.setattr(identity, "training_code", lambda members, **_: str({**members, "models": "cnn"}))
    assert edited != fingerprint(RESOLVED, PROVENANCE)


def test_another_fingerprint_is_another_run() -> None:
    record = recorded(rows(3))
    assert sync(record)
    assert sync(record, resolved={**RESOLVED, "seed": 1})
    assert len(all_runs()) == 2


# --- what is shown beside the record


def about(project: Path, **changes: Any) -> About:
    """Tags, a description, a figure and a table."""
    figure, table = project / "figures" / "exp3" / "exp3.png", project / "trajectory.csv"
    figure.parent.mkdir(parents=True, exist_ok=True)
    for path in (figure, table):
        path.write_text(path.name)
    shown = About(
        tags={"reproduction": "Ahn 2022: Exp 3", "claims.fail": "0"},
        description="**1 holds**",
        summary={"onset": 5.0, "sharpness_crossing": nan},
        colour="#0072b2",
        artifacts={"tables": [table], "figures/exp3": [figure]},
    )
    return replace(shown, **changes)


def artifacts() -> list[str]:
    found: list[str] = []
    folders: list[str | None] = [None]
    while folders:
        for file in client().list_artifacts(the_run().info.run_id, folders.pop()):
            (folders if file.is_dir else found).append(file.path)
    return sorted(found)


def test_what_is_shown_beside_the_record(project: Path) -> None:
    for _ in range(2):
        assert sync(recorded(rows(3)), about=about(project))
    tags = the_run().data.tags
    assert (tags["reproduction"], tags["claims.fail"]) == ("Ahn 2022: Exp 3", "0")
    assert (tags["mlflow.note.content"], tags["mlflow.runColor"]) == ("**1 holds**", "#0072b2")
    assert series("summary/onset") == [(0, 5.0)]
    assert "summary/sharpness_crossing" not in the_run().data.metrics
    assert artifacts() == ["figures/exp3/exp3.png", "tables/trajectory.csv"]
    assert next((project / "mlartifacts").rglob("exp3.png")).read_text() == "exp3.png"
    assert len(all_runs(ViewType.ALL)) == 1


def test_what_is_shown_follows_what_changes(project: Path) -> None:
    assert sync(recorded(rows(3)), about=about(project))
    before = the_run().info.run_id
    shown = about(project, tags={"reproduction": "", "claims.fail": "1"}, description="**1 fails**")
    (project / "trajectory.csv").write_text("longer")
    assert sync(recorded(rows(3)), about=shown)
    run = the_run()
    assert run.info.run_id == before  # what is said about a run is no contradiction of its record
    assert "reproduction" not in run.data.tags
    assert (run.data.tags["claims.fail"], run.data.tags["mlflow.note.content"]) == ("1", "**1 fails**")
    assert next((project / "mlartifacts").rglob("trajectory.csv")).read_text() == "longer"


def test_a_summary_that_changes_replaces_the_run(project: Path) -> None:
    assert sync(recorded(rows(3)), about=about(project))
    assert sync(recorded(rows(3)), about=about(project, summary={"onset": 6.0}))
    assert series("summary/onset") == [(0, 6.0)]
    assert artifacts() == ["figures/exp3/exp3.png", "tables/trajectory.csv"]
    inputs = the_run().inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 1


def test_summary_of_a_sharpness_that_is_measured_anew_is_left_as_it_is(project: Path) -> None:
    found = {"onset": 5.0, "sharpness_crossing": 7.0}
    assert sync(recorded(rows(3), sharpness={0: 66.0}), about=about(project, summary=found))
    before = the_run().info.run_id
    assert sync(recorded(rows(3)), about=about(project, summary={"onset": 5.0, "sharpness_crossing": nan}))
    assert the_run().info.run_id == before
    assert series("summary/sharpness_crossing") == [(0, 7.0)]


def test_live_run_has_the_tags_too() -> None:
    with open_run(tags={"reproduction": "Ahn 2022: Exp 3", "unsaid": ""}) as live:
        live.observe(row(0))
    assert the_run().data.tags["reproduction"] == "Ahn 2022: Exp 3"
    assert "unsaid" not in the_run().data.tags


def test_runs_are_flat(project: Path) -> None:
    assert sync(recorded(rows(3)), about=about(project))
    assert "mlflow.parentRunId" not in the_run().data.tags


def test_experiment_is_described_and_is_of_trainings() -> None:
    for text in ("one", "two", "two"):
        assert describe("eosrepro", text)
    experiment = client().get_experiment_by_name("eosrepro")
    assert experiment is not None
    assert experiment.tags == {"mlflow.note.content": "two", "mlflow.experimentKind": "custom_model_development"}


def test_data_of_an_interrupted_start_is_named_by_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("the connection was reset")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", failing)
        assert not sync(recorded(rows(3)))
    assert sync(recorded(rows(3)))
    inputs = the_run().inputs
    assert inputs is not None
    assert [each.dataset.name for each in inputs.dataset_inputs] == ["photo-patches"]
    assert len(all_runs(ViewType.ALL)) == 1


# --- deleted in the UI


def the_experiment() -> Experiment:
    found = client().get_experiment_by_name("eosrepro")
    assert found is not None
    return found


def test_a_deleted_experiment_is_restored_without_the_runs_that_were_replaced(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert sync(recorded(rows(10)))
    assert sync(recorded(rows(8)))  # takes the place of the first
    before = the_run().info.run_id
    client().delete_experiment(the_experiment().experiment_id)
    with pytest.raises(EosreproError, match="eosrepro was deleted in MLflow: `eosrepro track` restores it"):
        check("eosrepro")
    for _ in range(2):
        assert sync(recorded(rows(8)))
    assert capfd.readouterr() == ("", "The experiment eosrepro was deleted in MLflow: it is restored\n")
    assert the_run().info.run_id == before
    assert len(series("train/loss")) == 9
    assert check("eosrepro") == str(Path("mlflow.db").absolute())


def test_a_training_restores_a_deleted_experiment() -> None:
    assert describe("eosrepro", "all runs")
    client().delete_experiment(the_experiment().experiment_id)
    with open_run() as live:
        live.observe(row(0))
    assert the_run().info.status == "FINISHED"


@pytest.mark.parametrize("what", ["run deleted", "experiment renamed"])
def test_what_else_is_taken_away_in_the_ui_comes_back(what: str) -> None:
    assert sync(recorded(rows(3)))
    if what == "run deleted":
        client().delete_run(the_run().info.run_id)
    else:
        client().rename_experiment(the_experiment().experiment_id, "of old")
    assert sync(recorded(rows(3)))
    assert len(series("train/loss")) == 4


def test_deleted_artifacts_come_back(project: Path) -> None:
    shown = about(project)
    assert sync(recorded(rows(3)), about=shown)
    before = the_run().info.run_id
    shutil.rmtree(project / "mlartifacts")
    assert sync(recorded(rows(3)), about=shown)
    assert artifacts() == ["figures/exp3/exp3.png", "tables/trajectory.csv"]
    assert the_run().info.run_id == before
    assert len(series("train/loss")) == 4


def test_an_experiment_of_somebody_else_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    client().create_experiment("eosrepro", "mlflow-artifacts:/1")  # as the button in the UI does
    assert not sync(recorded(rows(3)))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "was not made by eosrepro, and keeps its files in mlflow-artifacts:/1: rename it in the MLflow UI" in said
    assert "delete" not in said
    assert all_runs() == []
    with pytest.raises(EosreproError, match="was not made by eosrepro"):
        check("eosrepro")


# --- more than MLflow takes


def synced_with(provenance: Mapping[str, Any] = PROVENANCE, **changes: Any) -> Dataset:
    """The data set that a run shows after a sync that said nothing."""
    assert sync_run(NAME, RESOLVED, provenance, recorded(rows(3)), **{**SETTINGS, **changes})
    inputs = the_run().inputs
    assert inputs is not None
    return inputs.dataset_inputs[0].dataset


def test_a_data_set_of_many_classes_with_long_names(capfd: pytest.CaptureFixture[str]) -> None:
    source = {"name": "imagefolder", "classes": [f"{number:04}{'ö' * 81}" for number in range(1200)]}
    data = synced_with({**PROVENANCE, "source": source})
    assert len(data.source) <= 65_535
    facts = json.loads(data.source)
    assert (facts["sha256"], facts["source.name"]) == (PROVENANCE["sha256"], "imagefolder")
    assert facts["source.classes"].startswith('["0000ööö')
    assert facts["source.classes"].endswith("…")
    assert capfd.readouterr() == ("", "")


def test_a_data_set_with_more_facts_than_can_be_shown(capfd: pytest.CaptureFixture[str]) -> None:
    data = synced_with({**PROVENANCE, "source": {f"fact {number}": "x" * 100 for number in range(2000)}})
    assert len(data.source) == 65_535
    assert PROVENANCE["sha256"] in data.source
    assert capfd.readouterr() == ("", "")


def test_long_labels_tags_descriptions_and_names_are_shortened(capfd: pytest.CaptureFixture[str]) -> None:
    label = "photos\nof " + "l" * 9000
    shown = About(tags={"reproduction": "r" * 9000}, description="d" * 9000)
    resolved = {**RESOLVED, "model": {"name": "mlp", "a/b?" + "k" * 300: 1, "..": 2}}
    for _ in range(2):
        assert sync_run(NAME, resolved, {**PROVENANCE, "label": label}, recorded(rows(3)), **SETTINGS, about=shown)
    describe("eosrepro", "d" * 30_000)
    run = the_run()
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == label[:499] + "…"
    assert run.data.tags["data"] == label[:7999] + "…"
    assert run.data.tags["reproduction"] == "r" * 7999 + "…"
    assert run.data.tags["mlflow.note.content"] == "d" * 7999 + "…"
    assert the_experiment().tags["mlflow.note.content"] == "d" * 19_999 + "…"
    assert ("model.a_b_" + "k" * 300)[:200] in run.data.params
    assert len(all_runs(ViewType.ALL)) == 1
    assert capfd.readouterr() == ("", "")


def test_quantities_of_names_that_mlflow_refuses() -> None:
    table = pd.DataFrame({"step": [0, 5], "L(τ)/η": [1.0, 2.0], "x" * 300: [3.0, 4.0]})
    record = replace(recorded(rows(10)), measured={"own": Measured(table, {})})
    for _ in range(2):
        assert sync(record)
    assert series("diagnostics/L_τ__η") == [(0, 1.0), (5, 2.0)]
    assert series(f"diagnostics/{'x' * 200}") == [(0, 3.0), (5, 4.0)]
    assert len(all_runs(ViewType.ALL)) == 1


# --- stores


@pytest.mark.parametrize(
    "name", ["my%20project", "what?", "100%25", "ü #'+&@;:[]", 'a "b"', "a" * 200 + "/" + "b" * 150]
)
def test_a_project_may_be_in_a_folder_of_any_name(
    name: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "top"
    folder = top / name
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert sync(recorded(rows(3)), about=about(folder))
    assert artifacts() == ["figures/exp3/exp3.png", "tables/trajectory.csv"]
    assert len(list((folder / "mlartifacts").rglob("exp3.png"))) == 1
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (1,)
    assert check("eosrepro") == str(folder / "mlflow.db")
    assert [path.name for path in top.iterdir()] == [Path(name).parts[0]]  # and nothing beside the project


def test_a_path_too_long_for_sqlite_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path.joinpath("a" * 200, "b" * 200, "c" * 200)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert not sync(recorded(rows(3)))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f": {TOO_LONG}; going on" in said


def test_default_store_is_in_the_project_even_from_a_copy(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = project / "temporary copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))  # as `dvc exp run --temp` sets it
    assert sync(recorded(rows(3)))
    assert (project / "mlflow.db").exists()
    assert not (copy / "mlflow.db").exists()
    experiment = client().get_experiment_by_name("eosrepro")
    assert experiment is not None
    assert experiment.artifact_location == (project / "mlartifacts").as_uri()


def test_tracking_uri_overrides(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mlflow.db").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'elsewhere' / 'runs.db'}")
    assert sync(recorded(rows(3)))
    assert (project / "elsewhere" / "runs.db").exists()
    assert not (project / "mlflow.db").exists()


def test_moved_project_is_told_what_to_do(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sync(recorded(rows(3)))
    moved = project.rename(project.parent / "moved")
    monkeypatch.chdir(moved)
    connect.cache_clear()
    assert not sync(recorded(rows(3)))
    assert "delete it, then run `eosrepro track`" in capfd.readouterr().err


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests import test_tracking as t
resolved = {{**t.RESOLVED, "seed": int(sys.argv[1])}}
Path(f"ready{{sys.argv[1]}}").touch()
while not Path("go").exists():
    t.time.sleep(0.001)
with t.mlflow_live.open_run(f"run{{sys.argv[1]}}", resolved, t.PROVENANCE, **t.LIVE) as live:
    for each in t.rows(400):
        live.observe(each)
"""


@pytest.mark.slow
def test_processes_that_create_the_store_at_once(project: Path) -> None:
    code = PROCESS.format(tests=str(Path(__file__).parents[1]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (project / "mlflow.db").unlink()
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stderr=subprocess.PIPE, text=True, env=environment)
        for number in range(2)
    ]
    while not all((project / f"ready{number}").exists() for number in range(2)):
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)
    (project / "go").touch()
    for process in started:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    runs = all_runs()
    assert sorted(str(run.info.run_name) for run in runs) == ["run0", "run1"]
    assert all(len(client().get_metric_history(run.info.run_id, "train/loss")) == 401 for run in runs)


# --- MLflow away


def test_unreachable_store_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:s3cret%40x@127.0.0.1:{free_port()}?token=abc")
    started = time.monotonic()
    with open_run() as live:
        for each in rows(10):
            live.observe(each)
    assert not sync(recorded(rows(10)))
    assert not describe("eosrepro", "all runs")
    assert time.monotonic() - started < 15
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "`eosrepro track`" in err
    for secret in ("ada", "s3cret", "abc"):
        assert secret not in err


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("file:///nowhere/mlruns", NO_FOLDER),
        ("file:./mlruns", NO_FOLDER),
        ("./mlruns", NO_FOLDER),
        ("nonsense://x", NO_SERVER),
        ("http://[x", NO_SERVER),
        ("databricks", NO_SERVER),
        ("postgresql://ada:s3cret@localhost/x", NO_SERVER),
        ("sqlite:////proc/nowhere/runs.db", NO_FILE),
        ("sqlite:///no%20database.db", NO_FILE),
    ],
)
def test_unusable_store_is_one_line_with_its_remedy(
    uri: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("no database.db").write_text("a page of a book")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with open_run() as live:
        live.observe(row(0))
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("Warning: MLflow at ")
    assert err.endswith(f"): {remedy}; going on without it, `eosrepro track` catches up\n")
    assert "s3cret" not in err
    if not uri.startswith("http"):  # of a server the UI says where it is
        with pytest.raises(EosreproError, match="cannot be used") as found:
            serve(free_port(), lambda: pytest.fail("there is nothing to bring up to date"))
        assert str(found.value).endswith(f"): {remedy}")


def test_a_store_of_another_version_is_one_line_with_its_remedy(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert not sync(recorded(rows(3)))
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f"…): {NO_FILE}; going on" in err  # what MLflow says is longer than the line
    Path("mlflow.db").unlink()


def test_without_a_home_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def nobody(_number: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)  # a container that runs as a user it does not know
    with open_run() as live:
        live.observe(row(0))
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f": {NO_HOME}; going on" in err
    for ask in (lambda: check("eosrepro"), lambda: serve(free_port())):
        with pytest.raises(EosreproError, match=NO_HOME):
            ask()


@pytest.mark.parametrize("code", [401, 500])
def test_a_server_that_refuses_is_one_line(
    code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, *_args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with open_run() as live:
            live.observe(row(0))
        server.shutdown()
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f"{code} " in err
    assert f"): {NO_SERVER}; going on" in err


def test_store_that_fails_during_the_run_is_caught_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mlflow_live, "FLUSH_SECONDS", 0.0)
    live = open_run()
    with monkeypatch.context() as patch, live:
        calls: list[int] = []

        def broken(*_args: Any, **_kwargs: Any) -> None:
            calls.append(1)
            raise OSError("the connection was reset")

        patch.setattr(MlflowClient, "log_batch", broken)
        for each in rows(10):
            live.observe(each)
        assert len(calls) == 1  # it does not try again at every step
    assert capfd.readouterr().err.count("\n") == 1
    assert sync(recorded(rows(10)))
    assert len(series("train/loss")) == 11
    assert len(all_runs(ViewType.ALL)) == 1


def test_store_locked_by_another_process_is_one_line_and_caught_up(capfd: pytest.CaptureFixture[str]) -> None:
    hold = (
        "import sqlite3; c = sqlite3.connect('mlflow.db'); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        started = time.monotonic()
        with open_run() as live:
            for each in rows(10):
                live.observe(each)
        assert time.monotonic() - started < 60
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "database is locked" in err
        other.communicate("\n")
    assert sync(recorded(rows(10)))
    assert len(series("train/loss")) == 11


def test_server_that_does_not_answer_holds_up_a_run_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with open_run() as live:
            for each in rows(1000):
                live.observe(each)
        assert time.monotonic() - started < 10
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "ReadTimeoutError" in err
    assert "`eosrepro track` catches up" in err


@pytest.mark.slow
def test_server_that_dies_during_a_run_is_caught_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mlflow_live, "FLUSH_SECONDS", 0.0)
    port, remaining = free_port(), iter(rows(20))
    with ExitStack() as stack:
        with served(port) as uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            live = stack.enter_context(open_run())
            for each in islice(remaining, 10):
                live.observe(each)
            assert series("train/loss")
        for each in remaining:
            live.observe(each)
    assert capfd.readouterr().err.count("\n") == 1

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with served(port) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert sync(recorded(rows(20)))
        assert len(series("train/loss")) == 21
        assert len(all_runs(ViewType.ALL)) == 1


def test_errors_of_the_training_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError), open_run():
        _ = 1 / 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:s3cret@host:5000/x", "http://***@host:5000/x"),
        ("https://token@host", "https://***@host"),
        ("postgresql://ada:s3/cr@t@host/db", "postgresql://***@host/db"),
        ("postgresql://host/db?password=s3cret&x=1", "postgresql://host/db?***"),
        ("exceeded with url: /?token=abc/api/2.0&name=x (Caused by y)", "exceeded with url: /?*** (Caused by y)"),
        ("cannot reach http://ada:s3cret@host, sorry", "cannot reach http://***@host, sorry"),
        ("sqlite:////home/x/mlflow.db", "sqlite:////home/x/mlflow.db"),
    ],
)
def test_secrets_are_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_password_quoted_in_an_error_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://ada:s3%20cret@host/db")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert redacted("bad password 's3 cret' or token t0ken") == "bad password '***' or token ***"
    assert redacted("Access denied for user 'ada'@'host', said adam") == (
        "Access denied for user '***'@'host', said adam"
    )


# --- the UI


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ui_of_a_server_is_where_the_server_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:s3cret@runs.example")
    serve(5000)
    assert capsys.readouterr().out == "The runs are on an MLflow server: open https://***@runs.example\n"


@pytest.mark.slow
def test_ui_shows_the_runs_to_this_machine_alone() -> None:
    assert sync(recorded(rows(3)))
    port = free_port()
    with served(port) as uri:
        question = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=eosrepro"
        with urllib.request.urlopen(question, timeout=10) as reply:
            assert b"eosrepro" in reply.read()
        sockets = [
            line.split() for path in ("tcp", "tcp6") for line in Path(f"/proc/net/{path}").read_text().splitlines()
        ]
        listening = [fields[1] for fields in sockets if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")]
        assert listening == [f"0100007F:{port:04X}"]


@contextmanager
def served(port: int) -> Iterator[str]:
    """The UI on the project's store, in processes of its own that are killed at the end, and its address."""
    code = f"from eosrepro.views.mlflow.server import serve; serve({port})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    uri = f"http://127.0.0.1:{port}"
    with Path("log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None, Path("log").read_text()
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=10).close()
                break
            except OSError:
                time.sleep(0.5)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


# --- cost


def test_thousand_rows_take_as_few_requests_as_mlflow_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run():
        pass
    sizes = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **others: Any) -> None:
        if metrics:  # and not tags
            sizes.append(len(metrics))
        log_batch(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    monkeypatch.setattr(mlflow_live, "FLUSH_SECONDS", inf)  # however slow this machine is
    with open_run() as live:
        for each in rows(1000):
            live.observe(each)
    full, rest = divmod(sum(sizes), POINTS_A_REQUEST)
    assert sizes == [*[POINTS_A_REQUEST] * full, *[rest] * bool(rest)]
    assert len(series("train/loss")) == 1001


def test_tracking_does_not_import_mlflow_before_it_is_used() -> None:
    code = "import sys; from eosrepro.views.mlflow import live, sync; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode == 0

"""MLflow as a view of what is on disk; the only importer of mlflow.

Train and diagnose of one experiment share one flat MLflow run, found by its tag `fingerprint`: a digest of the run's
settings, the checksum of its data and the sources that trained it. `sync_run` is the rule that keeps the view true. It
compares the MLflow run with the recorded tables, point by point:

* what is recorded and not yet logged is logged, so a re-run adds nothing and an interrupted run is completed;
* where anything logged is not in the record (sharpness measured with other settings, another `mlflow.window`, other
  numbers from another machine), the run goes to MLflow's bin and a new one takes its place: MLflow cannot take back
  single points, and two series under one name would lie. So the settings of the sharpness are no part of the
  fingerprint; they are parameters of the run.

The MLflow UI thins a long series by sampling, which aliases an oscillation of period 2. Each oscillating series is
therefore also logged as the least, mean and greatest value of every `window` steps, at the last of these steps.

The UI makes a section of all metrics with the same text before their slash: `train`, every step; `windowed`, the same
in windows; `curvature`, eigenvalues of the Hessian; `diagnostics`, what the others measured; `summary`, one number a
run. The UI keeps an empty section for what none of the runs shown has, so they are few.

No function here raises because MLflow is away: the first failure prints one line, and `eosrepro sync` catches up later.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import isclose, isfinite
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import torch

from eosrepro import catalog
from eosrepro.errors import EosreproError
from eosrepro.settings import flattened
from eosrepro.store import DATA, Measured, Record, sha256
from eosrepro.types import Row, stability_threshold

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FLUSH_SECONDS = 10.0
LOCK_SECONDS = 2.0  # one who writes to a SQLite store holds it for less
POINTS_A_REQUEST = 1000  # the most that MLflow takes
PARAMS_A_REQUEST = 100
PARAM_LENGTH = 500

# Of the provenance of the data: the first is among the settings, the second is shown with the data set.
TOLD_ELSEWHERE = ("preprocessing", "source")

PER_STEP = ("loss", "accuracy", "grad_norm", "relative_progress", "directional_smoothness")
WINDOWED = ("loss", "relative_progress", "directional_smoothness")

# What a training depends on, as the stage `train` in dvc.yaml declares it.
TRAINING_SOURCES = ("training.py", "objective.py")
MEASURING_SOURCES = ("measuring.py", "diagnostics/sharpness.py", "lanczos.py")
MEMBER_FOLDERS = {"model": "models", "loss": "losses", "optimizer": "optimizers", "toy": "toys"}

# Names under which the MLflow UI shows what they hold.
GIT_COMMIT = "mlflow.source.git.commit"
SOURCE = "mlflow.source.name"
DESCRIPTION = "mlflow.note.content"
USE_OF_DATA = "mlflow.data.context"
KIND = "mlflow.experimentKind"
COLOUR = "mlflow.runColor"
# Without it, some versions of the UI take the experiment for one on language models, with pages that have nothing to
# show. Others have a switch for that, and `workflowType` in an address sets it.
TRAINING = "custom_model_development"

EMPTY = "0"  # the experiment that every store has

MADE_ELSEWHERE = "mlflow.db was made in another folder: delete it, then run `eosrepro sync`"

# MLflow's own defaults would hold up a stage for minutes where a server is away.
QUIET_AND_QUICK = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Point(NamedTuple):
    """One value of one MLflow metric."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class About:
    """What is shown of a run beside its record."""

    tags: Mapping[str, str] = field(default_factory=dict)  # one with no text is taken away
    description: str = ""  # Markdown
    colour: str | None = None  # of its curves, #RRGGBB; None: as it is
    summary: Mapping[str, float] = field(default_factory=dict)  # one number a run; NaN where it has none
    artifacts: Mapping[str, Sequence[Path]] = field(default_factory=dict)  # folder in MLflow → files


class _Store(NamedTuple):
    """A reachable MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str
    uri: str


# --- what identifies a run --------------------------------------------------------------------------------------------


def fingerprint(resolved: Mapping[str, Any], data_provenance: Mapping[str, Any] | None) -> str:
    """SHA-256 of all that determines a training: its settings, the checksum of its data, the sources that run it.

    Args:
        resolved: `Config.resolved(name)`.
        data_provenance: stages/data/provenance.json; None for a toy, or where the settings stand for the data.
    """
    if data_provenance is None:
        return _digest([resolved, code_version(resolved)])
    # The checksum stands for the data: the same bytes from another place are the same data.
    settings = {key: value for key, value in resolved.items() if key not in ("data", "preprocessing")}
    return _digest([settings, data_provenance["sha256"], code_version(resolved)])


def code_version(resolved: Mapping[str, Any], core: Iterable[str] = TRAINING_SOURCES) -> str:
    """SHA-256 of the sources that a run depends on: the core and the members it names, as dvc.yaml has it.

    A new model or an edited loss that this run does not use leaves it as it is.
    """
    files = {source: Path(__file__).parent / source for source in core}
    for key, kind in MEMBER_FOLDERS.items():
        if key in resolved:
            name = resolved[key]["name"]
            files[f"{kind}/{name}.py"] = catalog.file(kind, name)
    return _digest([[source, path.read_text("utf-8")] for source, path in files.items()])


# --- live, while a run trains -----------------------------------------------------------------------------------------


class LiveRun:
    """A run that is being logged as it trains. Where MLflow is away it takes everything and does nothing.

    As a context manager it marks the run as finished, failed or, on Ctrl-C, killed.
    """

    def __init__(self, store: _Store | None, run_id: str, series: _Series, logged_up_to: int) -> None:
        self._store = store
        self._run_id = run_id
        self._series = series
        self._logged_up_to = logged_up_to
        self._pending: list[Point] = []
        self._next_flush = time.monotonic() + FLUSH_SECONDS

    def observe(self, row: Row) -> None:
        """Take the row of one iteration, for the next batch; rows that MLflow has already are left out."""
        if self._store is None:
            return
        points = self._series.add(row)
        if row.step > self._logged_up_to:
            self._pending += points
        if time.monotonic() >= self._next_flush:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._flush()
        store, self._store = self._store, None
        if store:
            with _CarryingOn():
                store.client.set_terminated(self._run_id, status)

    def _flush(self) -> None:
        if self._store is None:
            return
        store, self._store = (
            self._store,
            None,
        )  # one failure ends the live log: it must not hold up the run again and again
        started = time.monotonic()
        with _CarryingOn():
            _log_points(store, self._run_id, self._pending)
            self._pending = []
            self._store = store
        now = time.monotonic()
        self._next_flush = now + max(
            FLUSH_SECONDS, 10 * (now - started)
        )  # at most a tenth of the time goes into logging


def open_run(
    name: str,
    resolved: Mapping[str, Any],
    data_provenance: Mapping[str, Any] | None,
    *,
    experiment: str,
    window: int,
    profile: str,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> LiveRun:
    """Find or make the MLflow run of a training that starts now, on this machine.

    Args:
        name: name of the run in params.yaml.
        resolved: `Config.resolved(name)`.
        data_provenance: stages/data/provenance.json; None for a toy.
        experiment: MLflow experiment, from `mlflow.experiment`.
        window: steps a windowed value covers, from `mlflow.window`.
        profile: name of the profile, for a tag.
        tags: further ones.

    Returns:
        A run that takes rows; it does nothing with them where MLflow is away.
    """
    series = _Series(stability_threshold(_step_size(resolved)), window)
    with _CarryingOn():
        store = _open(experiment)
        tags = {**_tags(name, resolved, data_provenance, profile), **_machine(resolved), **tags}
        with _locked(store.uri):
            run = _find(store, tags["fingerprint"])
            if run is None:
                run = _create(store, name, tags)
                _log_params(store, run.info.run_id, _params(resolved, data_provenance, window, {}))
            else:
                _set_tags(store, run, tags)
                store.client.update_run(run.info.run_id, status="RUNNING")
        _log_data(store, run, data_provenance)
        logged = store.client.get_metric_history(run.info.run_id, "train/loss")
        return LiveRun(store, run.info.run_id, series, max((metric.step for metric in logged), default=-1))
    return LiveRun(None, "", series, -1)


# --- from the recorded files ------------------------------------------------------------------------------------------


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
        resolved: `Config.resolved(name)`.
        data_provenance: stages/data/provenance.json; None for a toy.
        record: what is on disk.
        experiment: MLflow experiment, from `mlflow.experiment`.
        window: steps a windowed value covers, from `mlflow.window`.
        profile: name of the profile, for a tag.
        about: what is shown beside the record.

    Returns:
        Whether MLflow has it all.
    """
    with _CarryingOn():
        store = _open(experiment)
        params = _params(resolved, data_provenance, window, record.measured)
        points = [*_trajectory_points(record, window), *_measured_points(record), *_summary_points(about.summary)]
        shown = {**about.tags, DESCRIPTION: about.description, **({COLOUR: about.colour} if about.colour else {})}
        tags = _tags(name, resolved, data_provenance, profile) | _outcome_tags(record.summary) | shown
        files = [[folder, path.name, sha256(path)] for folder, paths in about.artifacts.items() for path in paths]
        # Set last: an interrupted sync does not count.
        synced = {"synced": _digest([params, points, shown, files])[:12]}
        with _locked(store.uri):
            run = _find(store, tags["fingerprint"])
            if run and run.info.status == "FINISHED" and synced.items() <= run.data.tags.items():
                return True
            missing = _missing(store, run, params, points, record.measured) if run else None
            if run and missing is None:
                store.client.delete_run(run.info.run_id)
                tags = {key: value for key, value in run.data.tags.items() if _of_machine(key)} | tags
            if run is None or missing is None:
                run, missing = _create(store, name, tags), points
        run_id = run.info.run_id
        _log_params(store, run_id, {key: value for key, value in params.items() if key not in run.data.params})
        _log_data(store, run, data_provenance)
        _log_points(store, run_id, missing)
        for folder, paths in about.artifacts.items():
            for path in paths:
                store.client.log_artifact(run_id, str(path), folder)
        if run.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
        _set_tags(store, run, tags | synced)
        return True
    return False


def describe(experiment: str, description: str) -> bool:
    """Write the description of an MLflow experiment, in Markdown, where it has another.

    Returns:
        Whether MLflow has it.
    """
    with _CarryingOn():
        store = _open(experiment)
        tags = store.client.get_experiment(store.experiment_id).tags
        for key, value in {DESCRIPTION: description, KIND: TRAINING}.items():
            if tags.get(key) != value:
                store.client.set_experiment_tag(store.experiment_id, key, value)
        return True
    return False


# --- points -----------------------------------------------------------------------------------------------------------


class _Series:
    """From rows to points, one row at a time: the same points live and from the record."""

    def __init__(self, threshold: float, window: int) -> None:
        self._threshold = threshold
        self._length = window
        self._window: list[Row] = []

    def add(self, row: Row) -> list[Point]:
        """The points of one iteration, and of the window that ends with it."""
        points = [Point(f"train/{name}", row.step, getattr(row, name)) for name in PER_STEP]
        relative = row.directional_smoothness / self._threshold
        points.append(Point("train/directional_smoothness_over_threshold", row.step, relative))
        self._window.append(row)
        if (row.step + 1) % self._length == 0:
            # A training that resumed inside a window has seen a part of it only: the sync at its end logs it.
            points += self.rest() if len(self._window) == self._length else []
            self._window = []
        return list(_finite(points))

    def rest(self) -> list[Point]:
        """The points of the window that is still open."""
        if not self._window:
            return []
        step = self._window[-1].step
        return list(_finite(point for name in WINDOWED for point in _extent(name, step, self._values(name))))

    def _values(self, name: str) -> list[float]:
        return [value for value in (getattr(row, name) for row in self._window) if isfinite(value)]


def _extent(name: str, step: int, values: Sequence[float]) -> Iterator[Point]:
    if values:
        yield Point(f"windowed/{name}_min", step, min(values))
        yield Point(f"windowed/{name}_mean", step, sum(values) / len(values))
        yield Point(f"windowed/{name}_max", step, max(values))


def _trajectory_points(record: Record, window: int) -> Iterator[Point]:
    series = _Series(record.threshold, window)
    for row in record.trajectory.astype({"step": int}).itertuples(index=False):
        yield from series.add(row)  # type: ignore[arg-type]  # a named tuple with the fields of a Row
    yield from series.rest()


def _measured_points(record: Record) -> Iterator[Point]:
    """The eigenvalues as curvature/<quantity>; what others found as diagnostics/<quantity>."""
    for diagnostic, (table, _) in record.measured.items():
        if not table["step"].is_unique:
            continue  # a curve at each step, which no metric can hold
        columns = [str(name) for name in table if name != "step"]
        prefix = "diagnostics/"
        if diagnostic == "sharpness":
            columns = [name for name in columns if re.fullmatch(r"sharpness|eigenvalue_\d+", name)]
            prefix = "curvature/"
        for step, *values in table[["step", *columns]].itertuples(index=False):
            points = [Point(prefix + name, int(step), float(at)) for name, at in zip(columns, values, strict=True)]
            if diagnostic == "sharpness":
                points.append(
                    Point("curvature/sharpness_over_threshold", int(step), points[0].value / record.threshold)
                )
            yield from _finite(points)


def _summary_points(summary: Mapping[str, float]) -> Iterator[Point]:
    # The UI draws what has no step but 0 as bars, a bar a run.
    return _finite(Point(f"summary/{name}", 0, value) for name, value in summary.items())


def _finite(points: Iterable[Point]) -> Iterator[Point]:
    # MLflow stores infinity as 1.8e308 and NaN as 0.
    return (point for point in points if isfinite(point.value))


def _is_recorded(name: str, measured: Mapping[str, Measured]) -> bool:
    """Whether a metric is of what is on record: the trajectory, or a diagnostic that was measured."""
    group, slash, quantity = name.partition("/")
    if group == "curvature" or (group == "summary" and quantity.startswith("sharpness")):
        return "sharpness" in measured
    if group == "diagnostics":
        return any(quantity in found.table for found in measured.values())
    return not slash or group in ("train", "windowed", "summary")


def _missing(
    store: _Store, run: Run, params: Mapping[str, str], points: Sequence[Point], measured: Mapping[str, Measured]
) -> list[Point] | None:
    """The points that the run lacks; None where what it has is not a part of what is recorded."""
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


# --- parameters and tags ----------------------------------------------------------------------------------------------


def _params(
    resolved: Mapping[str, Any],
    data_provenance: Mapping[str, Any] | None,
    window: int,
    measured: Mapping[str, Measured],
) -> dict[str, str]:
    step_size = _step_size(resolved)
    numbers = {"step_size_float": float(step_size), "stability_threshold": stability_threshold(step_size)}
    settings = {diagnostic: found.settings for diagnostic, found in measured.items()}
    data = {key: value for key, value in (data_provenance or {}).items() if key not in TOLD_ELSEWHERE}
    facts = {**resolved, **numbers, "window": window, "dataset": data, **settings}
    return {_param(key): _shortened(_text(value)) for key, value in flattened(facts).items()}


def _step_size(resolved: Mapping[str, Any]) -> Fraction:
    return Fraction(str(resolved["step_size"]))


def _param(key: str) -> str:
    """The name of a parameter, of the characters that MLflow takes."""
    return re.sub(r"[^\w.\-:/ ]", "_", key)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str) -> str:
    return text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 1] + "…"


def _tags(
    name: str, resolved: Mapping[str, Any], data_provenance: Mapping[str, Any] | None, profile: str
) -> dict[str, str]:
    tags = {
        SOURCE: f"eosrepro train {name}",
        "fingerprint": fingerprint(resolved, data_provenance),
        "code_version": code_version(resolved),
        "profile": profile,
        "data": data_provenance["label"] if data_provenance else None,
        "dvc_stage": os.environ.get("DVC_STAGE"),  # the stage that wrote last
    }
    return {key: value for key, value in tags.items() if value}


def _outcome_tags(summary: Mapping[str, Any]) -> dict[str, str]:
    return {"outcome": str(summary["reason"])} if "reason" in summary else {}


def _machine(resolved: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers may depend on and no file on disk may say."""
    on_gpu = resolved.get("compute", {}).get("device", "cpu") != "cpu" and torch.cuda.is_available()
    tags = {
        "machine.device": torch.cuda.get_device_name() if on_gpu else _cpu_name(),
        "machine.torch": torch.__version__,
        "machine.threads": str(resolved.get("compute", {}).get("threads", torch.get_num_threads())),
    }
    return tags | _git_commit()


def _of_machine(tag: str) -> bool:
    return tag.startswith("machine.") or tag == GIT_COMMIT


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _git_commit() -> dict[str, str]:
    try:
        ask = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {GIT_COMMIT: ask.stdout.strip()} if ask.returncode == 0 else {}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


# --- the store --------------------------------------------------------------------------------------------------------


def store_uri() -> str:
    """Where MLflow keeps its runs: `MLFLOW_TRACKING_URI`, else mlflow.db in the project. It may hold a password."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_project() / 'mlflow.db'}"


def redacted(text: str) -> str:
    """A text without the user, password and query of the addresses in it, fit to be printed."""
    secrets = [*_credentials(), *(os.environ.get(f"MLFLOW_TRACKING_{kind}") for kind in ("PASSWORD", "TOKEN"))]
    for secret in filter(None, secrets):
        for spelt in (secret, unquote(secret)):
            text = re.sub(rf"(?<!\w){re.escape(spelt)}(?!\w)", "***", text)
    text = re.sub(r"://\S*@", "://***@", text)
    return re.sub(r"\?\S+", "?***", text)  # errors quote the query without its address


def _credentials() -> list[str | None]:
    try:
        parts = urlsplit(store_uri())
    except ValueError:
        return []
    return [parts.username, parts.password]


def _project() -> Path:
    # `dvc exp run --temp` and `dvc queue` run in a copy that is thrown away; DVC_ROOT is the project it was made from.
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def serve(port: int) -> None:
    """Become the MLflow UI of `store_uri()` on the loopback interface; where the store is a server, say its address."""
    uri = store_uri()
    if uri.startswith(("http://", "https://")):
        print(f"The runs are on an MLflow server: open {redacted(uri)}")
        return
    _check_free(port)
    with _locked(uri):
        client = _client(uri)  # makes the tables where there are none yet
    found = [each.experiment_id for each in client.search_experiments() if each.experiment_id != EMPTY]
    page = f"experiments/{found[0]}/runs" if len(found) == 1 else "experiments"
    # In the environment, since everybody can read the arguments of a process. One worker and no job runner start in
    # 10 s and 0.4 GB instead of 45 s and 1.6 GB.
    server = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    arguments = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    address = f"http://127.0.0.1:{port}/#/{page}?workflowType=machine_learning"
    print(f"MLflow UI: {address} in about 10 s; Ctrl-C ends it", flush=True)
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **server})


def check(experiment: str) -> str:
    """Where MLflow keeps the runs of this project, in words; nothing is written.

    Raises:
        EosreproError: the store is away, is locked, is of another folder, or cannot be read.
    """
    uri = store_uri()
    file = _file(uri)
    if file and not (file.exists() and file.stat().st_size):
        return f"{redacted(uri)} will be made by the first run"
    try:
        if file:
            _try_to_lock(file)
        found = _client(uri).get_experiment_by_name(experiment)
    except Exception as error:  # whatever MLflow and its database drivers raise
        reason = " ".join(redacted(f"{type(error).__name__}: {error}").split())[:300]
        raise EosreproError(
            f"{redacted(uri)} cannot be used ({reason}): start its server, or mend MLFLOW_TRACKING_URI. Until then "
            "trainings go on without it, and `eosrepro sync` catches up"
        ) from None
    if found and not _is_here(found.artifact_location):
        raise EosreproError(MADE_ELSEWHERE)
    return f"{redacted(uri)}{'' if found else ', no runs yet'}"


def _file(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _try_to_lock(file: Path) -> None:
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _is_here(artifacts: str) -> bool:
    """Whether a store is that of this folder; one that the environment names may be anywhere."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or artifacts == _artifacts()


def _artifacts() -> str:
    return (_project() / "mlartifacts").as_uri()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise EosreproError(f"port {port} is taken: choose another, `eosrepro ui --port {port + 1}`") from None


class _CarryingOn:
    """Whatever MLflow and its database drivers raise ends the block, not the stage."""

    _warned: ClassVar[set[str]] = set()

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        uri = store_uri()
        if uri not in self._warned:
            self._warned.add(uri)
            reason = " ".join(redacted(f"{type(error).__name__}: {error}").split())[:300]
            line = f"Warning: MLflow at {redacted(uri)} is not up to date ({reason})"
            print(f"{line}; going on without it, `eosrepro sync` catches up", file=sys.stderr)
        return True


def _open(experiment: str) -> _Store:
    uri = store_uri()
    own = None if os.environ.get("MLFLOW_TRACKING_URI") else _artifacts()
    # Several processes that create the tables of one SQLite file at once fail.
    with _locked(uri):
        client = _client(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return _Store(client, _create_experiment(client, experiment, own), uri)
    if not _is_here(found.artifact_location):
        raise RuntimeError(MADE_ELSEWHERE)
    return _Store(client, found.experiment_id, uri)


def _create_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    try:
        return client.create_experiment(name, artifact_location, tags={KIND: TRAINING})
    except Exception:
        found = client.get_experiment_by_name(name)  # another process was first
        if found is None:
            raise
        return found.experiment_id


@cache
def _client(uri: str) -> MlflowClient:
    for key, value in QUIET_AND_QUICK.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would report each try, beside our one line
    return MlflowClient(tracking_uri=uri)


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Hold the lock file beside a SQLite store; other stores look after themselves."""
    database = _file(uri)
    if database is None:
        yield
        return
    path = database.with_name(f"{database.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find(store: _Store, fingerprint: str) -> Run | None:
    runs = store.client.search_runs([store.experiment_id], f"tags.fingerprint = '{fingerprint}'", max_results=1)
    return runs[0] if runs else None


def _create(store: _Store, name: str, tags: Mapping[str, str]) -> Run:
    said = {key: value for key, value in tags.items() if value}
    return store.client.create_run(store.experiment_id, tags=said, run_name=name)


def _log_data(store: _Store, run: Run, data_provenance: Mapping[str, Any] | None) -> None:
    """Name the data set of a run, where that was not done: label, checksum, size, and how it was made."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if data_provenance is None or (run.inputs and run.inputs.dataset_inputs):
        return
    checksum = data_provenance["sha256"]
    origin = {"uri": str(DATA / "dataset.safetensors"), "sha256": checksum}
    source = json.dumps(origin | {key: data_provenance[key] for key in TOLD_ELSEWHERE if key in data_provenance})
    size = json.dumps({"num_rows": data_provenance["n_examples"], "num_classes": data_provenance["n_classes"]})
    data = Dataset(data_provenance["label"], checksum[:8], "local", source, profile=size)
    use = [InputTag(USE_OF_DATA, "training")]
    store.client.log_inputs(run.info.run_id, datasets=[DatasetInput(data, use)])


def _log_points(store: _Store, run_id: str, points: Iterable[Point]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(point.name, point.value, now, point.step) for point in points]
    for start in range(0, len(metrics), POINTS_A_REQUEST):
        store.client.log_batch(run_id, metrics=metrics[start : start + POINTS_A_REQUEST], synchronous=True)


def _log_params(store: _Store, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(items), PARAMS_A_REQUEST):
        store.client.log_batch(run_id, params=items[start : start + PARAMS_A_REQUEST], synchronous=True)


def _set_tags(store: _Store, run: Run, tags: Mapping[str, str]) -> None:
    """Set those with a text, and take away the others."""
    from mlflow.entities import RunTag

    said = [RunTag(key, value) for key, value in tags.items() if value]
    store.client.log_batch(run.info.run_id, tags=said, synchronous=True)
    for key in tags:
        if not tags[key] and key in run.data.tags:
            store.client.delete_tag(run.info.run_id, key)

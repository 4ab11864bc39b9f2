"""A run in MLflow while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from eosrepro.core.types import Row
from eosrepro.views.mlflow.connection import Store, WarnAndContinue, lock_store, open_store
from eosrepro.views.mlflow.points import Point, PointSeries
from eosrepro.views.mlflow.tags import machine_tags, run_params, run_tags
from eosrepro.views.mlflow.writing import create_run, find_run, log_data, log_params, log_points, set_tags

FLUSH_SECONDS = 10.0

Observe = Callable[[Row], None]  # of every row, as it comes


class LiveRun:
    """A run that is being logged as it trains. Where MLflow is away it takes everything and does nothing.

    As a context manager it marks the run as finished, failed or, on Ctrl-C, killed.
    """

    def __init__(self, store: Store | None, run_id: str, series: PointSeries, logged_up_to: int) -> None:
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
            with WarnAndContinue():
                store.client.set_terminated(self._run_id, status)

    def _flush(self) -> None:
        if self._store is None:
            return
        store, self._store = (
            self._store,
            None,
        )  # one failure ends the live log: it must not hold up the run again and again
        started = time.monotonic()
        with WarnAndContinue():
            log_points(store, self._run_id, self._pending)
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
    preconditioned: bool,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> LiveRun:
    """Find or make the MLflow run of a training that starts now, on this machine.

    Args:
        name: name of the run in params.yaml.
        resolved: `Run.settings`.
        data_provenance: stages/data/provenance.json; None for a problem.
        experiment: MLflow experiment, from `mlflow.experiment`.
        window: steps a windowed value covers, from `mlflow.window`.
        profile: name of the profile, for a tag.
        preconditioned: as that of the optimizer.
        tags: further ones.

    Returns:
        A run that takes rows; it does nothing with them where MLflow is away.
    """
    series = PointSeries(window, preconditioned=preconditioned)
    with WarnAndContinue():
        store = open_store(experiment)
        tags = {**run_tags(name, resolved, data_provenance, profile), **machine_tags(resolved), **tags}
        with lock_store(store.uri):
            run = find_run(store, tags["fingerprint"])
            if run is None:
                run = create_run(store, name, tags)
                log_params(store, run.info.run_id, run_params(resolved, data_provenance, window, {}))
            else:
                set_tags(store, run, tags)
                store.client.update_run(run.info.run_id, status="RUNNING")
        log_data(store, run, data_provenance)
        logged = store.client.get_metric_history(run.info.run_id, "train/loss")
        return LiveRun(store, run.info.run_id, series, max((metric.step for metric in logged), default=-1))
    return LiveRun(None, "", series, -1)

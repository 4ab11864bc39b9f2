"""One run in an MLflow store: find it, make it, write to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from eosrepro.records.dataset import DATA
from eosrepro.views.mlflow.connection import Store
from eosrepro.views.mlflow.points import Point
from eosrepro.views.mlflow.tags import NOT_PARAMETERS, USE_OF_DATA, shortened, shortened_facts

if TYPE_CHECKING:
    from mlflow.entities import Run


POINTS_A_REQUEST = 1000  # the most that MLflow takes
PARAMS_A_REQUEST = 100
TAG_LENGTH = 8000
DATA_NAME_LENGTH = 500
DATA_SOURCE_LENGTH = 65_535


def find_run(store: Store, fingerprint: str) -> Run | None:
    """The newest run with a fingerprint. Those it replaced come back with a restored experiment and go again."""
    named = f"tags.fingerprint = '{fingerprint}'"
    runs = store.client.search_runs([store.experiment_id], named, order_by=["attributes.start_time DESC"])
    for replaced in runs[1:]:
        store.client.delete_run(replaced.info.run_id)
    return runs[0] if runs else None


def is_complete(run: Run, synced: Mapping[str, str], artifacts: Mapping[str, Sequence[Path]]) -> bool:
    """Whether a sync has gone through, and its files are still there; of files on a server that is not asked."""
    if run.info.status != "FINISHED" or not synced.items() <= run.data.tags.items():
        return False
    place = urlsplit(str(run.info.artifact_uri))
    if place.scheme != "file":
        return True
    folder = Path(url2pathname(place.path))
    return all((folder / name / path.name).exists() for name, paths in artifacts.items() for path in paths)


def create_run(store: Store, name: str, tags: Mapping[str, str], started: float | None = None) -> Run:
    """`started`: seconds since 1970; None: now."""
    said = {key: shortened(value, TAG_LENGTH) for key, value in tags.items() if value}
    start_time = None if started is None else round(1000 * started)
    return store.client.create_run(store.experiment_id, start_time=start_time, tags=said, run_name=name)


def log_data(store: Store, run: Run, data_provenance: Mapping[str, Any] | None) -> None:
    """Name the data set of a run, where that was not done: label, checksum, size, and how it was made."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if data_provenance is None or (run.inputs and run.inputs.dataset_inputs):
        return
    checksum = data_provenance["sha256"]
    origin = {"uri": str(DATA / "dataset.safetensors"), "sha256": checksum}
    source = _data_source(origin | {key: data_provenance[key] for key in NOT_PARAMETERS if key in data_provenance})
    size = json.dumps({"num_rows": data_provenance["n_examples"], "num_outputs": data_provenance["n_outputs"]})
    label = shortened(data_provenance["label"], DATA_NAME_LENGTH)
    data = Dataset(label, checksum[:8], "local", source, profile=size)
    use = [InputTag(USE_OF_DATA, "training")]
    store.client.log_inputs(run.info.run_id, datasets=[DatasetInput(data, use)])


def _data_source(facts: Mapping[str, Any]) -> str:
    """Where data are from and how they were made, as JSON; with long facts shortened where MLflow would refuse it."""
    text = json.dumps(facts, ensure_ascii=False)
    if len(text) > DATA_SOURCE_LENGTH:
        text = json.dumps(shortened_facts(facts), ensure_ascii=False)
    return shortened(text, DATA_SOURCE_LENGTH)


def log_points(store: Store, run_id: str, points: Iterable[Point]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(point.name, point.value, now, point.step) for point in points]
    for start in range(0, len(metrics), POINTS_A_REQUEST):
        store.client.log_batch(run_id, metrics=metrics[start : start + POINTS_A_REQUEST], synchronous=True)


def log_params(store: Store, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(items), PARAMS_A_REQUEST):
        store.client.log_batch(run_id, params=items[start : start + PARAMS_A_REQUEST], synchronous=True)


def set_tags(store: Store, run: Run, tags: Mapping[str, str]) -> None:
    """Set those with a text, and take away the others."""
    from mlflow.entities import RunTag

    said = [RunTag(key, shortened(value, TAG_LENGTH)) for key, value in tags.items() if value]
    store.client.log_batch(run.info.run_id, tags=said, synchronous=True)
    for key in tags:
        if not tags[key] and key in run.data.tags:
            store.client.delete_tag(run.info.run_id, key)

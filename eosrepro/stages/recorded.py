"""What is recorded of the runs of params.yaml, and of the published ones beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from eosrepro.config.members import Figure
from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.types import Dataset
from eosrepro.errors import StoreError
from eosrepro.records.dataset import DATA, load_dataset, load_provenance
from eosrepro.records.later import pandas as pd
from eosrepro.records.places import train_folder
from eosrepro.records.published import curves, published
from eosrepro.records.runs import Origin, Record, load_record


def recorded(run: Run) -> Record:
    """What is recorded of a run of params.yaml.

    Raises:
        StoreError: nothing, or what cannot be read.
    """
    folder = train_folder(run.experiment, run.name)
    record = load_record(folder)
    if record.name != run.name:
        raise StoreError(f"{folder} holds the run {record.name!r}: delete it and run `dvc repro`")
    return record


def origin_now(run: Run, data: Dataset | None, fingerprint: str) -> Origin:
    """What a run is made with that is trained now."""
    return Origin(
        settings=run.settings,
        data=str(data or ""),
        data_sha256=(provenance_of(data) or {}).get("sha256"),
        counts=run.counts,
        fingerprint=fingerprint,
        threshold_formula=run.method.threshold_formula,
        preconditioned=run.method.preconditioned,
    )


def data_of(runs: Sequence[Run]) -> Dataset | None:
    """The data that they are trained on, of several ranks the share of this one; None where none of them is."""
    trained = [run for run in runs if run.has_examples]
    return load_dataset(DATA, chunk_size=trained[0].compute.chunk_size) if trained else None


def provenance_now(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """That of the data that they are trained on; None where none of them is."""
    return load_provenance(DATA) if any(run.has_examples for run in runs) else None


def provenance_of(data: Dataset | None) -> Mapping[str, Any] | None:
    return None if data is None else data.provenance


def is_trained(run: Run) -> bool:
    return (train_folder(run.experiment, run.name) / "summary.json").exists()


def recorded_runs(runs: Iterable[Run]) -> dict[str, Record]:
    """Those of these runs that are recorded."""
    return {run.name: recorded(run) for run in runs if is_trained(run)}


def worded_figure(config: Config, figure: Figure, records: Mapping[str, Record]) -> Figure:
    """The figure with step sizes in its texts: those of the records, where there are any."""
    return figure.worded({run: step_size_of(config, run, records) for run in figure.runs})


def step_size_of(config: Config, name: str, records: Mapping[str, Record]) -> Fraction:
    """That of the record, if there is one; where params.yaml has the same now, as it is written there."""
    declared = config.run(name).setting.step_size
    return declared if name not in records or records[name].step_size == declared else records[name].step_size


def published_runs(config: Config, records: Mapping[str, Record]) -> dict[str, Record]:
    """What the paper shows of the recorded runs, where the profile lays it under ours and the step sizes agree."""
    if config.paper is None or not config.active.published:
        return {}
    found = {name: published(Path(config.paper), name) for name in records}
    return {name: of for name, of in found.items() if of and of.step_size == records[name].step_size}


def published_curves(config: Config, records: Mapping[str, Record]) -> dict[str, dict[str, pd.DataFrame]]:
    """Quantity → run → published curve with columns x and y, of those runs."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for name in published_runs(config, records):
        for quantity, curve in curves(Path(str(config.paper)), name).items():
            found.setdefault(quantity, {})[name] = curve
    return found

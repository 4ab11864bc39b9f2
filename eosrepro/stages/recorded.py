"""What is recorded of the runs of params.yaml, and of the published ones beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from eosrepro.config.members import Figure
from eosrepro.config.params import Config, counts_epochs
from eosrepro.config.sections import Toy
from eosrepro.core.types import Dataset
from eosrepro.errors import StoreError
from eosrepro.records.dataset import DATA, load_dataset
from eosrepro.records.places import train_folder
from eosrepro.records.published import load_published, published_run
from eosrepro.records.runs import Origin, Record, load_record
from eosrepro.stages.build import optimizer


def recorded(config: Config, name: str) -> Record:
    """What is recorded of a run of params.yaml.

    Raises:
        StoreError: nothing, or what cannot be read.
    """
    folder = train_folder(config.run(name).folder, name)
    record = load_record(folder)
    if record.name != name:
        raise StoreError(f"{folder} holds the run {record.name!r}: delete it and run `dvc repro`")
    return record


def origin_now(config: Config, name: str, data: Dataset | None, fingerprint: str) -> Origin:
    """What a run is made with that is trained now."""
    return Origin(
        settings=config.resolved(name),
        data=str(data or ""),
        data_sha256=(provenance_of(data) or {}).get("sha256"),
        counts="epochs" if counts_epochs(config.run(name)) else "iterations",
        fingerprint=fingerprint,
        threshold_formula=optimizer(config.run(name)).threshold_formula,
    )


def data_of(config: Config, name: str) -> Dataset | None:
    return None if isinstance(config.run(name), Toy) else load_dataset(DATA)


def provenance_of(data: Dataset | None) -> Mapping[str, Any] | None:
    return None if data is None else data.provenance


def is_trained(config: Config, name: str) -> bool:
    return (train_folder(config.run(name).folder, name) / "summary.json").exists()


def recorded_runs(config: Config, names: Iterable[str]) -> dict[str, Record]:
    """Those of these runs that are recorded."""
    return {name: recorded(config, name) for name in names if is_trained(config, name)}


def worded_figure(config: Config, figure: Figure, records: Mapping[str, Record]) -> Figure:
    """The figure with step sizes in its texts: those of the records, where there are any."""
    return figure.worded({run: step_size_of(config, run, records) for run in figure.runs})


def step_size_of(config: Config, name: str, records: Mapping[str, Record]) -> Fraction:
    return records[name].step_size if name in records else config.run(name).step_size


def published_runs(config: Config, records: Mapping[str, Record]) -> dict[str, Record]:
    """The curves that figures lay under the runs of networks, by run."""
    curves: dict[str, dict[str, str]] = {}
    for figure in config.figures.values():
        for quantity, files in published_files(config, figure, records).items():
            for name, file in files.items():
                curves.setdefault(name, {})[quantity] = file
    return {name: load_published(name, files) for name, files in curves.items() if name in config.experiments}


def published_files(config: Config, figure: Figure, records: Mapping[str, Record]) -> dict[str, dict[str, str]]:
    """Panel → run → published curve; none where the run has another step size than the published one."""

    def is_of(run: str, file: str) -> bool:
        return run in records and published_run(file).step_size == records[run].step_size

    return {
        panel: {run: file for run, file in files.items() if is_of(run, file)}
        for panel, files in (figure.reference if config.active.published else {}).items()
    }

"""The training data as one verified file."""

from __future__ import annotations

from pathlib import Path

from eosrepro.core.types import Dataset
from eosrepro.errors import StoreError
from eosrepro.records.files import load_json, load_tensors, save_json, save_tensors, sha256
from eosrepro.records.places import STAGES

DATA = STAGES / "data"
DATA_SETTINGS = STAGES / "data.json"  # not in the folder: the same data from another place train nothing anew


def save_dataset(folder: Path, dataset: Dataset) -> None:
    """Write dataset.safetensors and provenance.json; the checksum of the tensors goes into the provenance."""
    tensors = {"inputs": dataset.inputs, "targets": dataset.targets}
    tensors |= dict(zip(("test_inputs", "test_targets"), dataset.test or (), strict=False))
    path = folder / "dataset.safetensors"
    save_tensors(path, tensors)
    facts = {"label": dataset.label, "n_examples": len(dataset), "n_outputs": dataset.n_outputs, "sha256": sha256(path)}
    # Facts first for the reader, and last so that none of an earlier file survives saving a data set that was loaded.
    save_json(folder / "provenance.json", {**facts, **dataset.provenance, **facts})


def load_dataset(folder: Path) -> Dataset:
    """Read what `save_dataset` wrote, and verify it.

    Raises:
        StoreError: a file is missing, or the files are not those that the data stage wrote.
    """
    provenance = load_json(folder / "provenance.json")
    if missing := {"sha256", "label", "n_outputs"} - provenance.keys():
        raise StoreError(f"{folder / 'provenance.json'} lacks {', '.join(sorted(missing))}: run `eosrepro data` again")
    path = folder / "dataset.safetensors"
    tensors = load_tensors(path)
    if sha256(path) != provenance["sha256"]:
        raise StoreError(f"{path} has changed since the data stage wrote it: run `eosrepro data` again")
    test = (tensors["test_inputs"], tensors["test_targets"]) if "test_inputs" in tensors else None
    return Dataset(
        tensors["inputs"], tensors["targets"], provenance["n_outputs"], provenance["label"], provenance, test
    )

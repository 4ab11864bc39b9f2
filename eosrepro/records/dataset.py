"""The training data as one verified file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosrepro.core.ranks import world
from eosrepro.core.spread import Spread, chunk_sizes
from eosrepro.core.types import Dataset
from eosrepro.errors import StoreError
from eosrepro.records.files import load_json, load_rows, load_tensors, save_json, save_tensors, sha256, shape_of
from eosrepro.records.places import STAGES

if TYPE_CHECKING:
    from torch import Tensor

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


def load_dataset(folder: Path, *, chunk_size: int | None = None) -> Dataset:
    """Read what `save_dataset` wrote, and verify it.

    Args:
        chunk_size: where there are several ranks, each reads the inputs of its own chunks of so many examples.

    Raises:
        StoreError: a file is missing, or the files are not those that the data stage wrote.
        ConfigError: there are fewer chunks than ranks.
    """
    provenance = _facts(folder)
    path, shared = folder / "dataset.safetensors", chunk_size if world().size > 1 else None
    tensors = load_tensors(path) if shared is None else {}
    _verify(path, provenance)
    spreads: dict[str, Spread | None] = {}
    if shared is not None:
        tensors, spreads["spread"] = _share(path, "", shared)
        if shape_of(path, "test_targets"):
            of_test, spreads["test_spread"] = _share(path, "test_", shared)
            tensors |= of_test
    test = (tensors["test_inputs"], tensors["test_targets"]) if "test_inputs" in tensors else None
    return Dataset(
        tensors["inputs"], tensors["targets"], provenance["n_outputs"], provenance["label"], provenance, test, **spreads
    )


def load_provenance(folder: Path) -> dict[str, Any]:
    """What `load_dataset` has as the provenance, of the same verified files; no number is read.

    Raises:
        StoreError: as there.
    """
    provenance, path = _facts(folder), folder / "dataset.safetensors"
    if not path.exists():
        raise StoreError(f"{path} does not exist: run `dvc repro` to make it")
    _verify(path, provenance)
    return provenance


def _facts(folder: Path) -> dict[str, Any]:
    provenance = load_json(folder / "provenance.json")
    if missing := {"sha256", "label", "n_outputs"} - provenance.keys():
        raise StoreError(f"{folder / 'provenance.json'} lacks {', '.join(sorted(missing))}: run `eosrepro data` again")
    return provenance


def _verify(path: Path, provenance: Mapping[str, Any]) -> None:
    if sha256(path) != provenance["sha256"]:
        raise StoreError(f"{path} has changed since the data stage wrote it: run `eosrepro data` again")


def _share(path: Path, split: str, chunk_size: int) -> tuple[dict[str, Tensor], Spread | None]:
    """What this rank holds of a split: its own inputs, and all targets; of a test split of few chunks all of it."""
    targets, inputs = f"{split}targets", f"{split}inputs"
    n_examples = (shape_of(path, targets) or [0])[0]
    few = split and len(chunk_sizes(n_examples, chunk_size)) < world().size
    spread = None if few else Spread.of(n_examples, chunk_size)
    whole = range(n_examples)
    rows = load_rows(path, inputs, spread.here if spread else whole)
    return {inputs: spread.placed(rows) if spread else rows, targets: load_rows(path, targets, whole)}, spread

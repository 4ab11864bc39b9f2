"""The parameters at some iterations of a run, a file each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from eosrepro.errors import StoreError
from eosrepro.records.files import link_or_copy, load_tensors, save_tensors, sha256, write_error


class Snapshot(NamedTuple):
    """The parameters at one iteration of a run."""

    step: int
    theta: Tensor  # (P,)


def save_snapshot(folder: Path, step: int, theta: Tensor) -> None:
    """Write θ of one iteration as `<step>.safetensors` below `folder`."""
    save_tensors(folder / snapshot_name(step), {"theta": theta})


def snapshot_name(step: int) -> str:
    """Name of the file of the snapshot at an iteration."""
    return f"{step:07d}.safetensors"


def load_snapshots(folder: Path) -> Iterator[Snapshot]:
    """The snapshots of a run, by iteration, one in memory at a time.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    return map(load_snapshot, snapshot_paths(folder))


def load_snapshot(path: Path) -> Snapshot:
    """One snapshot.

    Raises:
        StoreError: it cannot be read.
    """
    tensors = load_tensors(path)
    if "theta" not in tensors:
        raise StoreError(f"{path} is not a snapshot: delete it and run `dvc repro`")
    return Snapshot(int(path.stem), tensors["theta"])


def snapshot_paths(folder: Path) -> list[Path]:
    """Files of the snapshots of a run, by iteration."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise StoreError(f"{folder} holds no snapshots: run `eosrepro train` for this experiment first")
    if strangers := [path for path in paths if not path.stem.isdecimal()]:
        raise StoreError(f"{strangers[0]} is not a snapshot: delete it and run `dvc repro`")
    return paths


def last_snapshot(folder: Path) -> str | None:
    """Identifies a training: SHA-256 of its last snapshot, None if there is none."""
    paths = sorted(folder.glob("*.safetensors"))
    return sha256(paths[-1]) if paths else None


def place_snapshots(source: Path, target: Path) -> None:
    """Put the snapshots of a run in place of those in `target`. They stay in `source` too, without a second copy."""
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in snapshot_paths(source):
            link_or_copy(path, target / path.name)
    except OSError as error:
        raise write_error(target, error) from None

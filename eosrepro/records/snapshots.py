"""Where a run stood at some iterations, a file each: θ, and the state of the optimizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from eosrepro.core.later import pytree, torch
from eosrepro.core.types import Position
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.files import link_or_copy, load_arrays, load_tensors, save_tensors, sha256, write_error

if TYPE_CHECKING:
    from torch import Tensor

Content = TypeVar("Content")


def save_snapshot(folder: Path, at: Position) -> None:
    """Write a position as `<step>.safetensors` below `folder`: all that the next step hangs on.

    Raises:
        ConfigError: the state of the optimizer holds more than numbers and tensors.
    """
    save_tensors(folder / snapshot_name(at.step), {"theta": at.theta, **_tensors_of(at.state)})


def _tensors_of(state: object) -> dict[str, Tensor]:
    """The state in a flat form: its numbers and tensors, and how they are nested."""
    if state is None:
        return {}
    leaves, nesting = pytree.tree_flatten(state)
    try:
        kinds = [_kind(leaf) for leaf in leaves]
        named = zip(map(_as_tensor, leaves), kinds, strict=True)
        found = {f"state.{i}.{kind}": leaf for i, (leaf, kind) in enumerate(named)}
        return {
            **found,
            "state": torch.frombuffer(bytearray(pytree.treespec_dumps(nesting).encode()), dtype=torch.uint8),
        }
    except (KeyError, ValueError, NotImplementedError):
        held = ", ".join(sorted({type(leaf).__name__ for leaf in leaves}))
        raise ConfigError(
            f"the state of the optimizer cannot be kept: it should be numbers of 64 bits and tensors, in lists, tuples "
            f"or dicts, and is a {type(state).__name__} of {held}"
        ) from None


def _kind(leaf: object) -> str:
    # A method without a state, within one that has some, leaves a None there.
    return "tensor" if isinstance(leaf, torch.Tensor) else "nothing" if leaf is None else "number"


def _as_tensor(leaf: object) -> Tensor:
    if leaf is None:
        return torch.zeros(0)
    # A tensor may share its memory with θ, or with another: in the file each has its own.
    dtypes = {bool: torch.bool, int: torch.int64, float: torch.float64}
    return leaf.clone() if isinstance(leaf, torch.Tensor) else torch.tensor(leaf, dtype=dtypes[type(leaf)])


def _state_in(tensors: dict[str, Tensor]) -> object:
    if "state" not in tensors:
        return None
    named = {int(name.split(".")[1]): (name, value) for name, value in tensors.items() if name.startswith("state.")}
    read: dict[str, Callable[[Tensor], object]] = {
        "tensor": lambda value: value,
        "number": torch.Tensor.item,
        "nothing": lambda _value: None,
    }
    leaves = [read[name.split(".")[2]](value) for _, (name, value) in sorted(named.items())]
    return pytree.tree_unflatten(leaves, pytree.treespec_loads(bytes(tensors["state"].tolist()).decode()))


def snapshot_name(step: int) -> str:
    """Name of the file of the snapshot at an iteration."""
    return f"{step:07d}.safetensors"


def load_snapshots(folder: Path) -> Iterator[Position]:
    """The snapshots of a run, by iteration, one in memory at a time.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    return map(load_snapshot, snapshot_paths(folder))


def load_snapshot(path: Path) -> Position:
    """One snapshot.

    Raises:
        StoreError: it cannot be read.
    """
    tensors = _snapshot(path, load_tensors(path))
    return Position(int(path.stem), tensors["theta"], _state_in(tensors))


def load_thetas(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Step and θ of each snapshot, for those who compute nothing: without PyTorch.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    return ((int(path.stem), _snapshot(path, load_arrays(path))["theta"]) for path in snapshot_paths(folder))


def _snapshot(path: Path, content: dict[str, Content]) -> dict[str, Content]:
    if "theta" not in content:
        raise StoreError(f"{path} is not a snapshot: delete it and run `dvc repro`")
    return content


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

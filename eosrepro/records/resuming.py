"""What a stage has done so far, kept where a kill leaves it, so that the same stage goes on from there.

    stages/unfinished/<stage and run>/lock       held while it runs: two processes never work at the same result
    stages/unfinished/<stage and run>/<key>/     its checkpoints, and the snapshots made so far

The key is a digest of all that determines the result, its code included, and of the code that keeps it. A stage that
starts with another key starts afresh, and the state of the old one is removed. At success all of it is removed. DVC
deletes the outputs of a stage before it runs it, so none of this lies in an output.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from eosrepro.core.later import pytree, torch
from eosrepro.core.ranks import from_first
from eosrepro.core.types import Position, Row
from eosrepro.errors import StoreError
from eosrepro.records import files
from eosrepro.records.code import digest_of
from eosrepro.records.files import remove_leftovers, save_checkpoint, write_error
from eosrepro.records.locks import SHARED, BusyError, try_lock
from eosrepro.records.places import STAGES
from eosrepro.records.snapshots import load_snapshot, save_snapshot, snapshot_name

if TYPE_CHECKING:
    from torch import Tensor

# From one checkpoint to the next: what a kill costs at most.
CHECKPOINT_SECONDS = float(os.environ.get("EOSREPRO_CHECKPOINT_SECONDS", "10"))
CHECKPOINT_SHARE = 20  # but this many times as long as the last one took to write, which is long for a large network
UNFINISHED = STAGES / "unfinished"


@contextmanager
def unfinished(result: Path, key: Any) -> Iterator[Path]:
    """The folder of the unfinished work at `result`, for one process at a time; empty where there is none.

    It is removed where the block ends without an error, and kept where it does not.

    Args:
        result: where the stage puts what it makes.
        key: whatever determines the result beside the libraries and the machine, digests of its code among it.

    Raises:
        BusyError: another process works at the same result.
        StoreError: the folder cannot be made.
    """
    place = place_of(result)
    with _locked(place, result):
        digest = hashlib.sha256(
            json.dumps([key, digest_of([__name__]), machine()], sort_keys=True, default=str).encode()
        )
        folder = place / digest.hexdigest()[:16]
        for stale in place.iterdir():
            if stale.name not in (folder.name, "lock"):
                shutil.rmtree(stale)
        folder.mkdir(exist_ok=True)
        remove_leftovers(folder)
        yield folder
        shutil.rmtree(folder)
        (place / "lock").unlink()  # the last, and held: see `_locked`
        with suppress(OSError):  # another process is here already
            place.rmdir()


def finished(result: Path) -> None:
    """Remove what is left of the work at a result that is finished: of a process that was killed at its very end."""
    if place_of(result).exists():
        with suppress(StoreError), unfinished(result, None):  # another process works there: that one removes it
            pass


def place_of(result: Path) -> Path:
    """Where the unfinished work at `result` is kept."""
    return UNFINISHED / ".".join(part for part in result.parts if part not in (os.sep, "..", STAGES.name))


def is_at_work(result: Path) -> bool:
    """Whether a process works at it now."""
    return _is_held(place_of(result) / "lock")


@dataclass(frozen=True)
class Standing:
    """How far an unfinished stage is."""

    name: str  # of its folder below stages/unfinished
    step: int | None  # the last iteration that is kept; None: nothing is kept yet
    running: bool  # a process works at it


def standings() -> dict[str, Standing]:
    """All unfinished stages, by name. Work of other settings or sources than today's is among them."""
    places = sorted(lock.parent for lock in UNFINISHED.glob("*/lock"))
    return {place.name: Standing(place.name, _last_step(place), _is_held(place / "lock")) for place in places}


class Training:
    """A training as far as it has come: its rows and where it stands."""

    def __init__(self, folder: Path, snapshot_every: int) -> None:
        self.rows: list[Row] = []
        self._folder, self._every = folder, snapshot_every
        self._latest: Position | None = None
        self._kept_at, self._took = time.monotonic(), 0.0
        self._started, self._before = time.monotonic(), 0.0
        saved = load_checkpoint(folder / "checkpoint")
        if saved is None or not self._snapshots_are_complete(saved["step"]):
            shutil.rmtree(folder / "snapshots", ignore_errors=True)
            return
        self._discard_snapshots_after(saved["step"])
        self.rows = [Row.of(dict(zip(saved["columns"], values, strict=True))) for values in saved["rows"].tolist()]
        self._latest = Position(saved["step"], saved["theta"], saved["state"])
        self._before = saved["seconds"]
        print(f"Going on from iteration {saved['step']}, where an earlier attempt stood", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """How long it has taken, with earlier attempts."""
        return self._before + time.monotonic() - self._started

    def position(self, theta: Tensor) -> Tensor | Position:
        """Where to start: at θ₀, which `theta` is, or where an earlier process stood; the same on all ranks."""
        return started_at(from_first(lambda: self._latest), theta)

    def keep(self, at: Position) -> None:
        """Make a snapshot where one is due, and a checkpoint where the last one is old; after the rows before `at`."""
        if at.step % self._every == 0:
            save_snapshot(self._folder / "snapshots", at)
        self._latest = at
        if time.monotonic() - self._kept_at >= max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * self._took):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write down where the training stands."""
        if self._latest is not None:
            started = time.monotonic()
            step, theta, state = self._latest
            table = [row.columns for row in self.rows[:step]]
            rows = torch.tensor([[*columns.values()] for columns in table], dtype=torch.float64)
            content = {
                "columns": [*table[0]] if table else [],
                "step": step,
                "theta": theta,
                "state": state,
                "rows": rows,
                "seconds": self.seconds,
            }
            save_checkpoint(self._folder / "checkpoint", content)
            self._kept_at = time.monotonic()
            self._took = self._kept_at - started

    def _due_until(self, step: int) -> list[Path]:
        return [self._folder / "snapshots" / snapshot_name(due) for due in range(0, step + 1, self._every)]

    def _discard_snapshots_after(self, step: int) -> None:
        due = set(self._due_until(step))
        for path in (self._folder / "snapshots").glob("*.safetensors"):
            if path not in due:
                path.unlink()

    def _snapshots_are_complete(self, step: int) -> bool:
        for path in self._due_until(step):
            try:
                load_snapshot(path)
            except StoreError:
                print(f"Warning: {path} is missing, truncated or altered. Starting afresh", file=sys.stderr)
                return False
        return True


def started_at(latest: Position | None, theta: Tensor) -> Tensor | Position:
    """Where a training starts that stood at `latest`, as the CPU keeps it; at θ₀, which `theta` is, where nowhere."""
    if latest is None:
        return theta
    step, reached, state = latest
    return Position(
        step,
        reached.to(theta),
        pytree.tree_map_only(torch.Tensor, lambda each: each.to(theta.device), state),
    )


@contextmanager
def training(folder: Path, snapshot_every: int) -> Iterator[Training]:
    """The training that is unfinished in `folder`, or a new one. Whatever ends it early, it can go on from there."""
    so_far = Training(folder, snapshot_every)
    remove_leftovers(folder / "snapshots")
    try:
        yield so_far
    except BaseException:
        so_far.checkpoint()
        raise


def load_checkpoint(path: Path) -> Any:
    """What `save_checkpoint` wrote; None where there is none, or where it is damaged, which is said."""
    try:
        return files.load_checkpoint(path)
    except StoreError as error:
        print(f"Warning: {error}. Starting afresh", file=sys.stderr)
        return None


@contextmanager
def _locked(place: Path, result: Path) -> Iterator[None]:
    while True:
        with _opened(place) as file:
            if not (try_lock(file) or _lock_soon(file)):
                raise BusyError(f"another process works at {result}: wait for it, or end it")
            if _is_at(file, place / "lock"):  # and was not removed, by a process that was done, before it was locked
                yield
                return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock_soon(file: IO[str]) -> bool:
    time.sleep(0.1)  # `standings` holds it for a moment
    return try_lock(file)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            return not try_lock(file, SHARED)
    except OSError:  # finished, and removed, since it was found
        return False


def _last_step(place: Path) -> int | None:
    """Of the checkpoint of a training, or of the blocks of a diagnostic."""
    steps = [saved["step"] for saved in map(_saved, place.glob("*/checkpoint")) if saved]
    rows = [saved["rows"] for saved in map(_saved, place.glob("*/from_*")) if saved]
    return max([*steps, *(each[-1]["step"] for each in rows if each)], default=None)


def _saved(path: Path) -> Any:
    with suppress(StoreError):
        return files.load_checkpoint(path)
    return None


def _opened(place: Path) -> IO[str]:
    try:
        place.mkdir(parents=True, exist_ok=True)
        return (place / "lock").open("w")
    except OSError as error:
        raise write_error(place, error) from None


def machine() -> list[str]:
    """What rounding hangs on beside the settings: a run that went on elsewhere would be a mixture."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return [torch.__version__, np.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), gpu]

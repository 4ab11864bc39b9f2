"""What is finished, by what determines it: a run, or what a diagnostic found on one, is not computed a second time.

    stages/store/<key>/            the files, linked from there to where stages put them
    stages/store/<key>/files.json  their sizes and times: an entry with an altered file counts for nothing

DVC deletes the outputs of a stage before it runs it. An experiment that gets one more run finds the others here.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eosrepro.errors import StoreError
from eosrepro.records.files import link_or_copy, load_json, save_json, write_error
from eosrepro.records.places import STAGES

STORE = STAGES / "store"
FILES = "files.json"  # of an entry


def holds(key: str) -> bool:
    """Whether it is there, and whole."""
    folder = STORE / key
    try:
        return bool(load_json(folder / FILES)["files"] == _state_of(folder))
    except (StoreError, KeyError):
        return False


@contextmanager
def adding(key: str, *, seconds: float = 0.0) -> Iterator[Path]:
    """A folder whose content becomes that entry where the block ends without an error; it took so long to compute."""
    with _replacing(STORE / key) as made:
        yield made
        save_json(made / FILES, {"files": _state_of(made), "ended": time.time(), "seconds": seconds})


def place(key: str, target: Path) -> None:
    """Put the files of an entry in place of the folder `target`."""
    with _replacing(target) as made:
        for name in _state_of(STORE / key):
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(STORE / key / name, made / name)


def place_files(key: str, target: Path) -> None:
    """Put the files of an entry into the folder `target`, beside others."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in _state_of(STORE / key):
            (target / name).unlink(missing_ok=True)
            link_or_copy(STORE / key / name, target / name)
    except OSError as error:
        raise write_error(target, error) from None


def times(key: str) -> tuple[float, float] | None:
    """When the computation of an entry began and ended, in seconds since 1970; None where it is not there."""
    try:
        facts = load_json(STORE / key / FILES)
        return facts["ended"] - facts["seconds"], facts["ended"]
    except (StoreError, KeyError):
        return None


def drop_snapshots(key: str, *placed: Path) -> None:
    """Delete the snapshots of a run, here and where it was placed: they are most of its bytes."""
    for folder in (STORE / key, *placed):
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
    save_json(STORE / key / FILES, load_json(STORE / key / FILES) | {"files": _state_of(STORE / key)})


def entries() -> list[str]:
    """Of all entries."""
    return sorted(path.name for path in STORE.glob("[!.]*"))


def age(key: str) -> float:
    """When it was made."""
    return (STORE / key).stat().st_mtime


def size(key: str) -> int:
    """Bytes."""
    return sum(path.stat().st_size for path in (STORE / key).rglob("*") if path.is_file())


def remove(key: str) -> None:
    """Delete an entry; what is linked from it stays where it is."""
    shutil.rmtree(STORE / key, ignore_errors=True)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of another at once, where the block ends without an error."""
    for left in folder.parent.glob(f".{folder.name}.*"):  # by processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    made = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        made.mkdir(parents=True)
        yield made
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    except OSError as error:
        raise write_error(folder, error) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _state_of(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILES)
    return {str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}

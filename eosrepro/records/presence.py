"""A file in the store that says, on every machine that sees it, whether the process that made it is still there.

It holds a word that nobody can guess, and its process holds a lock on it. Who reads the word stands before the same
disk; who finds it locked knows that locks hold between the two machines, and that the process is alive.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from eosrepro.records.files import write_error
from eosrepro.records.locks import SHARED, try_lock
from eosrepro.records.store import STORE

OLD = 86_400.0  # seconds
Found = Literal["here", "gone", "not locked"]


class Presence(NamedTuple):
    """What another process looks for."""

    name: str  # of the file in the store
    word: str  # in it


@contextmanager
def present() -> Iterator[Presence]:
    """Be there until the block ends."""
    for left in STORE.glob(".farm.*"):  # by processes that were killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > OLD and _look(left) != "here":
                left.unlink()
    presence = Presence(f".farm.{secrets.token_hex(8)}", secrets.token_hex(16))
    path = STORE / presence.name
    try:
        STORE.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise write_error(path, error) from None
    with file:
        try_lock(file)
        file.write(presence.word)
        file.flush()
        os.fsync(file.fileno())
        try:
            yield presence
        finally:
            with suppress(OSError):
                path.unlink()


def look(for_: Presence) -> Found:
    """Whether that process is there: `gone` also where its file is not to be seen."""
    return _look(STORE / for_.name, for_.word)


def _look(path: Path, word: str | None = None) -> Found:
    try:
        with path.open("r+") as file:  # NFS locks what is open for writing
            if word is not None and file.read() != word:
                return "gone"
            return "not locked" if try_lock(file, SHARED) else "here"
    except FileNotFoundError:
        return "gone"

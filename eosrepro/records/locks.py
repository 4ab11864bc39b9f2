"""Locks between processes, also of several machines.

flock, and no file that is made with O_EXCL: the kernel gives a lock up when its process ends, however it ends, while
such a file would stay and block the next attempt until somebody deletes it. On NFS, Linux takes flock to the server as
a lock of the whole file, for which the file must be open for writing. Where a disk is mounted so that it keeps locks to
each machine (`local_lock`, `nolock`, Lustre's `localflock`), `presence` finds that out.
"""

from __future__ import annotations

import fcntl
from typing import IO

from eosrepro.errors import StoreError

EXCLUSIVE, SHARED = fcntl.LOCK_EX, fcntl.LOCK_SH


class BusyError(StoreError):
    """Another process works at the same result."""


def try_lock(file: IO[str], how: int = EXCLUSIVE) -> bool:
    """Whether this process now holds the lock: until it closes the file, or ends."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Processes of this package: how they end, and what they may take."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import threading
from math import inf
from multiprocessing.connection import wait
from pathlib import Path


def die_with_parent() -> None:
    """On Linux, ask the kernel to send SIGTERM to this process when its parent dies.

    A stage of a killed `dvc repro` would else go on beside the next one.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def die_with_employer() -> None:
    """Have SIGTERM sent to this process when the one that it works for dies; it need not be the one that forked it."""
    employer, ours = multiprocessing.parent_process(), threading.main_thread().ident
    if employer is None or ours is None:
        return

    def watch() -> None:
        wait([employer.sentinel])
        signal.pthread_kill(ours, signal.SIGTERM)  # to that thread: one that waits for work would else not see it

    threading.Thread(target=watch, daemon=True).start()


def free_memory() -> float:
    """Bytes of memory that this process can still take, by its machine and its container; infinite where unknown."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> float:
    try:
        return _table(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    except (OSError, KeyError):
        return inf


def _free_of_container() -> float:
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::/")[2].strip()
        place = Path("/sys/fs/cgroup") / group
        limit, used = ((place / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        files = _table(place / "memory.stat")
        # What files are kept in is given back when a process asks for it.
        return float(limit) - float(used) + files["inactive_file"] + files["active_file"]
    except (OSError, KeyError, ValueError):  # no limit is "max"
        return inf


def _table(path: Path) -> dict[str, float]:
    lines = path.read_text(encoding="ascii").splitlines()
    return {name: float(value) for name, value, *_ in map(str.split, lines)}

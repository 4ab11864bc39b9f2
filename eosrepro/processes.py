"""Processes of this package: how they end, and what they may take."""

from __future__ import annotations

import ctypes
import signal
import sys
from math import inf
from pathlib import Path


def die_with_parent() -> None:
    """Have this process end when the one that started it ends, however that comes about; on Linux.

    A stage of a killed `dvc repro` would else go on beside the next one.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def available_memory() -> float:
    """Bytes of memory that this process can still take, by its machine and its container; infinite where unknown."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return inf
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), inf)


def _free_of_container() -> float:
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
    except OSError:
        return inf
    return inf if limit == "max" else float(limit) - float(used)

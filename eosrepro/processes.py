"""How processes of this package end."""

from __future__ import annotations

import ctypes
import signal
import sys


def die_with_parent() -> None:
    """Have this process end when the one that started it ends, however that comes about; on Linux.

    A stage of a killed `dvc repro` would else go on beside the next one.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)

"""What a worker of a farm does with a ticket: a process of its own computes the run, and says what came of it.

A process each, since a worker lives long: what it once imported may be other code than the files hold now. It can be
ended without the worker too, and then writes its checkpoint first. This file needs nothing but Python's library.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

PROGRAM = "from eosrepro.tools.ticket import main; main()"
TOLD = ("Warning:", "Going on from")  # of what a run says, what a person should see
LAST_LINES = 20


def compute(ticket: Mapping[str, Any]) -> dict[str, Any]:
    """What came of a ticket, as `ticket.Answer` in plain data."""
    facts: dict[str, Any] = {"host": socket.gethostname()}
    folder = ticket["folder"]
    if not os.path.isdir(folder):  # noqa: PTH112
        found = f"does not see {folder}: the project must lie on a disk that all workers see, at the same path"
        return {**facts, "state": "refused", "said": found}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C goes to the farm alone, which ends the others in good order
    ) as process:
        answer, errors = process.communicate(json.dumps(ticket))
    lines = errors.splitlines()
    facts["told"] = [line for line in lines if line.startswith(TOLD)]
    if process.returncode < 0:
        return {**facts, "state": "killed", "said": f"its process was killed by signal {-process.returncode}"}
    try:
        return {**json.loads(answer.splitlines()[-1]), **facts}
    except (IndexError, ValueError):  # an error that no one expected
        return {**facts, "state": "failed", "said": "\n".join(lines[-LAST_LINES:])}


def dask_setup(_worker: Any) -> None:
    """What Dask calls in a worker of this machine: Ctrl-C goes to all processes, and the farm itself ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

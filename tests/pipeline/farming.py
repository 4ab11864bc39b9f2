"""A project of long runs that is farmed out, and the processes at work on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from eosrepro.records.resuming import load_checkpoint
from tests.project import ROOT, environment, write_params, write_part

RUNS = ("exp3_2over10", "exp3_2over30")
STEPS = 5_000
ENVIRONMENT = environment() | {"EOSREPRO_CHECKPOINT_SECONDS": "0.2", "PYTHONPATH": str(ROOT)}
FARM = (sys.executable, "-c", "from eosrepro.cli import main; main(prog_name='eosrepro')", "farm")
SECONDS = 240  # to the end of anything

Done = subprocess.CompletedProcess[str]
Found = TypeVar("Found")


def write_long(folder: Path) -> None:
    """Two runs that take long enough to be interrupted, with their data."""
    params = write_part(folder, "exp3")
    params["profiles"]["quick"] |= {"max_steps": STEPS, "snapshot_every": 200}
    write_params(folder, params)
    for command in (("init", "--no-scm", "--quiet"), ("repro", "data")):
        done = dvc(folder, *command)
        assert done.returncode == 0, done.stderr


def dvc(folder: Path, *words: str) -> Done:
    """DVC, with this eosrepro in its stages."""
    return subprocess.run(
        ("dvc", *words), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=SECONDS
    )


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A farm, in a session of its own."""
    pipe: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen((*FARM, *words), cwd=folder, env=ENVIRONMENT, start_new_session=True, **pipe)


def end_of(farm: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said on stderr."""
    said = farm.communicate(timeout=SECONDS)[1]
    return farm.returncode, said


def wait_for(look: Callable[[], Found], *, seconds: float = SECONDS) -> Found:
    """What a look finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)
    return found


def at_work(folder: Path) -> dict[int, int]:
    """The processes that compute a run of this project → those that started them."""
    return {
        process: int(stat.rpartition(")")[2].split()[1])
        for process, (words, stat) in processes(folder).items()
        if "eosrepro.tools.ticket" in words
    }


def processes(folder: Path) -> dict[int, tuple[str, str]]:
    """Those that work in a folder: their command lines, and what the kernel says of them."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder:
                found[int(path.name)] = ((path / "cmdline").read_text(), (path / "stat").read_text())
        except OSError:  # it has ended
            continue
    return {process: about for process, about in found.items() if process != os.getpid()}


def checkpoints(folder: Path) -> list[Path]:
    """Of trainings."""
    return [*folder.glob("stages/unfinished/train*/*/checkpoint")]


def are_under_way(folder: Path) -> bool:
    """Whether both trainings have been kept beyond their starts."""
    saved = [load_checkpoint(path) for path in checkpoints(folder)]
    return len(saved) == len(RUNS) and all(each and each["step"] for each in saved)


def going_on(said: str) -> dict[str, int]:
    """The runs that went on from where an earlier attempt stood → the iteration."""
    return {run: int(step) for run, step in re.findall(r"^(\w+): Going on from iteration (\d+)", said, re.MULTILINE)}


def outputs(folder: Path) -> dict[str, bytes]:
    """All that stages put out."""
    files = [path for top in ("stages", "figures") for path in (folder / top).rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith("stages/store/")}


def reproduced(folder: Path, *targets: str) -> dict[str, bytes]:
    """All outputs after `dvc repro`, which finds every run in the store."""
    done = dvc(folder, "repro", *targets)
    assert done.returncode == 0, done.stderr
    assert "Running stage 'train@exp3'" in done.stdout
    assert not re.search(r"step \d+/|Going on", done.stderr), done.stderr
    return outputs(folder)

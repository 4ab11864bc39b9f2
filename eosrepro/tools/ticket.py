"""What a farm asks of a worker, and the process that does it there.

    ticket, JSON on stdin → the run is computed into the store → answer, JSON in the last line of stdout

A ticket holds params.yaml as the farm read it: an edit of the file in the meantime does not reach its runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import eosrepro
from eosrepro.config.load import validate
from eosrepro.config.params import PARAMS, Config
from eosrepro.config.runs import Run
from eosrepro.core.types import Dataset
from eosrepro.errors import REDUCE_MEMORY, ConfigError, EosreproError, is_out_of_memory
from eosrepro.records.locks import BusyError
from eosrepro.records.presence import Presence, look
from eosrepro.records.resuming import machine
from eosrepro.stages import blame, work
from eosrepro.stages.work import LIBRARIES

LOOK_SECONDS = 1.0  # from one look at the farm to the next
State = Literal["done", "failed", "busy", "interrupted", "killed", "refused"]


@dataclass(frozen=True)
class Ticket:
    """One run with its diagnostics, in plain data."""

    run: str
    key: str  # its fingerprint
    params: Mapping[str, Any]  # params.yaml
    made_by: Mapping[str, str]  # as `work.made_by`, in the farm
    presence: Sequence[str]  # of the farm
    folder: str  # the project, on all machines
    package: str  # where eosrepro lies in the farm: for the reader of a message


@dataclass(frozen=True)
class Answer:
    """What came of it."""

    state: State
    said: str = ""  # what was wrong, in words
    kind: list[str] = dataclasses.field(default_factory=list)  # of the processor, and versions
    host: str = ""
    told: list[str] = dataclasses.field(default_factory=list)  # lines for a person


class RefusedError(EosreproError):
    """This process would not make what the farm would."""


def ticket(config: Config, params: Mapping[str, Any], run: Run, data: Dataset | None, presence: Presence) -> Ticket:
    """For the workers of a farm that is `present`."""
    made_by, folder = work.made_by(config, run), str(Path.cwd())
    return Ticket(run.name, work.key_of(run, data), params, made_by, presence, folder, package())


def package() -> str:
    """Where eosrepro lies."""
    return str(Path(eosrepro.__file__).parent)


def main() -> None:
    """Read a ticket, compute its run, say what came of it."""
    signal.signal(signal.SIGTERM, _interrupt)
    answer = answer_to(Ticket(**json.load(sys.stdin)))
    print(json.dumps(dataclasses.asdict(answer)), flush=True)


def answer_to(asked: Ticket) -> Answer:
    """Compute the run of a ticket in the working folder, unless something speaks against it."""
    kind = machine()
    try:
        _compute(asked)
    except RefusedError as error:
        return Answer("refused", str(error), kind)
    except BusyError as error:
        return Answer("busy", str(error), kind)
    except EosreproError as error:
        return Answer("failed", str(error), kind)
    except KeyboardInterrupt:
        return Answer("interrupted", "", kind)
    except (MemoryError, RuntimeError, ValueError) as error:
        if not is_out_of_memory(error):
            return _failed_in_member(error, kind)
        return Answer("failed", f"out of memory ({error}). {REDUCE_MEMORY}", kind)
    except Exception as error:
        return _failed_in_member(error, kind)
    return Answer("done", "", kind)


def _failed_in_member(error: Exception, kind: list[str]) -> Answer:
    """The answer, where the error is one of a member; else it is raised."""
    if told := blame.told(error):
        return Answer("failed", str(told), kind)
    raise error


def _compute(asked: Ticket) -> None:
    presence = Presence(*asked.presence)
    _require_the_same_disk(presence, asked.folder)
    config, run = _require_the_same_code(asked)
    data = work.data_now(config, [run])
    if work.key_of(run, data) != asked.key:
        raise RefusedError("finds other data in stages/data than the farm did when it began: start it again")
    with _no_longer_than(presence):
        work.work(config, run, data)


def _require_the_same_disk(presence: Presence, folder: str) -> None:
    found = look(presence)
    if found == "gone":
        raise RefusedError(
            f"sees a folder {folder}, but not what the farm has just written to its store: the project must lie on a "
            "disk that all workers see"
        )
    if found == "not locked":
        raise RefusedError(
            f"does not see the locks of the farm in {folder}, so that two processes could write at one place: mount "
            "that disk with locks between machines (NFS: without nolock and local_lock; Lustre: with flock)"
        )


def _require_the_same_code(asked: Ticket) -> tuple[Config, Run]:
    try:
        config = validate(dict(asked.params), PARAMS)
        run = config.run(asked.run)
        made_by = work.made_by(config, run)
    except ConfigError as error:
        raise RefusedError(f"does not understand the farm's params.yaml ({_where(asked)}): {error}") from None
    parts = sorted(part for part, digest in asked.made_by.items() if made_by.get(part) != digest)
    other = [
        f"{part} {made_by[part]} instead of {asked.made_by[part]}" if part in LIBRARIES else f"other code of {part}"
        for part in parts
    ]
    if other:
        raise RefusedError(f"has {', '.join(other)} ({_where(asked)})")
    return config, run


def _where(asked: Ticket) -> str:
    if asked.package == package():
        return "if the code has been changed since the farm began, start the farm again"
    return f"its eosrepro lies in {package()}, that of the farm in {asked.package}"


@contextmanager
def _no_longer_than(presence: Presence) -> Iterator[None]:
    """Interrupt the block, so that its checkpoint is written, when the farm or the worker that began it is gone."""
    ended, parent = threading.Event(), os.getppid()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            if os.getppid() != parent or not _is_there(presence):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _is_there(presence: Presence) -> bool:
    try:
        return look(presence) == "here"
    except OSError:  # a disk on the network, for a moment
        return True


def _interrupt(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the checkpoint off
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

"""One run over several processes, the ranks: a setting of the machine, which changes no result.

The first rank is the command itself. It alone reads checkpoints, writes files and speaks. The others follow it: they
hold their share of the examples, and are told for each training, and each block of snapshots, to compute it too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosrepro.config.runs import Run
from eosrepro.core import ranks
from eosrepro.core.later import torch
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError, is_out_of_memory
from eosrepro.records import identity, resuming
from eosrepro.stages import blame
from eosrepro.stages.processes import die_with_parent
from eosrepro.stages.recorded import data_of, provenance_of

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

FOLDER = "EOSREPRO_RANKS_FOLDER"  # where ranks that this program has started meet: files, and no port
PARENT = "EOSREPRO_RANKS_PARENT"  # the process that has started them
COMMANDS = ("train", "diagnose")  # that ranks share
LOST = 3  # exit code of a rank that lost the others
LAST_WORDS = 10.0  # seconds to end in
SOON = 2.0  # seconds in which a process that has closed its connections has ended
FAILED = "failed"  # a key in the store: why a rank ended
KEPT = "What is done is kept: the same command goes on from there, with any number of ranks"


@contextmanager
def shared_by(runs: Sequence[Run], count: int) -> Iterator[int]:
    """In the block so many ranks share the work; as many as there are where another program has started them.

    A problem is over before a process has started.

    Yields:
        How many there are.

    Raises:
        EosreproError: one of them ended.
    """
    global _team
    given = _given(os.environ)
    size = given.size if given else count if any(run.has_examples for run in runs) else 1
    if size == 1:
        yield 1
        return
    ranks.declare(0, size)
    _team = _Team(size, ours=given is None)
    try:
        if given:
            _team.meet()  # the others wait
        yield size
        _team.part()
    except ranks.LostRankError as error:
        raise EosreproError(f"{_team.why(str(error))}. {KEPT}") from None
    finally:
        _team.end()
        _team = None
        ranks.leave()


def call(function: Callable[..., None], run: Run, data: Dataset | None, *args: Any) -> None:
    """Have all other ranks call this function on the run, their share of the data and so on, while this one does so.

    Args:
        function: of a module, so that other processes find it.
    """
    if _team:
        _team.meet()
        ranks.from_first(lambda: (function, run, _likeness(run, data), args))


def follow(command: str | None) -> None:
    """Follow the first rank to its end, as another one; without a word, since the first one speaks."""
    given = _given(os.environ)
    if command not in COMMANDS or given is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first one ends them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also in the middle of a message, and with nothing to keep
    die_with_parent()
    if os.getppid() != int(os.environ.get(PARENT, os.getppid())):
        os._exit(LOST)  # it ended before
    ranks.declare(*given)
    folder = os.environ.get(FOLDER)
    store = _store(given.size, folder)
    try:
        if folder:
            (Path(folder) / f"{given.rank} is there").touch()
        ranks.join(store, backend=_backend())
        _follow()
    except ranks.LostRankError:
        os._exit(LOST)
    except BaseException as error:
        error = blame.told(error) or error
        known = isinstance(error, EosreproError) or is_out_of_memory(error)
        said = str(error) if known else f"\n{traceback.format_exc()}"
        store.set(FAILED, f"rank {given.rank} of {given.size} ended: {said}")
        time.sleep(1)  # the first one may be about to say the same
        os._exit(1)
    os._exit(0)


def _follow() -> None:
    shares: dict[int, Dataset | None] = {}  # by the size of chunks

    def to_do() -> tuple[Callable[..., None], Run, list[str], tuple[Any, ...]] | None:
        raise AssertionError  # only the first rank makes it

    while task := ranks.from_first(to_do):
        function, run, likeness, args = task
        data = None
        if run.has_examples:
            data = shares[size] if (size := run.compute.chunk_size) in shares else data_of([run])
            shares[size] = data
        if _likeness(run, data) != likeness:
            raise EosreproError(
                "it has other code, data, libraries or another kind of processor than the first rank, and the sum of "
                "both would be neither's. Start all ranks in the same environment, on machines of one kind"
            )
        function(run, data, *args)


def _likeness(run: Run, data: Dataset | None) -> list[str]:
    return [identity.fingerprint(run.settings, provenance_of(data)), *resuming.machine()]


# --- how ranks begin and end ------------------------------------------------------------------------------------------


def _given(environment: Mapping[str, str]) -> ranks.World | None:
    """Which rank this process is where torchrun, or another program that starts ranks, says so."""
    if not {"RANK", "WORLD_SIZE"} <= environment.keys() or environment["WORLD_SIZE"] == "1":
        return None
    return ranks.World(int(environment["RANK"]), int(environment["WORLD_SIZE"]))


def _store(size: int, folder: str | None) -> Store:
    """Where ranks find each other: a file in the folder, or what the program that started them says."""
    if folder:
        return torch.distributed.FileStore(f"{folder}/store", size)  # type: ignore[attr-defined]
    meeting = torch.distributed.rendezvous("env://", timeout=ranks.TIMEOUT)  # type: ignore[attr-defined]
    store: Store = next(meeting)[0]
    return store


def _backend() -> str:
    """Messages between GPUs where each rank has one of its own."""
    devices, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if devices:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % devices)
    return "cpu:gloo,cuda:nccl" if devices >= here and torch.distributed.is_nccl_available() else "gloo"


class _Team:
    """The other ranks, as the first one sees them."""

    def __init__(self, size: int, *, ours: bool) -> None:
        self._size = size
        self._folder = tempfile.mkdtemp(prefix="eosrepro-ranks-") if ours else None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._store: Store | None = None
        self._ends = threading.Event()

    def meet(self) -> None:
        """Start them, if nobody else has, and connect; the first time that there is something to do."""
        if self._store:
            return
        if self._folder:
            self._start(self._folder)
        self._store = _store(self._size, self._folder)
        ranks.join(self._store, backend=_backend())
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self, folder: str) -> None:
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # they are all on this machine
        os.environ["LOCAL_WORLD_SIZE"] = str(self._size)
        for rank in range(1, self._size):
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self._size, FOLDER: folder, PARENT: os.getpid()}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "eosrepro", COMMANDS[0]],
                env={**os.environ, **{name: str(value) for name, value in own.items()}},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C of the terminal is for the first rank
            )
            self._processes.append(process)
        while len([*Path(folder).glob("* is there")]) < len(self._processes):
            if any(process.poll() is not None for process in self._processes):
                raise ranks.LostRankError("a rank did not start")
            time.sleep(0.02)

    def _watch(self) -> None:
        """End this rank, too, where another has ended and nothing tells it: on a GPU it would wait for hours."""
        while not self._ends.wait(0.5):
            if any(process.poll() is not None for process in self._processes):
                if not self._ends.wait(LAST_WORDS):
                    print(f"Error: {self.why('another rank has ended')}. {KEPT}", file=sys.stderr, flush=True)
                    self.end()
                    os._exit(1)
                return

    def part(self) -> None:
        """Tell them that there is no more to do."""
        if self._store:
            self._ends.set()
            ranks.from_first(lambda: None)
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LAST_WORDS)

    def why(self, otherwise: str) -> str:
        """Why one of them has ended."""
        self._ends.set()
        with suppress(RuntimeError):
            if self._store and self._store.check([FAILED]):
                return self._store.get(FAILED).decode()
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            for rank, process in enumerate(self._processes, start=1):
                if code := process.poll():  # those that lost it are no reason
                    if code < 0:
                        short = ", most likely for want of memory" if code == -signal.SIGKILL else ""
                        return f"rank {rank} of {self._size} was killed by {signal.Signals(-code).name}{short}"
                    if code != LOST:
                        return f"rank {rank} of {self._size} ended with exit code {code}"
            time.sleep(0.02)
        return otherwise

    def end(self) -> None:
        """Leave none behind: they have nothing to keep."""
        self._ends.set()
        for process in self._processes:
            process.kill()
            process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


_team: _Team | None = None

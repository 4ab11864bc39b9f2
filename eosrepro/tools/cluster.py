"""The processes of a farm, by Dask `distributed`, which no other file knows: here, or wherever workers are started.

What comes back of a task is a few words; results are files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from eosrepro.errors import ConfigError, EosreproError
from eosrepro.tools import hand

try:
    import dask
    from distributed import Client, Future, LocalCluster, wait
    from distributed.scheduler import KilledWorker
except ImportError:
    raise EosreproError(
        "`eosrepro farm` needs Dask: `pip install 'eosrepro[farm]'`, or compute run by run with `eosrepro work`"
    ) from None

CONNECT_SECONDS = 20
LAST_WORDS = 30.0  # seconds that workers have to write their checkpoints
# A worker that is killed is not the fault of its task; in a scheduler of others, three times are.
SETTINGS = {"distributed.scheduler.allowed-failures": 1000}

Answer = dict[str, Any]


class Pool:
    """Workers, and the tasks that they have."""

    def __init__(self, client: Client, function: Callable[[Mapping[str, Any]], Answer]) -> None:
        self._client, self._function = client, function
        self._open: dict[Future, str] = {}
        self._submitted = 0

    @property
    def room(self) -> int:
        """How many tasks more could run at once."""
        return max(0, self.workers - len(self._open))

    @property
    def running(self) -> int:
        """Tasks."""
        return len(self._open)

    @property
    def workers(self) -> int:
        """How many tasks can run at once now."""
        return sum(self._client.nthreads().values())

    def submit(self, name: str, key: str, task: Mapping[str, Any]) -> None:
        """Give a task away; its answer comes from `ended` by its name."""
        # A second attempt is another task for Dask, and so is that of another farm with the same scheduler.
        self._submitted += 1
        future = self._client.submit(self._function, task, key=f"{key}-{self._client.id}-{self._submitted}", pure=False)
        self._open[future] = name

    def ended(self, seconds: float) -> Iterator[tuple[str, Answer]]:
        """The tasks that have ended, with their answers; where there is none, after so long.

        Raises:
            EosreproError: the scheduler is gone.
        """
        if self._open:
            with suppress(TimeoutError):
                wait([*self._open], timeout=seconds, return_when="FIRST_COMPLETED")
        else:
            time.sleep(seconds)
        for future in [each for each in self._open if each.status != "pending"]:
            yield self._open.pop(future), _answer(future)

    def let_end(self) -> None:
        """Wait for those that are at work."""
        with suppress(Exception):  # a scheduler that is gone has been told
            if self._open and self.workers:
                wait([*self._open], timeout=LAST_WORDS)


def _answer(future: Future) -> Answer:
    if future.status in ("lost", "cancelled"):
        raise EosreproError("the scheduler is gone: start it again, then the farm. What is done is kept")
    error = future.exception()
    if error is None:
        return dict(future.result())
    if isinstance(error, KilledWorker):
        return {"state": "killed", "said": "its workers died"}
    if isinstance(error, (ImportError, AttributeError)):
        return {"state": "refused", "said": f"cannot load the eosrepro of the farm ({error})", "host": "a worker"}
    return {"state": "failed", "said": f"{type(error).__name__}: {error}"}


@contextmanager
def pool(function: Callable[[Mapping[str, Any]], Answer], jobs: int, scheduler_file: Path | None) -> Iterator[Pool]:
    """`jobs` processes on this machine, or the workers that know a scheduler by its file.

    Args:
        function: of a module that workers can import.

    Raises:
        ConfigError: there is no such scheduler.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it would tell of every worker that comes and goes
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        client = stack.enter_context(_here(jobs) if scheduler_file is None else _connected(scheduler_file))
        workers = Pool(client, function)
        stack.callback(workers.let_end)
        yield workers


@contextmanager
def _here(jobs: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",  # who reaches a scheduler can make it execute anything
            preload=[hand.__name__],
            memory_limit=0,  # else Dask ends a worker that takes more than its share
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _connected(scheduler_file: Path) -> Iterator[Client]:
    if not scheduler_file.exists():
        raise ConfigError(
            f"{scheduler_file} is not there: start `dask scheduler --scheduler-file {scheduler_file}` first"
        )
    try:
        client = Client(scheduler_file=str(scheduler_file), timeout=CONNECT_SECONDS)
    except (TypeError, RuntimeError) as error:  # of TLS: it is missing here, or there
        raise EosreproError(
            f"the scheduler of {scheduler_file} and this process do not agree on encryption ({error}): both must read "
            "the same ~/.config/dask/tls.yaml, see docs/cluster.md"
        ) from None
    except (OSError, ValueError) as error:
        raise EosreproError(
            f"no scheduler answers at the address in {scheduler_file} ({error}): start `dask scheduler` again"
        ) from None
    with client:
        yield client

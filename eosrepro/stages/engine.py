"""Independent tasks, one after the other or several at once: what they give does not depend on it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any, TypeVar

from eosrepro.core.later import torch
from eosrepro.errors import EosreproError
from eosrepro.stages import blame, progress
from eosrepro.stages.processes import die_with_employer

# PyTorch does not survive a fork once it has computed. On Linux all processes are forked from one that has only
# imported it; elsewhere libraries start threads when they are imported, and each process imports them by itself.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
IMPORTED = ["pandas", "torch.multiprocessing", "eosrepro.stages.train", "eosrepro.stages.diagnose"]
LAST_WORDS = 30.0  # seconds that a process has to write its checkpoint when the work is ended

Task = TypeVar("Task")
Result = TypeVar("Result")
Shared = TypeVar("Shared")


def default_jobs(device: str, threads: int) -> int:
    """As many processes as fit on the cores that this one may use; on a GPU one, which fills it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device == "cuda" else max(1, cores // threads)


def expect() -> None:
    """Say that a `map` over several processes is to come: they begin to import beside what this one does."""
    if METHOD == "forkserver":
        multiprocessing.get_context(METHOD).set_forkserver_preload(IMPORTED)
        forkserver.ensure_running()


def map(
    function: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task], *, jobs: int
) -> Iterator[Result]:
    """What `function(shared, task)` gives for each task, in their order; what it yields, as it comes or all at once.

    Args:
        function: of a module, so that other processes find it.
        shared: what all tasks need; its tensors are in memory once.
        jobs: processes; 1: all in this one.

    Raises:
        EosreproError: a process was killed.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from (function(shared, task) for task in tasks)
        return
    context = torch.multiprocessing.get_context(METHOD)  # which has tensors shared between the processes, not copied
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(function, shared)) as pool:
        # All processes at once: one that Python started later, and that was killed, would not be missed.
        pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
        try:
            yield from pool.map(_work, tasks)
        except BaseException as error:
            # Else the tasks at work, and those that wait for them, would be done to their end first.
            manager: Any = pool._executor_manager_thread
            pool.shutdown(wait=False, cancel_futures=True)
            workers = multiprocessing.active_children()
            for process in workers:
                process.terminate()
            for process in workers:
                process.join(LAST_WORDS)  # what they have done is kept when this ends
                process.kill()
            if manager:  # it would close its pipe while Python, as it ends, writes to it
                manager.join(LAST_WORDS)
            if isinstance(error, BrokenProcessPool):
                raise EosreproError(
                    "one of the processes that share the work was killed, most likely for want of memory: "
                    "take a smaller --jobs. What is done is kept"
                ) from None
            raise


_function: Callable[[Any, Any], Any]  # of this worker, and what all its tasks share
_shared: Any
_at_work = False


def _start(function: Callable[[Any, Any], Any], shared: Any) -> None:
    global _function, _shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that started them ends them
    signal.signal(signal.SIGTERM, _interrupt)  # so that a training writes its checkpoint
    die_with_employer()
    progress.share_the_terminal()
    _function, _shared = function, shared


def _interrupt(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the checkpoint off
    if not _at_work:
        os._exit(1)  # the pool would wait for the next task
    raise SystemExit(1)


def _work(task: Any) -> Any:
    global _at_work
    try:
        _at_work = True
        found = _function(_shared, task)
        return [*found] if isinstance(found, Iterator) else found
    except SystemExit:  # the pool would take it for a failed task, and start the next one
        os._exit(1)
    except Exception as error:
        if told := blame.told(error):  # here, since its traceback would not go with it
            raise told from None
        raise
    finally:
        _at_work = False

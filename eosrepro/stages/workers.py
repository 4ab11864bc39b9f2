"""A diagnostic along the snapshots of a run, in this process or in several.

The snapshots are cut into blocks, and a diagnostic starts afresh in each: what it finds does not depend on how many
processes share the work.
"""

from __future__ import annotations

import dataclasses
import inspect
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from torch import multiprocessing

from eosrepro.config.members import Member
from eosrepro.config.params import Config
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError
from eosrepro.records import resuming
from eosrepro.records.files import save_checkpoint, sha256
from eosrepro.records.snapshots import load_snapshot
from eosrepro.stages.build import member, optimizer, problem
from eosrepro.stages.processes import die_with_parent
from eosrepro.stages.progress import progress

BLOCK = 50  # snapshots that a process measures in a row

Row = dict[str, Any]
MeasureBlock = Callable[[Sequence[Path]], Iterator[Row]]
Settings = tuple[Config, str, Member, Dataset | None, Path]


def measure(
    config: Config,
    name: str,
    diagnostic: Member,
    snapshots: Sequence[Path],
    data: Dataset | None,
    *,
    jobs: int,
    place: Path,
) -> pd.DataFrame:
    """What a diagnostic yields on snapshots of the run `name`, one row each.

    Args:
        snapshots: their files, by iteration.
        data: the training data; None for a toy.
        jobs: processes that share the work, each with `compute.threads` threads.
        place: folder of blocks that are done, see `resuming.unfinished`; they are not measured again.
    """
    blocks = [snapshots[start : start + BLOCK] for start in range(0, len(snapshots), BLOCK)]
    rows = []
    with progress(f"{diagnostic.name} of {name}", int(snapshots[-1].stem)) as report:
        for row in _rows(config, name, diagnostic, blocks, data, jobs, place):
            rows.append(row)
            step, *quantities = row
            report(row[step], **{quantity: row[quantity] for quantity in quantities[:2]})
    return pd.DataFrame(rows)


def _rows(
    config: Config,
    name: str,
    diagnostic: Member,
    blocks: Sequence[Sequence[Path]],
    data: Dataset | None,
    jobs: int,
    place: Path,
) -> Iterator[Row]:
    done = [_load_block(place, block) for block in blocks]
    missing = [block for block, rows in zip(blocks, done, strict=True) if rows is None]
    measured = _measure_blocks((config, name, diagnostic, data, place), missing, jobs)
    for rows in done:
        yield from next(measured) if rows is None else rows


def _measure_blocks(settings: Settings, blocks: Sequence[Sequence[Path]], jobs: int) -> Iterator[Iterable[Row]]:
    jobs = min(jobs, len(blocks))
    if jobs <= 1:
        yield from map(_prepared(*settings), blocks)
        return
    # PyTorch does not survive a fork; its own `spawn` shares the data between the processes.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=settings) as workers:
        try:
            yield from workers.map(_work, blocks)
        except BaseException as error:
            # Else the blocks at work, and those that wait for them, would be measured to their end first.
            workers.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise EosreproError(
                    "one of the processes that share the snapshots was killed, most likely for want of memory: "
                    "take a smaller --jobs. Blocks that are measured are kept"
                ) from None
            raise


def _load_block(place: Path, block: Sequence[Path]) -> list[Row] | None:
    saved = resuming.load_checkpoint(_block_file(place, block))
    if saved is None or saved["snapshots"] != _checksums(block):
        return None
    rows: list[Row] = saved["rows"]
    return rows


def _block_file(place: Path, block: Sequence[Path]) -> Path:
    return place / f"from_{block[0].stem}"


def _checksums(block: Sequence[Path]) -> list[str]:
    return [sha256(path) for path in block]


def _prepared(config: Config, name: str, diagnostic: Member, data: Dataset | None, place: Path) -> MeasureBlock:
    """Return a function that runs the diagnostic on one block of snapshots and saves the finished block to `place`."""
    objective, start = problem(config, name, data)
    run = config.run(name)
    facts = {"step_size": float(run.step_size), "minibatches": optimizer(run).minibatches}
    yields = member("diagnostics", diagnostic)
    given = {key: value for key, value in facts.items() if key in inspect.signature(yields).parameters}

    def measure_block(block: Sequence[Path]) -> Iterator[Row]:
        points = ((step, theta.to(start)) for step, theta in map(load_snapshot, block))
        rows = []
        for row in yields(objective, points, **given):
            rows.append(row if isinstance(row, dict) else dataclasses.asdict(row))
            yield rows[-1]
        save_checkpoint(_block_file(place, block), {"snapshots": _checksums(block), "rows": rows})

    return measure_block


_settings: Settings  # of a worker, given to it when it starts


def _start_worker(*settings: Any) -> None:
    global _settings
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that started them ends them
    _settings = settings


@cache
def _prepared_in_worker() -> MeasureBlock:
    # With the first block, and not when the worker starts: an error would not come back from there.
    return _prepared(*_settings)


def _work(paths: Sequence[Path]) -> list[Row]:
    return list(_prepared_in_worker()(paths))

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
from pathlib import Path
from typing import Any

import pandas as pd
from torch import multiprocessing

from eosrepro import resuming, store
from eosrepro.config import Config, Member
from eosrepro.errors import EosreproError
from eosrepro.problems import member, optimizer, problem
from eosrepro.processes import die_with_parent
from eosrepro.progress import progress
from eosrepro.types import Dataset, stability_threshold

BLOCK = 50  # snapshots that a process measures in a row

MeasureBlock = Callable[[Sequence[Path]], Iterator[dict[str, Any]]]


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
    threshold = stability_threshold(config.run(name).step_size)
    rows = []
    with progress(f"{diagnostic.name} of {name}", int(snapshots[-1].stem), threshold=threshold) as report:
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
) -> Iterator[dict[str, Any]]:
    done = [_load_block(place, block) for block in blocks]
    missing = [block for block, rows in zip(blocks, done, strict=True) if rows is None]
    measured = _measure_blocks((config, name, diagnostic, data), missing, jobs)
    for block, rows in zip(blocks, done, strict=True):
        if rows is not None:
            yield from rows
            continue
        fresh = []
        for row in next(measured):
            fresh.append(row)
            yield row
        store.save_checkpoint(_block_file(place, block), {"snapshots": _checksums(block), "rows": fresh})


def _measure_blocks(
    settings: tuple[Config, str, Member, Dataset | None], blocks: Sequence[Sequence[Path]], jobs: int
) -> Iterator[Iterable[dict[str, Any]]]:
    jobs = min(jobs, len(blocks))
    if jobs <= 1:
        yield from map(_prepared(*settings), blocks)
        return
    # PyTorch does not survive a fork; its own `spawn` shares the data between the processes.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=settings) as workers:
        try:
            yield from workers.map(_work, blocks)
        except BrokenProcessPool:
            raise EosreproError(
                "one of the processes that share the snapshots was killed, most likely for want of memory: "
                "take a smaller --jobs. Those that are measured are kept"
            ) from None


def _load_block(place: Path, block: Sequence[Path]) -> list[dict[str, Any]] | None:
    saved = resuming.load_checkpoint(_block_file(place, block))
    if saved is None or saved["snapshots"] != _checksums(block):
        return None
    rows: list[dict[str, Any]] = saved["rows"]
    return rows


def _block_file(place: Path, block: Sequence[Path]) -> Path:
    return place / f"from_{block[0].stem}"


def _checksums(block: Sequence[Path]) -> list[str]:
    return [store.sha256(path) for path in block]


def _prepared(config: Config, name: str, diagnostic: Member, data: Dataset | None) -> MeasureBlock:
    objective, start = problem(config, name, data)
    run = config.run(name)
    facts = {"step_size": float(run.step_size), "minibatches": optimizer(run).minibatches}
    yields = member("diagnostics", diagnostic)
    given = {key: value for key, value in facts.items() if key in inspect.signature(yields).parameters}

    def measure_block(block: Sequence[Path]) -> Iterator[dict[str, Any]]:
        points = ((step, theta.to(start)) for step, theta in map(store.load_snapshot, block))
        for row in yields(objective, points, **given):
            yield row if isinstance(row, dict) else dataclasses.asdict(row)

    return measure_block


_measure_block: MeasureBlock  # of a worker, made when it starts


def _start_worker(config: Config, name: str, diagnostic: Member, data: Dataset | None) -> None:
    global _measure_block
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that started them ends them
    _measure_block = _prepared(config, name, diagnostic, data)


def _work(block: Sequence[Path]) -> list[dict[str, Any]]:
    return list(_measure_block(block))

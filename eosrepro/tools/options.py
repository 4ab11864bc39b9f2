"""Options and arguments that several commands have: settings of the machine, which change no result."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from eosrepro.tools.completion import names

if TYPE_CHECKING:
    from eosrepro.config.params import Config
    from eosrepro.config.runs import Run

RUNS = names("experiments")  # for the Tab key

jobs = click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    envvar="EOSREPRO_JOBS",
    help="Processes that share the work; else as many as fit on the cores.",
)
ranks = click.option(
    "--ranks",
    type=click.IntRange(min=1),
    envvar="EOSREPRO_RANKS",
    default=1,
    help="Processes that share each run, for a large one: see docs/ranks.md.",
)


def processes(loaded: Config, jobs: int | None, ranks: int = 1, of: Iterable[Run] = ()) -> int:
    """Among which the runs `of` are divided, as many as fit on the cores; where ranks share each of them, one."""
    from eosrepro.stages import build, engine

    threads = loaded.compute.threads
    if ranks > 1:
        return 1
    if sum(run.has_examples for run in of) > 1 and (jobs or engine.default_jobs("cpu", threads)) > 1:
        engine.expect()  # before PyTorch is imported here, to see whether there is a GPU
    return jobs or engine.default_jobs(build.device(loaded.compute.device), threads)


def follow_as_another_rank(ctx: click.Context) -> None:
    """End the command where it has followed that of the first rank."""
    if os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1":  # as torchrun sets them
        from eosrepro.stages import ranked

        ranked.follow(ctx.invoked_subcommand)
        ctx.exit()

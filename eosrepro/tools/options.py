"""Options and arguments that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from eosrepro.tools.completion import names

if TYPE_CHECKING:
    from eosrepro.config.params import Config

RUNS = names("experiments")  # for the Tab key

jobs = click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    envvar="EOSREPRO_JOBS",
    help="Processes that share the work; else as many as fit on the cores.",
)


def processes(loaded: Config, jobs: int | None) -> int:
    """As many as were asked for, or as fit on the cores."""
    from eosrepro.stages import build, engine

    return jobs or engine.default_jobs(build.device(loaded.compute.device), loaded.compute.threads)

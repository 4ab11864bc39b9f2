"""The commands that compute runs into the store, beside the pipeline: here, or on many machines."""

from __future__ import annotations

from pathlib import Path

import click

from eosrepro.tools import options


@click.command()
@options.jobs
@click.option(
    "--scheduler-file",
    type=click.Path(path_type=Path),
    help="Of `dask scheduler`: workers come from elsewhere, and --jobs counts for nothing.",
)
@click.option("--dry", is_flag=True, help="Print the names of the runs that would be computed, a line each.")
@click.argument("runs", nargs=-1, metavar="[RUNS]...", shell_complete=options.RUNS)
def farm(runs: tuple[str, ...], jobs: int | None, scheduler_file: Path | None, dry: bool) -> None:
    """Compute what is not up to date of RUNS, or of all, by many processes; then `dvc repro` trains nothing."""
    from eosrepro.config.load import read_params, validate
    from eosrepro.config.params import PARAMS
    from eosrepro.tools import farm as tool

    params = read_params()
    loaded = validate(params, PARAMS)
    todo = tool.due(loaded, runs)
    if dry:
        click.echo("".join(f"{run.name}\n" for run in todo.runs), nl=False)
        return
    tool.farm(loaded, params, todo, jobs=options.processes(loaded, jobs), scheduler_file=scheduler_file)
    click.echo(f"runs: {len(todo.runs)} computed, {todo.up_to_date} up to date; now `dvc repro` has nothing to train")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...", shell_complete=options.RUNS)
def work(runs: tuple[str, ...]) -> None:
    """Compute RUNS with their diagnostics into stages/store, one after the other: for job scripts written by hand."""
    from eosrepro.config.load import load
    from eosrepro.stages import work as stage

    loaded = load()
    chosen = {run.name: run for name in runs for run in loaded.select(name)}
    data = stage.data_now(loaded, [*chosen.values()])
    for run in chosen.values():
        found = "is up to date"
        if not stage.is_done(loaded, run, data):
            stage.work(loaded, run, data)
            found = "is computed"
        click.echo(f"{run.name} {found}")

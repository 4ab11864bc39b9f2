"""The command that writes the parameters of a network."""

from __future__ import annotations

from pathlib import Path

import click

from eosrepro.tools import options


@click.command()
@click.option("--step", type=click.IntRange(min=0), help="The iteration of a snapshot; else the last one.")
@click.argument("run", shell_complete=options.RUNS)
@click.argument("file", type=click.Path(path_type=Path))
def weights(run: str, file: Path, step: int | None) -> None:
    """Write the parameters of the network of RUN into FILE, by name, as safetensors."""
    from eosrepro.config.load import load
    from eosrepro.records.files import save_tensors
    from eosrepro.tools.parameters import parameters_at

    at, parameters = parameters_at(load(), run, step)
    save_tensors(file, parameters)
    click.echo(f"{file}: {sum(each.numel() for each in parameters.values()):,} parameters of {run} at iteration {at}")

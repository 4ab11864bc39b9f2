"""`python -m benchmarks`: measure speed as ratios against baselines in this process; takes minutes."""

from __future__ import annotations

import json

import click

from benchmarks import bench
from eosrepro.errors import EosreproError
from eosrepro.stages.build import device as device_of


@click.command()
@click.option(
    "--examples", type=click.IntRange(min=10), default=5000, show_default=True, help="Number of examples N, in tens."
)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True, help="Rounds of all candidates.")
@click.option(
    "--steps", type=click.IntRange(min=0), default=400, show_default=True, help="Iterations of the run past the edge."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="CPU threads.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if any.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(examples: int, rounds: int, steps: int, threads: int, device: str, as_json: bool) -> None:
    """Measure speed as ratios against baselines in this process; takes minutes."""
    try:
        chosen = device_of(device)
    except EosreproError as error:
        raise click.UsageError(str(error)) from None
    results = bench.bench(n_examples=examples, rounds=rounds, steps=steps, threads=threads, device=chosen)
    click.echo(json.dumps(bench.as_records(results), indent=2) if as_json else bench.as_markdown(results))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.growth`: what computations cost as N, P, the number of runs and that of ranks grow.

Each point is a process of its own, so that its peak memory is its own. The network is 3072-w-w-10 with tanh, on random
inputs: time and memory do not hang on their values.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from benchmarks import spreading
from benchmarks.bench import hardware
from eosrepro.core.device import has_fast_bfloat16
from eosrepro.core.problem import network_problem
from eosrepro.core.types import Position
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.views import markdown

EXAMPLES = (200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)  # with a width of 200
WIDTHS = (50, 100, 200, 400, 800)  # with 5,000 examples
WIDTH, N_EXAMPLES = 200, 5000
CHUNK = 5000
MILLIONS = (2e5, 5e5, 1e6, 2e6)  # ticks
FEW_SECONDS = 0.5  # of repeats of one measurement
LONG = 5.0  # seconds after which one is measured once


def point(n_examples: int, width: int, threads: int, *, reduced: bool) -> dict[str, Any]:
    """Milliseconds and megabytes at one size."""
    torch.set_num_threads(threads)
    data = spreading.random_examples(n_examples)
    objective, theta = network_problem(
        partial(mlp, width=width),
        cross_entropy(),
        data,
        seed=0,
        dtype=torch.float32,
        device="cpu",
        chunk_size=CHUNK,
        reduce_inputs=reduced,
        rough=has_fast_bfloat16("cpu"),
    )
    hvp, vector = objective.hvp(theta), torch.randn_like(theta)
    solved = sharpness(
        objective, (Position(t, theta, None) for t in range(10**6)), k=1, rtol=3e-3, max_products=200,
        audit_every=10**9, seed=0,
    )  # fmt: skip
    next(solved)  # the first has an audit
    return {
        "n_examples": n_examples,
        "width": width,
        "n_coordinates": len(theta),
        "reduced": objective.row_space is not None,
        "gradient_ms": _milliseconds(lambda: objective.value_and_grad(theta)),
        "product_ms": _milliseconds(lambda: hvp(vector)),
        "sharpness_ms": _milliseconds(lambda: next(solved)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def _milliseconds(call: Callable[[], object]) -> float:
    first = _seconds(call)
    if first > LONG:
        return first * 1e3
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < FEW_SECONDS and len(taken) < 20):
        taken.append(_seconds(call))
    return median(taken) * 1e3


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _in_a_process(kind: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growth", f"--{kind}", *map(str, arguments)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def draw(points: list[dict[str, Any]], runs: list[dict[str, float]], ranks: list[dict[str, float]], path: Path) -> None:
    """Time against N, against P, and over runs and ranks; memory against N and over ranks; as PNG."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    from eosrepro.figures._style import PAGE, styled

    with styled():
        figure, grid = plt.subplots(2, 3, figsize=(1.4 * PAGE, 0.85 * PAGE), layout="constrained")
        axes = grid.flat
        of_n = [each for each in points if each["width"] == WIDTH]
        of_p = [each for each in points if each["n_examples"] == N_EXAMPLES]
        series = {"gradient": "gradient_ms", "Hessian product": "product_ms", "sharpness": "sharpness_ms"}
        for colour, (label, key) in enumerate(series.items()):
            whole = [each for each in of_n if not each["reduced"]]
            fewer = [each for each in of_n if each["reduced"]]
            axes[0].loglog(*_columns(whole, "n_examples", key), f"C{colour}o-", label=label)
            axes[0].loglog(*_columns(fewer, "n_examples", key), f"C{colour}o--", mfc="none")
            axes[1].loglog(*_columns(of_p, "n_coordinates", key), f"C{colour}o-")
        axes[2].semilogx(*_columns([each for each in of_n if not each["reduced"]], "n_examples", "peak_mb"), "C3o-")
        axes[0].set(title=f"time, width {WIDTH}", xlabel="N", ylabel="ms")
        axes[1].set(title=f"time, N = {N_EXAMPLES:,}", xlabel="P, millions", ylabel="ms")
        axes[2].set(title=f"peak memory, width {WIDTH}, chunks of {CHUNK:,}", xlabel="N", ylabel="MB")
        axes[0].plot([], [], "k--", label="in the row space of the inputs")
        axes[3].plot(*_columns(runs, "runs", "seconds"), "C4o-")
        title = f"{spreading.STEPS} iterations a run, N = {spreading.FEW}"
        axes[3].set(title=title, xlabel="runs", ylabel="s, with the start of processes")
        axes[4].semilogx(*_columns(ranks, "ranks", "gradient_ms"), "C0o-")
        axes[4].semilogx(*_columns(ranks, "ranks", "product_ms"), "C1o-")
        axes[4].set(title=f"time, N = {spreading.N_EXAMPLES:,}, chunks of {spreading.CHUNK:,}", ylabel="ms")
        axes[5].semilogx(*_columns(ranks, "ranks", "peak_mb"), "C3o-")
        axes[5].set(title="peak memory of the largest rank", ylabel="MB")
        for axis, counts in ((axes[3], spreading.RUNS), (axes[4], spreading.RANKS), (axes[5], spreading.RANKS)):
            axis.set_xticks(counts, [*map(str, counts)])
        for axis in axes[4:]:
            axis.set_xlabel("ranks of one thread")
        axes[1].set_xticks(MILLIONS, [f"{each / 1e6:g}" for each in MILLIONS])
        for axis in axes[2:]:
            axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        for axis in axes:
            axis.xaxis.set_minor_formatter(NullFormatter())  # they would lie over each other
        figure.legend(loc="outside lower center", ncols=4)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _columns(points: list[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[each[name] for each in points] for name in names]


def _of_sizes(threads: int) -> list[dict[str, Any]]:
    """A point for each N and each P."""
    sizes = [(n, WIDTH, False) for n in EXAMPLES] + [(n, WIDTH, True) for n in EXAMPLES if n < 3072]
    sizes += [(N_EXAMPLES, width, False) for width in WIDTHS if width != WIDTH]
    points = []
    for n_examples, width, reduced in sizes:
        points.append(_in_a_process("point", n_examples, width, threads, int(reduced)))
        click.echo(f"N = {n_examples:,}, width {width}: {points[-1]}", err=True)
    return sorted(points, key=lambda each: (each["reduced"], each["n_examples"], each["n_coordinates"]))


def _tables(points: list[dict[str, Any]], runs: list[dict[str, float]], ranks: list[dict[str, float]]) -> str:
    of_sizes = [
        [
            f"{each['n_examples']:,}",
            f"{each['n_coordinates']:,}{' (row space)' if each['reduced'] else ''}",
            *(f"{each[key]:.3g}" for key in ("gradient_ms", "product_ms", "sharpness_ms", "peak_mb")),
        ]
        for each in points
    ]
    of_runs = [[f"{each['runs']:.0f}", f"{each['jobs']:.0f}", f"{each['seconds']:.1f}"] for each in runs]
    of_ranks = [
        [f"{each['ranks']:.0f}", *(f"{each[key]:.0f}" for key in ("gradient_ms", "product_ms", "peak_mb"))]
        for each in ranks
    ]
    heading = ["N", "numbers in θ", "gradient, ms", "Hessian product, ms", "sharpness, ms", "peak memory, MB"]
    tables = [
        markdown.table(heading, of_sizes),
        markdown.table(["runs", "processes", "seconds"], of_runs),
        markdown.table(["ranks", "gradient, ms", "Hessian product, ms", "peak memory of the largest, MB"], of_ranks),
    ]
    return "\n\n".join([hardware(), *tables])


@click.command()
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--figure", type=click.Path(path_type=Path), help="Draw the figure into this file.")
@click.option("--point", "of", type=int, nargs=4, hidden=True, help="One point, as JSON: N, width, threads, reduced.")
@click.option("--runs", type=int, hidden=True, help="So many runs at once, as JSON.")
@click.option("--rank", type=(int, int, Path), hidden=True, help="One rank, as JSON: which, of how many, the folder.")
def main(
    threads: int,
    figure: Path | None,
    of: tuple[int, int, int, int] | None,
    runs: int | None,
    rank: tuple[int, int, Path] | None,
) -> None:
    """Measure how cost grows with examples, parameters, runs and ranks; takes a quarter of an hour."""
    if of:
        click.echo(json.dumps(point(*of[:3], reduced=bool(of[3]))))
    elif runs:
        click.echo(json.dumps(spreading.many_runs(runs)))
    elif rank:
        click.echo(json.dumps(spreading.rank(*rank)))
    else:
        torch.set_num_threads(threads)
        points = _of_sizes(threads)
        of_runs = [_in_a_process("runs", count) for count in spreading.RUNS]
        of_ranks = [spreading.over_ranks(size) for size in spreading.RANKS]
        click.echo(_tables(points, of_runs, of_ranks))
        if figure:
            draw(points, of_runs, of_ranks, figure)


if __name__ == "__main__":
    main()

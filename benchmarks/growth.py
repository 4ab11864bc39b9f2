"""`python -m benchmarks.growth`: what a gradient, a Hessian product and a sharpness cost as N and P grow.

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

from benchmarks.bench import hardware
from eosrepro.core.device import has_fast_bfloat16
from eosrepro.core.problem import network_problem
from eosrepro.core.types import Dataset, Position
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.views import markdown

EXAMPLES = (200, 500, 1000, 2000, 5000, 10_000)  # with a width of 200
WIDTHS = (50, 100, 200, 400, 800)  # with 5,000 examples
WIDTH, N_EXAMPLES = 200, 5000
CHUNK = 5000
FEW_SECONDS = 0.5  # of repeats of one measurement


def point(n_examples: int, width: int, threads: int, *, reduced: bool) -> dict[str, Any]:
    """Milliseconds and megabytes at one size."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(n_examples, 3, 32, 32, generator=generator)
    data = Dataset(inputs, torch.randint(0, 10, (n_examples,), generator=generator), 10, "random")
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
    call()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < FEW_SECONDS and len(taken) < 20):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken) * 1e3


def _in_a_process(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growth", "--point", *map(str, arguments)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time against N and against P, on logarithmic axes, as PNG."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    from eosrepro.figures._style import PAGE, styled

    with styled():
        figure, axes = plt.subplots(1, 3, figsize=(1.4 * PAGE, 0.45 * PAGE), layout="constrained")
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
        axes[1].set(title=f"time, N = {N_EXAMPLES:,}", xlabel="P", ylabel="ms")
        axes[2].set(title=f"peak memory, width {WIDTH}, chunks of {CHUNK:,}", xlabel="N", ylabel="MB")
        axes[0].plot([], [], "k--", label="in the row space of the inputs")
        axes[2].set_ylim(bottom=0)
        for each in axes:
            each.xaxis.set_minor_formatter(NullFormatter())  # they would lie over each other
        figure.legend(loc="outside lower center", ncols=4)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _columns(points: list[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[each[name] for each in points] for name in names]


@click.command()
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--figure", type=click.Path(path_type=Path), help="Draw the figure into this file.")
@click.option("--point", "of", type=int, nargs=4, hidden=True, help="One point, as JSON: N, width, threads, reduced.")
def main(threads: int, figure: Path | None, of: tuple[int, int, int, int] | None) -> None:
    """Measure how cost grows with the number of examples and of parameters; takes minutes."""
    if of:
        click.echo(json.dumps(point(*of[:3], reduced=bool(of[3]))))
        return
    torch.set_num_threads(threads)
    sizes = [(n, WIDTH, False) for n in EXAMPLES] + [(n, WIDTH, True) for n in EXAMPLES if n < 3072]
    sizes += [(N_EXAMPLES, width, False) for width in WIDTHS if width != WIDTH]
    points = []
    for n_examples, width, reduced in sizes:
        points.append(_in_a_process(n_examples, width, threads, int(reduced)))
        click.echo(f"N = {n_examples:,}, width {width}: {points[-1]}", err=True)
    points.sort(key=lambda each: (each["reduced"], each["n_examples"], each["n_coordinates"]))
    rows = [
        [
            f"{each['n_examples']:,}",
            f"{each['n_coordinates']:,}{' (row space)' if each['reduced'] else ''}",
            *(f"{each[key]:.3g}" for key in ("gradient_ms", "product_ms", "sharpness_ms", "peak_mb")),
        ]
        for each in points
    ]
    heading = ["N", "numbers in θ", "gradient, ms", "Hessian product, ms", "sharpness, ms", "peak memory, MB"]
    click.echo(f"{hardware()}\n\n{markdown.table(heading, rows)}")
    if figure:
        draw(points, figure)


if __name__ == "__main__":
    main()

"""Speed as ratios against baselines in the same process.

The candidates are called in turn, A B C A B C …, and their medians compared, so that a machine whose speed drifts slows
all of them alike. A ratio is what is promised; the milliseconds beside it belong to the machine that made them. All is
on the network of Ahn et al. 2022, 3072-200-200-10, on patches of photographs.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from benchmarks import baselines
from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Position, Stop
from eosrepro.data._preprocessing import preprocess
from eosrepro.diagnostics.expected_progress import expected_progress
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.diagnostics.tau_scan import tau_scan
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from eosrepro.views import markdown

LAYERS = (3072, 200, 200, 10)
STEP_SIZE = 2 / 30
BATCH_SIZE = 32
N_TAUS = 100
EVERY = 5  # iterations from one measurement of the sharpness to the next
REFERENCES = 10  # measurements that are compared with a converged float64 solve
COLD = 3  # measurements that the baseline makes too
SETTINGS: Mapping[str, Any] = {"k": 1, "rtol": 3e-3, "max_products": 400, "audit_every": 10, "seed": 0}


@dataclasses.dataclass(frozen=True)
class Result:
    """One figure of the bench."""

    name: str
    value: float
    unit: str
    target: float | None = None  # the largest value that the project promises; None: shown for comparison
    milliseconds: float | None = None  # that one such computation took

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


def bench(*, n_examples: int, rounds: int, steps: int, threads: int, device: str) -> list[Result]:
    """All ratios.

    Args:
        n_examples: N, a multiple of 10.
        rounds: measurements of each short computation; a fifth as many of long ones.
        steps: iterations of the run along which the sharpness is measured.
    """
    from eosrepro.data.photo_patches import photo_patches  # needs scikit-learn, as nothing else here does

    torch.set_num_threads(threads)
    data = preprocess(
        photo_patches(n_examples=n_examples, seed=0), scale="unit", standardise="none", statistics="subset"
    )
    objective, theta = _problem(data, device, torch.float32)
    gradient, results = _basics(objective, theta, rounds, device)
    results += _measures(objective, theta, gradient, -(-rounds // 5), device)
    return results + _sharpness(data, objective, theta, gradient, steps, device)


def alternating_medians(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, device: str
) -> dict[str, float]:
    """Median milliseconds of each candidate over `rounds` rounds, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for counted in [False] + [True] * rounds:
        for name, candidate in candidates.items():
            milliseconds = _timed(candidate, device)
            if counted:
                times[name].append(milliseconds)
    return {name: median(values) for name, values in times.items()}


def _basics(objective: Objective, theta: Tensor, rounds: int, device: str) -> tuple[float, list[Result]]:
    """Milliseconds of a gradient; gradient and Hessian product against their floors."""
    hvp, vector = objective.hvp(theta), torch.randn_like(theta)
    medians = alternating_medians(
        {
            "matrix products": baselines.matrix_products(objective.n_examples, device, LAYERS),
            "gradient": lambda: objective.value_and_grad(theta),
            "Hessian product": lambda: hvp(vector),
        },
        rounds=rounds,
        device=device,
    )
    gradient, product = medians["gradient"], medians["Hessian product"]
    return gradient, [
        Result("gradient", gradient / medians["matrix products"], "of its matrix products", 1.35, gradient),
        Result("Hessian product", product / gradient, "gradients", 1.3, product),
    ]


def _measures(objective: Objective, theta: Tensor, gradient: float, rounds: int, device: str) -> list[Result]:
    """Exp 5 and 7-9 against what their definitions cost."""
    minibatches = sgd(step_size=STEP_SIZE, batch_size=BATCH_SIZE, seed=0).minibatches
    assert minibatches is not None
    n_batches = len(minibatches(objective.n_examples, 0))
    general, start = baselines.without_first_layer(objective), Position(0, theta, None)

    def scan(f: Objective, tolerance: float) -> object:
        return list(tau_scan(f, [start], optimizer=gd(step_size=STEP_SIZE), n_taus=N_TAUS, tolerance=tolerance))

    def enumerate_minibatches(f: Objective) -> object:
        return list(expected_progress(f, [start], step_size=STEP_SIZE, minibatches=minibatches))

    along, over = f"L at {N_TAUS} τ", f"both sides of eq. 5.1 over {n_batches} minibatches"
    candidates: dict[str, tuple[float | None, Callable[[], object]]] = {
        along: (15, lambda: scan(objective, 1e-4)),
        f"{along}, without interpolation": (None, lambda: scan(objective, 0)),
        f"{along}, baseline: full gradients": (None, lambda: scan(general, 0)),
        over: (40, lambda: enumerate_minibatches(objective)),
        f"{over}, baseline: full gradients": (None, lambda: enumerate_minibatches(general)),
    }
    medians = alternating_medians(
        {name: candidate for name, (_, candidate) in candidates.items()}, rounds=rounds, device=device
    )
    return [
        Result(name, medians[name] / gradient, "gradients", target, medians[name])
        for name, (target, _) in candidates.items()
    ]


def _sharpness(
    data: Dataset, objective: Objective, theta: Tensor, gradient: float, steps: int, device: str
) -> list[Result]:
    """The sharpness along a run, from where it first exceeds 2/η; nothing where it does not within `steps`."""
    path: list[Position] = []

    def keep(at: Position) -> None:
        if at.step % EVERY == 0:
            path.append(at)

    list(minimise(objective, theta, gd(step_size=STEP_SIZE), stop=Stop(steps), on_iterate=keep))
    rows, times = [], []
    measurements = sharpness(objective, path, **SETTINGS)
    for _ in path:
        times.append(_timed(lambda: rows.append(next(measurements)), device))
    edge = next((i for i, row in enumerate(rows) if row["sharpness"] > 2 / STEP_SIZE), len(rows))
    path, rows, times = path[edge:], rows[edge:], times[edge:]
    found = [Result("measurements of the sharpness past the edge", len(rows), f"every {EVERY} iterations")]
    if not rows:
        return found
    audited = [row for row in rows if isfinite(row["audit_sharpness"])]
    products = sum(row["products"] for row in rows)
    with_audits = products + sum(row["audit_products"] for row in audited)
    converged = _converged(data, [path[i] for i in _spread(len(path), REFERENCES)], device)
    errors = [abs(row["sharpness"] / converged[row["step"]] - 1) for row in rows if row["step"] in converged]
    cold: list[int] = []
    baseline = [
        _timed(lambda: cold.append(baselines.cold_eigsh(objective, path[i][1])[1]), device)  # noqa: B023 (called at once)
        for i in _spread(len(path), COLD)
    ]
    ours, theirs = (EVERY * gradient + mean(solves) for solves in (times, baseline))
    return [
        *found,
        Result("sharpness", products / len(rows), "Hessian products", 8, mean(times)),
        Result("sharpness, audits included", with_audits / len(rows), "Hessian products"),
        Result("sharpness, baseline: SciPy's eigsh from cold", mean(cold), "Hessian products", None, mean(baseline)),
        Result("largest error against converged float64", max(errors), "of the eigenvalue", 1e-3),
        Result(
            "largest shortfall in the audits",
            max(1 - row["sharpness"] / row["audit_sharpness"] for row in audited) if audited else 0.0,
            "of the eigenvalue",
            1e-3,
        ),
        Result(f"training with its sharpness every {EVERY} iterations", ours / theirs, "of the baseline", 0.1, ours),
    ]


def _converged(data: Dataset, snapshots: Iterable[Position], device: str) -> dict[int, float]:
    """Step → sharpness by a float64 solve from a random vector, to a residual of 1e-6."""
    objective, _ = _problem(data, device, torch.float64)
    generator = torch.Generator().manual_seed(1)
    found = {}
    for step, theta, _state in snapshots:
        wide = theta.double()
        (pair,) = top_eigenpairs(objective.hvp(wide), random_unit(wide, generator), rtol=1e-6, max_products=1000)
        found[step] = pair.value
    return found


def _problem(data: Dataset, device: str, dtype: torch.dtype) -> tuple[Objective, Tensor]:
    return network_problem(mlp, cross_entropy(), data, seed=0, dtype=dtype, device=device, chunk_size=len(data))


def _spread(length: int, most: int) -> list[int]:
    """Up to so many indices of a sequence, evenly spaced."""
    return sorted({round(share * (length - 1) / max(most - 1, 1)) for share in range(most)})


def _timed(call: Callable[[], object], device: str) -> float:
    """Milliseconds."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return (time.perf_counter() - start) * 1e3


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def as_records(results: Sequence[Result]) -> list[dict[str, object]]:
    """One JSON object a result."""
    return [{**dataclasses.asdict(result), "met": result.met} for result in results]


def as_markdown(results: Sequence[Result]) -> str:
    """A Markdown table, below a line that names the hardware."""
    met = {None: "", True: "yes", False: "**no**"}
    rows = [
        [
            result.name,
            f"{result.value:.3g}",
            result.unit,
            "" if result.target is None else f"≤ {result.target:g}",
            met[result.met],
            "" if result.milliseconds is None else f"{result.milliseconds:.1f}",
        ]
        for result in results
    ]
    return f"{hardware()}\n\n{markdown.table(['what', 'costs', 'unit', 'target', 'met', 'ms'], rows)}"


def hardware() -> str:
    """What the figures were measured on."""
    processor = f"{platform.machine()}, {torch.get_num_threads()} threads"
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"PyTorch {torch.__version__} on {processor}{card}"

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
from functools import partial
from math import isfinite
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from benchmarks import baselines
from eosrepro.core.device import has_fast_bfloat16
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
STEPS = 20  # that are timed in one go; the first takes one more gradient
SIDE_BY_SIDE = 5  # points of the run, before the edge and past it, where the reference code measures too
TARGETS = {  # number of examples and where → share of the time of the reference code
    (5000, "before the edge"): 1 / 10,
    (5000, "past the edge"): 1 / 15,
    (500, "before the edge"): 1 / 25,
    (500, "past the edge"): 1 / 25,
}
SETTINGS: dict[str, Any] = {"k": 1, "rtol": 3e-3, "max_products": 400, "audit_every": 10, "seed": 0}


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
    return results + _sharpness(data, objective, _run(objective, theta, steps), rounds, device)


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
            "matrix products": _matrix_products(objective, device, baselines.PYTORCH).gradient,
            "faster ones": _matrix_products(objective, device, baselines.FASTER).gradient,
            "gradient": lambda: objective.value_and_grad(theta),
            "Hessian product": lambda: hvp(vector),
        },
        rounds=rounds,
        device=device,
    )
    gradient, of_hessian, least = (medians[each] for each in ("gradient", "Hessian product", "faster ones"))
    return gradient, [
        Result("gradient", gradient / medians["matrix products"], "of its matrix products", 1.1, gradient),
        Result(
            "gradient, with the faster library",
            gradient / least,
            "of its matrix products",
            None,
            gradient,
        ),
        Result("Hessian product", of_hessian / gradient, "gradients", 1.3, of_hessian),
        *_rates(rounds, device),
    ]


def _rates(rounds: int, device: str) -> list[Result]:
    """How fast the machine multiplies the inputs by the first layer, in float32 and in bfloat16."""
    n_inputs, width = LAYERS[:2]
    inputs, weights = torch.rand(5000, n_inputs, device=device), torch.rand(width, n_inputs, device=device)
    ways = {
        "float32": (torch.float32, baselines.FASTER),
        "float32 by PyTorch's own": (torch.float32, baselines.PYTORCH),
        "bfloat16": (torch.bfloat16, baselines.FASTER),
    }
    candidates = {
        f"matrix product X W₁ᵀ of 5,000 examples, {name}": partial(way.product, inputs.to(dtype), weights.to(dtype))
        for name, (dtype, way) in ways.items()
    }
    operations = 2 * len(inputs) * n_inputs * width
    medians = alternating_medians(candidates, rounds=rounds, device=device)
    return [
        Result(name, operations / milliseconds / 1e6, "GFLOP/s", None, milliseconds)
        for name, milliseconds in medians.items()
    ]


def _matrix_products(objective: Objective, device: str, library: baselines.Library) -> baselines.MatrixProducts:
    """In the coordinates of the objective."""
    sizes = LAYERS if objective.row_space is None else (objective.n_examples, *LAYERS[1:])
    return baselines.MatrixProducts(objective.n_examples, sizes, device, library)


def _floor(objective: Objective, n_products: float, rounds: int, device: str) -> float:
    """Milliseconds of the matrix products of an iteration with its share of a sharpness, the sketch left out.

    Args:
        n_products: that a sharpness takes. One is in float32, and about one is that of the sketch.
    """
    fine = _matrix_products(objective, device, baselines.FASTER)
    rough = dataclasses.replace(fine, dtype=torch.bfloat16)
    calls = {"step": fine.gradient, "graph": fine.graph, "product": fine.hessian_product}
    calls |= {"rough graph": rough.graph, "rough product": rough.hessian_product} if objective.rough else {}
    medians = alternating_medians(calls, rounds=rounds, device=device)
    if objective.rough:
        solve = medians["product"] + medians["rough graph"] + (n_products - 2) * medians["rough product"]
    else:
        solve = (n_products - 1) * medians["product"]
    return medians["step"] + (medians["graph"] + solve) / EVERY


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


def _run(objective: Objective, theta: Tensor, steps: int) -> list[Position]:
    """Every `EVERY`-th iterate of a run."""
    path: list[Position] = []

    def keep(at: Position) -> None:
        if at.step % EVERY == 0:
            path.append(at)

    list(minimise(objective, theta, gd(step_size=STEP_SIZE), stop=Stop(steps), on_iterate=keep))
    return path


def _sharpness(data: Dataset, objective: Objective, path: list[Position], rounds: int, device: str) -> list[Result]:
    """The sharpness along a run, from where it first exceeds 2/η; nothing where it does not."""
    rows, times = [], []
    measurements = sharpness(objective, path, **SETTINGS)
    for _ in path:
        times.append(_timed(lambda: rows.append(next(measurements)), device))
    edge = next((i for i, row in enumerate(rows) if row["sharpness"] > 2 / STEP_SIZE), len(rows))
    before, path, rows, times = path[:edge], path[edge:], rows[edge:], times[edge:]
    found = [Result("measurements of the sharpness past the edge", len(rows), f"every {EVERY} iterations")]
    if not rows:
        return found
    audited = [row for row in rows if isfinite(row["audit_sharpness"])]
    products = sum(row["products"] for row in rows)
    with_audits = products + sum(row["audit_products"] for row in audited)
    converged = _converged(data, objective, [path[i] for i in _spread(len(path), REFERENCES)], device)
    errors = [abs(row["sharpness"] / converged[row["step"]] - 1) for row in rows if row["step"] in converged]
    return [
        *found,
        Result("sharpness", products / len(rows), "Hessian products", None, mean(times)),
        Result("sharpness, audits included", with_audits / len(rows), "Hessian products"),
        Result("largest error against converged float64", max(errors), "of the eigenvalue", 1e-3),
        Result(
            "largest shortfall in the audits",
            max([0.0, *(1 - row["sharpness"] / row["audit_sharpness"] for row in audited)]),
            "of the eigenvalue",
            1e-3,
        ),
        *_side_by_side(data, objective, "before the edge", before, rounds, device),
        *_side_by_side(data, objective, "past the edge", path, rounds, device),
    ]


class _Pair(NamedTuple):
    """An iterate as it is treated here and by the reference code; milliseconds."""

    step: float
    sharpness: float
    their_step: float
    products: float
    their_sharpness: float
    their_products: int
    difference: float  # of the two eigenvalues, as a share


def _side_by_side(
    data: Dataset, objective: Objective, where: str, path: Sequence[Position], rounds: int, device: str
) -> list[Result]:
    """An iteration with its sharpness, one in `EVERY`, against the reference code of the field, in turn on one path."""
    pairs = [_pair(data, objective, path[i], device) for i in _spread(len(path), SIDE_BY_SIDE)]
    if not pairs:
        return []
    ours = median(pair.step + pair.sharpness / EVERY for pair in pairs)
    theirs = median(pair.their_step + pair.their_sharpness / EVERY for pair in pairs)
    products = mean(pair.their_products for pair in pairs)
    floor = _floor(objective, mean(pair.products for pair in pairs), rounds, device)
    return [
        Result(f"{where}: a step", median(pair.step for pair in pairs), "ms"),
        Result(f"{where}: a step, baseline: the reference code", median(pair.their_step for pair in pairs), "ms"),
        Result(f"{where}: a sharpness", median(pair.sharpness for pair in pairs), "ms"),
        Result(
            f"{where}: a sharpness, baseline: the reference code",
            median(pair.their_sharpness for pair in pairs),
            f"ms, {products:.0f} products",
        ),
        Result(f"{where}: largest difference of the two", max(pair.difference for pair in pairs), "of λ", 1e-3),
        Result(
            f"{where}: an iteration with its sharpness every {EVERY}",
            ours / theirs,
            f"of the reference code, which takes {theirs / ours:.1f} times as long",
            TARGETS.get((objective.n_examples, where)),
            ours,
        ),
        Result(
            f"{where}: the same, by its matrix products alone",
            floor / theirs,
            f"of the reference code, which takes {theirs / floor:.1f} times as long",
            None,
            floor,
        ),
    ]


def _pair(data: Dataset, objective: Objective, at: Position, device: str) -> _Pair:
    reference, method = _reference(data, objective, at, device), gd(step_size=STEP_SIZE)
    rows: list[dict[str, Any]] = []
    found: list[tuple[float, int]] = []
    theirs = _timed(lambda: found.append(reference.sharpness()), device)
    # Each is called once before it is timed; the first sharpness has an audit, which is more than the reference does.
    solved = sharpness(objective, [at, at], **SETTINGS | {"audit_every": 10**9})
    next(solved)
    ours = _timed(lambda: rows.append(next(solved)), device)

    def steps() -> object:
        return list(minimise(objective, at.theta, method, stop=Stop(STEPS)))

    steps()
    step = _timed(steps, device) / STEPS
    reference.step()
    their_step = _timed(reference.step, device)
    ((value, products),) = found
    return _Pair(step, ours, their_step, rows[0]["products"], theirs, products, abs(rows[0]["sharpness"] / value - 1))


def _reference(data: Dataset, objective: Objective, at: Position, device: str) -> baselines.Reference:
    module = mlp(tuple(data.inputs.shape[1:]), data.n_outputs).to(device)
    space = objective.row_space
    theta = at.theta.clone() if space is None else space.parameters(at.theta)
    vector_to_parameters(theta, module.parameters())  # views of it: a step would move the path
    return baselines.Reference(module, data.inputs.to(device), data.targets.to(device), STEP_SIZE)


def _converged(data: Dataset, objective: Objective, snapshots: Iterable[Position], device: str) -> dict[int, float]:
    """Step → sharpness by a float64 solve from a random vector, to a residual of 1e-6, in the network's parameters."""
    whole, _ = _problem(data, device, torch.float64, reduced=False)
    generator, space = torch.Generator().manual_seed(1), objective.row_space
    found = {}
    for step, theta, _state in snapshots:
        wide = theta.double() if space is None else space.parameters(theta.double())
        (pair,) = top_eigenpairs(whole.hvp(wide), random_unit(wide, generator), rtol=1e-6, max_products=1000)
        found[step] = pair.value
    return found


def _problem(data: Dataset, device: str, dtype: torch.dtype, *, reduced: bool = True) -> tuple[Objective, Tensor]:
    """As params.yaml has it: in the row space of the inputs where there is one, eigensolves in bfloat16 where fast."""
    return network_problem(
        mlp,
        cross_entropy(),
        data,
        seed=0,
        dtype=dtype,
        device=device,
        chunk_size=len(data),
        reduce_inputs=reduced,
        rough=has_fast_bfloat16(device),
    )


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

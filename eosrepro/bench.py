"""Speed as ratios against a baseline in the same process.

The candidates are called in turn, A B C A B C …, and their medians compared, so that a machine whose speed drifts slows
all of them alike. A ratio is what is promised; the milliseconds beside it belong to the machine that made them.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median

import torch

from eosrepro import markdown
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.objective import network_problem
from eosrepro.types import Dataset

INPUT_SHAPE = (3, 32, 32)
N_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of one candidate against that of its baseline."""

    name: str
    baseline: str
    milliseconds: float
    baseline_milliseconds: float
    target: float  # the ratio that the project promises

    @property
    def ratio(self) -> float:
        return self.milliseconds / self.baseline_milliseconds

    @property
    def met(self) -> bool:
        return self.ratio <= self.target


def alternating_medians(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, device: str
) -> dict[str, float]:
    """Median milliseconds of each candidate over `rounds` rounds, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for counted in [False] + [True] * rounds:
        for name, candidate in candidates.items():
            _wait(device)
            start = time.perf_counter()
            candidate()
            _wait(device)
            if counted:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(values) for name, values in times.items()}


def bench(*, n_examples: int, rounds: int, threads: int, device: str) -> list[Ratio]:
    """Gradient and Hessian-vector product of the paper's 3072-200-200-10 network against their matrix products."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    dataset = Dataset(
        torch.rand(n_examples, *INPUT_SHAPE, generator=generator),
        torch.randint(0, N_CLASSES, (n_examples,), generator=generator),
        N_CLASSES,
        "noise",
    )
    objective, theta = network_problem(
        mlp, cross_entropy(), dataset, seed=0, dtype=torch.float32, device=device, chunk_size=n_examples
    )
    hvp, vector = objective.hvp(theta), torch.randn_like(theta)
    medians = alternating_medians(
        {
            "matrix products": matrix_products(n_examples, device),
            "gradient": lambda: objective.value_and_grad(theta),
            "Hessian-vector product": lambda: hvp(vector),
        },
        rounds=rounds,
        device=device,
    )

    def against(name: str, baseline: str, target: float) -> Ratio:
        return Ratio(name, baseline, medians[name], medians[baseline], target)

    return [
        against("gradient", "matrix products", 1.35),
        against("Hessian-vector product", "gradient", 1.3),
    ]


def as_records(ratios: list[Ratio]) -> list[dict[str, object]]:
    """One JSON object a ratio."""
    return [{**dataclasses.asdict(ratio), "ratio": ratio.ratio, "met": ratio.met} for ratio in ratios]


def as_markdown(ratios: list[Ratio]) -> str:
    """A Markdown table, below a line that names the hardware."""
    rows = [
        [
            r.name,
            f"{r.milliseconds:.1f}",
            r.baseline,
            f"{r.baseline_milliseconds:.1f}",
            f"{r.ratio:.2f}",
            f"{r.target:.2f}",
            "yes" if r.met else "**no**",
        ]
        for r in ratios
    ]
    return f"{hardware()}\n\n{markdown.table(['what', 'ms', 'against', 'ms', 'ratio', 'target', 'met'], rows)}"


def hardware() -> str:
    """What the figures were measured on."""
    processor = f"{platform.machine()}, {torch.get_num_threads()} threads"
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"PyTorch {torch.__version__} on {processor}{card}"


def matrix_products(n_examples: int, device: str) -> Callable[[], object]:
    """The matrix products of one gradient of the 3072-200-200-10 network, and nothing else.

    Forward X W₁ᵀ, A₁W₂ᵀ, A₂W₃ᵀ; backward δ₃ᵀA₂, δ₃W₃, δ₂ᵀA₁, δ₂W₂, δ₁ᵀX. (The inputs need no gradient.)
    """

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device)

    sizes = [3072, 200, 200, N_CLASSES]
    activations = [random(n_examples, size) for size in sizes]
    weights = [random(after, before) for before, after in pairwise(sizes)]

    def multiply() -> None:
        for layer, weight in enumerate(weights):
            activations[layer] @ weight.T
        for layer in reversed(range(len(weights))):
            activations[layer + 1].T @ activations[layer]
            if layer:
                activations[layer + 1] @ weights[layer]

    return multiply


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()

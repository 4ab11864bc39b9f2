"""Diagnostics along the step take the one that the optimizer took, whichever it is, from what a snapshot holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eosrepro import catalog
from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Optimizer, Position, Stop
from eosrepro.diagnostics.segment_sharpness import segment_sharpness
from eosrepro.diagnostics.tau_scan import tau_scan
from eosrepro.records.snapshots import load_snapshots, save_snapshot
from tests.conftest import dense_hessian, small_problem
from tests.members import identify, variants


@pytest.fixture(params=variants("optimizers"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    name, options = request.param
    made: Optimizer = catalog.find("optimizers", name)(step_size=0.005, **options)
    return made


def test_the_step_from_a_snapshot_is_the_one_that_was_taken(optimizer: Optimizer, tmp_path: Path) -> None:
    objective, theta = small_problem()
    rows = list(minimise(objective, theta, optimizer, stop=Stop(6), on_iterate=lambda at: save_snapshot(tmp_path, at)))
    kept = list(load_snapshots(tmp_path))
    scans = list(tau_scan(objective, kept[:-1], optimizer=optimizer, n_taus=2, tolerance=0))
    segments = list(
        segment_sharpness(objective, kept[:-1], optimizer=optimizer, points=2, rtol=1e-8, max_products=300, seed=0)
    )
    for here, there, row, scan, segment in zip(kept, kept[1:], rows, scans, segments, strict=False):
        at = objective.value_and_grad(here.theta)
        grad = at.grad
        update, _ = optimizer.update(Iterate(here.theta, grad, objective, at.loss), here.state)
        assert torch.equal(here.theta - update, there.theta)
        assert scan.relative_progress_of_step == pytest.approx(row.relative_progress, rel=1e-8)
        ends = (scan.directional_smoothness_min, scan.directional_smoothness_max)  # of τ = 1/2 and 1
        assert min(abs(end / row.directional_smoothness - 1) for end in ends) < 1e-7
        # (2/‖u‖²)(f(θ − u) − f(θ) + ⟨u, ∇f⟩), which by Corollary 1 is a lower bound
        change = objective.loss(there.theta) - objective.loss(here.theta)
        bound = 2 / float(update @ update) * (change + float(update @ grad))
        assert segment.segment_sharpness_bound == pytest.approx(bound, rel=1e-6)
        dense = [float(torch.linalg.eigvalsh(dense_hessian(objective, end.theta))[-1]) for end in (here, there)]
        assert segment.segment_sharpness_max == pytest.approx(max(dense), rel=1e-6)
        assert segment.segment_sharpness_min == pytest.approx(min(dense), rel=1e-6)


def test_relative_progress_is_the_integral_of_l_along_any_step(optimizer: Optimizer) -> None:
    """Eq. 4.2, for u in place of η∇f: RP = −1 + (‖u‖²/⟨u, ∇f⟩) ∫₀¹ τ L(θ; τu) dτ."""
    objective, theta = small_problem()
    kept: list[Position] = []
    rows = list(minimise(objective, theta, optimizer, stop=Stop(6), on_iterate=kept.append))
    scans = tau_scan(objective, kept[:-1], optimizer=optimizer, n_taus=100, tolerance=1e-8)
    for row, scan in zip(rows, scans, strict=False):
        assert scan.relative_progress_by_integral == pytest.approx(row.relative_progress, abs=1e-6)


def test_the_bound_holds_along_any_step(optimizer: Optimizer) -> None:
    objective, theta = small_problem("softplus")
    kept: list[Position] = []
    list(minimise(objective, theta, optimizer, stop=Stop(6), on_iterate=kept.append))
    settings = {"points": 9, "rtol": 1e-6, "max_products": 300, "seed": 0}
    for found in segment_sharpness(objective, kept[:-1], optimizer=optimizer, **settings):  # type: ignore[arg-type]
        assert found.segment_sharpness_excess >= -1e-6 * abs(found.segment_sharpness_bound)

"""Sharpness along a run: right at every snapshot, cheap by warm starts, and honest by audits."""

from __future__ import annotations

import sys
from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.lanczos import top_eigenpairs
from eosrepro.objective import Objective, toy_problem
from eosrepro.optimizers.gd import gd
from eosrepro.toys.quadratic import quadratic
from eosrepro.training import minimise
from eosrepro.types import EigenPair, Stop
from tests.conftest import dense_hessian, small_problem


def snapshots_of_a_run(*, steps: int, every: int) -> tuple[Objective, list[tuple[int, Tensor]]]:
    objective, theta = small_problem()
    kept: list[tuple[int, Tensor]] = []

    def keep(step: int, iterate: Tensor) -> None:
        if step % every == 0:
            kept.append((step, iterate))

    list(minimise(objective, theta, gd(step_size=0.4), stop=Stop(steps), on_iterate=keep))
    return objective, kept


def test_agrees_with_the_dense_hessian_at_every_snapshot() -> None:
    objective, snapshots = snapshots_of_a_run(steps=60, every=5)
    rows = list(sharpness(objective, snapshots, k=2, rtol=1e-4, max_products=200, audit_every=4, seed=0))

    assert [row["step"] for row in rows] == list(range(0, 61, 5))
    for row, (_, theta) in zip(rows, snapshots, strict=True):
        second, top = torch.linalg.eigvalsh(dense_hessian(objective, theta))[-2:].tolist()
        assert row["sharpness"] == pytest.approx(top, rel=1e-4)
        assert row["eigenvalue_2"] == pytest.approx(second, rel=1e-4)
        assert row["residual"] <= 1e-4 * top


def test_warm_starts_need_fewer_products_than_cold_ones() -> None:
    objective, snapshots = snapshots_of_a_run(steps=60, every=2)
    settings = {"k": 1, "rtol": 1e-2, "max_products": 200, "seed": 0}
    warm = sum(row["products"] for row in sharpness(objective, snapshots, audit_every=100, **settings))
    cold = sum(
        row["products"]
        for snapshot in snapshots
        for row in sharpness(objective, [snapshot], audit_every=100, **settings)
    )

    assert warm < 0.8 * cold


def test_audits_are_made_at_the_interval_asked_for() -> None:
    objective, snapshots = snapshots_of_a_run(steps=12, every=2)
    rows = list(sharpness(objective, snapshots, k=1, rtol=1e-3, max_products=200, audit_every=3, seed=0))

    assert [isnan(row["audit_sharpness"]) for row in rows] == [False, True, True, False, True, True, False]
    assert [not isnan(row["audit_products"]) for row in rows] == [True, False, False, True, False, False, True]
    for row in rows[::3]:
        assert row["sharpness"] == pytest.approx(row["audit_sharpness"], rel=1e-3)


def test_a_new_top_eigenvector_orthogonal_to_the_old_one_is_found() -> None:
    """Two curvatures cross between two snapshots; a start from the old eigenvector alone would never see it."""
    size = 40
    growing = torch.linspace(0.1, 1.0, size, dtype=torch.float64)

    def f(theta: Tensor) -> Tensor:
        # Curvature 10 along axis 0 and 4θ₀² along axis 1: the first is larger at θ₀ = 0, the second at θ₀ = 3.
        return 5 * theta[0] ** 2 + 2 * theta[0] ** 2 * theta[1] ** 2 + (growing * theta**2).sum() / 2

    objective, _ = toy_problem(f, [0.0] * size)
    before, after = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    after[0] = 3.0
    rows = list(
        sharpness(objective, [(0, before), (1, after)], k=1, rtol=1e-3, max_products=40, audit_every=10, seed=0)
    )

    assert rows[0]["sharpness"] == pytest.approx(10.1, rel=1e-3)
    assert rows[1]["sharpness"] == pytest.approx(36 + growing[1].item(), rel=1e-3)


def test_works_on_a_toy_of_two_numbers() -> None:
    objective, theta = toy_problem(quadratic(), [0.1, 0.1])
    row = next(sharpness(objective, [(0, theta)], k=1, rtol=1e-3, max_products=10, audit_every=1, seed=0))

    assert row["sharpness"] == pytest.approx(40.0, rel=1e-6)


def test_what_an_audit_finds_above_a_solve_enters_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solve is made to return the second pair; the audit finds the first, and the next solve is told of it."""
    module = sys.modules["eosrepro.diagnostics.sharpness"]
    objective, theta = toy_problem(quadratic(curvatures=(20.0, 10.0)), [0.1, 0.1])
    known: list[list[float]] = []

    def solve(matvec: Any, start: Tensor, **settings: Any) -> list[EigenPair]:
        pairs = top_eigenpairs(matvec, start, **{**settings, "k": 2})
        known.append([pair.value for pair in settings.get("known", ())])
        return pairs if settings["rtol"] == 1e-4 else pairs[1:]  # audits are 10 times as accurate

    monkeypatch.setattr(module, "top_eigenpairs", solve)
    rows = list(sharpness(objective, [(0, theta), (1, theta)], k=1, rtol=1e-3, max_products=10, audit_every=2, seed=0))

    assert rows[0]["sharpness"] == pytest.approx(20.0)
    assert rows[0]["audit_sharpness"] == pytest.approx(40.0)
    assert known[2] == pytest.approx([40.0, 20.0])

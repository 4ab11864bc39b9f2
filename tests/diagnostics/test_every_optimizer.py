"""Whatever asks for the optimizer takes every one that there is, from the snapshots of its runs."""

from __future__ import annotations

import dataclasses
import inspect
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from eosrepro import catalog
from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Optimizer, Position, Stop
from eosrepro.diagnostics.critical_step_size import critical_step_size
from eosrepro.records.snapshots import load_snapshots, save_snapshot
from tests.conftest import small_problem

ASKING = [
    name
    for name in catalog.names("diagnostics")
    if "optimizer" in inspect.signature(catalog.find("diagnostics", name)).parameters
]
OPTIONS: dict[str, Any] = {
    "k": 1, "rtol": 1e-4, "max_products": 300, "audit_every": 10, "seed": 0, "points": 2, "n_taus": 2, "steps": 2
}  # fmt: skip


def test_some_ask() -> None:
    assert {"alignment", "batch_sharpness", "critical_step_size", "midpoint_sharpness", "taylor_model"} <= {*ASKING}


def test_every_snapshot_has_a_row_that_says_something(optimizer: Optimizer, tmp_path: Path) -> None:
    objective, theta = small_problem()
    list(minimise(objective, theta, optimizer, stop=Stop(1), on_iterate=lambda at: save_snapshot(tmp_path, at)))
    kept = list(load_snapshots(tmp_path))
    of_one = set() if isinstance(kept[0].state, dict) else {"predicted_loss"}  # of central_flow alone
    for name in sorted({*ASKING} - of_one):
        look = catalog.find("diagnostics", name)
        options = {key: value for key, value in OPTIONS.items() if key in inspect.signature(look).parameters}
        rows = [
            row if isinstance(row, dict) else dataclasses.asdict(row)
            for row in look(objective, kept, optimizer=optimizer, **options)
        ]
        assert [row["step"] for row in rows] == [0, 1]
        first, *_ = catalog.quantities(name, options)
        assert not any(isnan(row[first]) for row in rows), name


def test_the_critical_step_is_where_the_loss_comes_back(optimizer: Optimizer) -> None:
    objective, theta = small_problem()
    at = Position(0, theta, optimizer.init(theta))
    here = objective.value_and_grad(theta)
    update, _ = optimizer.update(Iterate(theta, here.grad, objective, here.loss), at.state)
    (found,) = critical_step_size(objective, [at], optimizer=optimizer, rtol=1e-9)
    end = theta - found.critical_step_factor * update
    assert objective.loss(end) == pytest.approx(here.loss, rel=1e-7)
    assert objective.loss(theta - found.critical_step_factor / 2 * update) < here.loss
    slope, sq_norm = float(update @ here.grad), float(update @ update)
    assert found.critical_sharpness == pytest.approx(2 * slope / sq_norm / found.critical_step_factor, rel=1e-9)

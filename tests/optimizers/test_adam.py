"""Adam: torch's steps, the threshold that its geometry says, and what is found in that geometry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.training import minimise
from eosrepro.core.types import Iterate, Position, Stop
from eosrepro.diagnostics.effective_sharpness import effective_sharpness
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.optimizers.adam import adam
from eosrepro.optimizers.gd import gd
from eosrepro.records.snapshots import load_snapshot, save_snapshot
from tests.conftest import dense_hessian, small_problem

SOLVE = {"k": 2, "rtol": 1e-8, "max_products": 200, "audit_every": 1, "seed": 0}


def path_of(objective: Objective, theta: Tensor, steps: int, **options: float) -> list[Position]:
    path: list[Position] = []
    list(minimise(objective, theta, adam(**options), stop=Stop(steps), on_iterate=path.append))
    return path


@pytest.mark.parametrize("options", [{}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}, {"beta1": 0.0}])
def test_the_first_steps_are_those_of_torch(options: dict[str, float]) -> None:
    objective, theta = small_problem()
    parameter = torch.nn.Parameter(theta.clone())
    betas = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    theirs = torch.optim.Adam([parameter], lr=0.01, betas=betas, eps=options.get("eps", 1e-8))
    for at in path_of(objective, theta, 20, step_size=0.01, **options):
        torch.testing.assert_close(at.theta, parameter.detach(), rtol=1e-11, atol=1e-12)
        parameter.grad = objective.value_and_grad(parameter.detach()).grad
        theirs.step()


@pytest.mark.parametrize(("factor", "shrinks"), [(0.999, True), (1.001, False)])
def test_with_its_preconditioner_frozen_it_loses_its_stability_at_the_threshold(
    factor: float, *, shrinks: bool
) -> None:
    """0.1 % below it the iterates on a quadratic shrink, 0.1 % above they grow."""
    beta1, step_size = 0.9, 0.01
    objective, theta = small_problem()
    at = path_of(objective, theta, 30, step_size=step_size)[-1]
    threshold, preconditioner = adam(step_size=step_size).geometry(at.state, objective.value_and_grad(at.theta).grad)[
        :2
    ]
    assert isinstance(preconditioner, Tensor)
    assert threshold == pytest.approx(38 / step_size)
    # The curvature of one coordinate, so that λ_max(P⁻¹∇²f) is the threshold times the factor. Without bias correction:
    # P holds that of the first moment, which tends to 1.
    curvature = float(threshold * factor * preconditioner[0])
    x, mean = 1.0, 0.0
    largest = []
    for _ in range(20_000):
        mean = beta1 * mean + (1 - beta1) * curvature * x
        x -= step_size * mean / float(preconditioner[0])
        largest.append(abs(x))
    assert (max(largest[-10:]) < 1) == shrinks


def test_the_effective_sharpness_is_that_of_the_preconditioned_hessian() -> None:
    objective, theta = small_problem()
    method = adam(step_size=0.01)
    path = path_of(objective, theta, 4, step_size=0.01)
    rows = list(effective_sharpness(objective, path, optimizer=method, **SOLVE))
    for at, row in zip(path, rows, strict=True):
        geometry = method.geometry(at.state, objective.value_and_grad(at.theta).grad)
        assert isinstance(geometry.preconditioner, Tensor)
        root = geometry.preconditioner.rsqrt()
        dense = torch.linalg.eigvalsh(root[:, None] * dense_hessian(objective, at.theta) * root)
        assert row["effective_sharpness"] == pytest.approx(float(dense[-1]), rel=1e-6)
        assert row["effective_eigenvalue_2"] == pytest.approx(float(dense[-2]), rel=1e-6)


def test_without_a_preconditioner_the_effective_sharpness_is_the_sharpness() -> None:
    objective, theta = small_problem()
    at = [Position(0, theta, None)]
    (plain,) = sharpness(objective, at, **SOLVE)
    (effective,) = effective_sharpness(objective, at, optimizer=gd(step_size=0.1), **SOLVE)
    assert effective == {key if key == "step" else f"effective_{key}": value for key, value in plain.items()}


def test_a_snapshot_holds_all_that_the_next_step_takes(tmp_path: Path) -> None:
    objective, theta = small_problem()
    for at in path_of(objective, theta, 3, step_size=0.01):
        save_snapshot(tmp_path, at)
        kept = load_snapshot(tmp_path / f"{at.step:07d}.safetensors")
        assert isinstance(kept.state[2], int)
        steps = [
            adam(step_size=0.01).update(
                Iterate(each.theta, objective.value_and_grad(each.theta).grad, objective), each.state
            )
            for each in (at, kept)
        ]
        assert torch.equal(steps[0][0], steps[1][0])

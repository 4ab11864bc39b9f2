"""Adam: torch's steps, the threshold that its geometry says, and what is found in that geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import eosrepro as eos
from eosrepro.config.checks import supposes_another_optimizer
from eosrepro.config.load import validate
from eosrepro.config.statements import Statistic
from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Function, Geometry, Iterate, Position, Row, Stop
from eosrepro.diagnostics.effective_sharpness import effective_sharpness
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.errors import ConfigError
from eosrepro.optimizers.adam import adam
from eosrepro.optimizers.gd import gd
from eosrepro.records import resuming
from eosrepro.records.snapshots import save_snapshot
from eosrepro.stages import estimate
from tests.conftest import dense_hessian, small_dataset, small_problem
from tests.project import PARAMS, alone, small_params

SOLVE = {"k": 2, "rtol": 1e-8, "max_products": 200, "audit_every": 1, "seed": 0}


def iterate(objective: Objective, theta: Tensor) -> Iterate:
    here = objective.value_and_grad(theta)
    return Iterate(theta, here.grad, objective, here.loss)


def at_zero() -> Iterate:
    objective, theta = function_problem(quadratic_of(torch.ones(3).double()), [0.0, 0.0, 0.0])
    return iterate(objective, theta)


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


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("factor", "shrinks"), [(0.999, True), (1.001, False)])
def test_with_its_preconditioner_frozen_it_loses_its_stability_at_the_threshold(
    beta1: float, factor: float, *, shrinks: bool
) -> None:
    """0.1 % below it the iterates on a quadratic shrink, 0.1 % above they grow.

    After 1e9 steps, and with β₂ so near 1, 200 more leave P as it is.
    """
    method = adam(step_size=0.01, beta1=beta1, beta2=1 - 1e-9)
    square, theta = torch.tensor([4.0, 1e-2, 1.0]).double(), torch.tensor([1e-6, 1e-6, 1e-6]).double()
    state = (torch.zeros(3).double(), square, 10**9)
    threshold, preconditioner = method.geometry(at_zero(), state)
    assert isinstance(preconditioner, Tensor)
    assert threshold == pytest.approx((2 + 2 * beta1) / (1 - beta1) / 0.01)
    curvatures = preconditioner * threshold * factor * torch.tensor([1.0, 0.5, 0.1])
    objective, first = function_problem(quadratic_of(curvatures), theta.tolist())
    path: list[Position] = []
    list(minimise(objective, Position(0, first, state), method, stop=Stop(200), on_iterate=path.append))
    torch.testing.assert_close(method.geometry(at_zero(), path[-1].state)[1], preconditioner, rtol=1e-4, atol=0)
    assert (abs(path[-1].theta[0]) < 1e-6) == shrinks


def quadratic_of(curvatures: Tensor) -> Function:
    return lambda theta: (curvatures * theta.square()).sum(-1) / 2


def test_the_effective_sharpness_is_that_of_the_preconditioned_hessian() -> None:
    objective, theta = small_problem()
    method = adam(step_size=0.01)
    path = path_of(objective, theta, 4, step_size=0.01)
    rows = list(effective_sharpness(objective, path, optimizer=method, **SOLVE))
    for at, row in zip(path, rows, strict=True):
        geometry = method.geometry(iterate(objective, at.theta), at.state)
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


def test_a_preconditioner_may_be_a_number() -> None:
    """GD as 1/η times the identity, stable below 2: the same method in another geometry."""
    objective, theta = small_problem()
    at = [Position(0, theta, None)]
    scaled = gd(step_size=0.1)._replace(geometry=lambda _at, _state: Geometry(2, 1 / 0.1), preconditioned=True)
    (plain,) = sharpness(objective, at, **SOLVE)
    (effective,) = effective_sharpness(objective, at, optimizer=scaled, **SOLVE)
    assert effective["effective_sharpness"] == pytest.approx(0.1 * plain["sharpness"], rel=1e-12)
    assert next(minimise(objective, theta, scaled, stop=Stop(1))).stability_threshold == 2


@pytest.mark.parametrize(
    ("geometry", "preconditioned", "message"),
    [
        (Geometry(2, 10.0), False, "says preconditioned = False, and its geometry has a preconditioner"),
        (Geometry(2), True, "says preconditioned = True, and its geometry has none"),
        (Geometry(2, 0.0), True, "should be positive everywhere"),
        (Geometry(2, torch.tensor([1.0, float("nan")])), True, "should be positive everywhere"),
    ],
)
def test_a_geometry_that_contradicts_itself_ends_a_run(
    geometry: Geometry, message: str, *, preconditioned: bool
) -> None:
    wrong = gd(step_size=0.1)._replace(geometry=lambda _at, _state: geometry, preconditioned=preconditioned)
    with pytest.raises(ConfigError, match=message):
        next(minimise(*small_problem(), wrong, stop=Stop(1)))


@pytest.mark.parametrize("option", ["beta1", "beta2"])
def test_a_share_of_1_is_refused_before_a_run(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}.*less than 1"):
        validate(with_adam(**{option: 1}), PARAMS)


def test_a_run_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    objective, theta = small_problem(dtype=torch.float32)
    method = adam(step_size=0.01)

    def go_on(folder: Path, steps: int) -> list[Row]:
        with resuming.training(folder, 5) as so_far:
            start = so_far.position(theta)
            for row in minimise(objective, start, method, stop=Stop(20), on_iterate=so_far.keep):
                so_far.rows.append(row)
                if row.step == steps:
                    raise KeyboardInterrupt
        return so_far.rows

    whole = go_on(tmp_path / "whole", 99)
    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path / "killed", 12)
    assert repr(go_on(tmp_path / "killed", 99)) == repr(whole)  # the last row has NaN
    for kept in ("0000015", "0000020"):
        ours, theirs = (tmp_path / run / f"snapshots/{kept}.safetensors" for run in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_figure_draws_its_threshold_beside_the_effective_sharpness_alone() -> None:
    objective, theta = small_problem()
    run = eos.minimise(objective, optimizer=adam(step_size=0.01), steps=4, keep_every=1, start=theta)
    for name in ("sharpness", "effective_sharpness"):
        run.diagnose(name, **SOLVE)
    raw, effective = eos.plot(run, ["sharpness", "effective_sharpness"]).axes
    assert [line for line in raw.lines if line.get_linestyle() == "--"] == []
    (dashed,) = [line for line in effective.lines if line.get_linestyle() == "--"]
    assert [*dashed.get_ydata()] == pytest.approx([3800, 3800])
    low, high = effective.get_ylim()
    assert low < 3800 < high


@pytest.mark.parametrize(
    ("quantity", "refused"), [("sharpness", True), ("directional_smoothness", True), ("effective_sharpness", False)]
)
def test_claims_by_its_threshold_are_about_the_effective_sharpness(quantity: str, *, refused: bool) -> None:
    params = with_adam()
    params["diagnose"]["effective_sharpness"] = SOLVE | {"rtol": 1e-2}
    run = validate(params, PARAMS).run("exp2_2over300")
    of = Statistic.model_validate({"quantity": quantity, "statistic": "max", "relative_to": "threshold"})
    found = supposes_another_optimizer(run, of)
    assert found == (f"the threshold of adam is one of the effective sharpness, not of {quantity}" if refused else None)


def test_its_snapshots_take_the_disk_that_is_announced_for_them(tmp_path: Path) -> None:
    run = validate(with_adam(), PARAMS).run("exp2_2over300")
    size = estimate.of_run(run, small_dataset(40))
    theta = torch.zeros(size.n_coordinates)
    save_snapshot(tmp_path, Position(0, theta, run.method.init(theta)))
    (file,) = tmp_path.iterdir()
    assert size.bytes // size.snapshots == 3 * theta.nbytes
    assert 3 * theta.nbytes < file.stat().st_size < 3 * theta.nbytes + 1500


def with_adam(**options: float) -> dict[str, Any]:
    params = alone(small_params(), "exp2")
    params["experiments"]["exp2"]["optimizer"] = {"name": "adam", **options}
    return params

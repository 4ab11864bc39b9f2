"""Sharpness along a run: right at every snapshot, cheap by a sketch of the examples, and honest by audits."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from math import isnan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eosrepro.core.lanczos import top_eigenpairs
from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.row_space import on_own_row_space
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, EigenPair, Position, Stop
from eosrepro.data.digits import digits
from eosrepro.diagnostics.sharpness import Point, sharpness, solved
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, small_dataset, small_problem


def snapshots_of_a_run(*, steps: int, every: int) -> tuple[Objective, list[Position]]:
    objective, theta = small_problem()
    kept: list[Position] = []

    def keep(at: Position) -> None:
        if at.step % every == 0:
            kept.append(at)

    list(minimise(objective, theta, gd(step_size=0.4), stop=Stop(steps), on_iterate=keep))
    return objective, kept


def test_agrees_with_the_dense_hessian_at_every_snapshot() -> None:
    objective, snapshots = snapshots_of_a_run(steps=60, every=5)
    rows = list(sharpness(objective, snapshots, k=2, rtol=1e-4, max_products=200, audit_every=4, seed=0))

    assert [row["step"] for row in rows] == list(range(0, 61, 5))
    for row, (_, theta, _) in zip(rows, snapshots, strict=True):
        second, top = torch.linalg.eigvalsh(dense_hessian(objective, theta))[-2:].tolist()
        assert row["sharpness"] == pytest.approx(top, rel=1e-4)
        assert row["eigenvalue_2"] == pytest.approx(second, rel=1e-4)
        assert row["residual"] <= 1e-4 * top


def many_examples() -> tuple[Objective, list[Position]]:
    """A run on 1000 examples, of which 100 are sketched."""
    objective, theta = network_problem(
        partial(mlp, width=6, depth=2), cross_entropy(), small_dataset(1000), seed=0, dtype=torch.float64, device="cpu",
        chunk_size=1000,
    )  # fmt: skip
    kept: list[Position] = []
    list(minimise(objective, theta, gd(step_size=2.0), stop=Stop(60), on_iterate=kept.append))
    return objective, kept[::6]


def solves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """What every solve from now on returns: the largest eigenvalue and the products that it took."""
    found: list[tuple[float, int]] = []

    def solve(matvec: Any, start: Tensor, **settings: Any) -> list[EigenPair]:
        pairs = top_eigenpairs(matvec, start, **settings)
        found.append((pairs[0].value, pairs[0].products))
        return pairs

    monkeypatch.setattr(sys.modules["eosrepro.diagnostics.sharpness"], "top_eigenpairs", solve)
    return found


def test_a_sketch_of_the_examples_is_solved_first_and_saves_products(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, snapshots = many_examples()
    found = solves(monkeypatch)
    settings = {"k": 1, "rtol": 1e-3, "max_products": 200, "audit_every": 100, "seed": 0}
    sketched = [row["products"] for row in sharpness(objective, snapshots, **settings)]
    (sketch, rough), (_, full), _, *rest = found

    assert len(rest) == 2 * (len(snapshots) - 1)
    assert sketched[0] == pytest.approx(full + rough / 10)
    few = objective.batch(torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100])
    exact = torch.linalg.eigvalsh(dense_hessian(few, snapshots[0].theta))[-1].item()
    assert sketch == pytest.approx(exact, rel=1e-3)
    random = torch.randn(objective.n_params, generator=torch.Generator().manual_seed(0)).double()
    cold = [top_eigenpairs(objective.hvp(theta), random, rtol=1e-3)[0].products for _, theta, _ in snapshots]
    assert full + sum(products for _, products in rest[1::2]) < 0.9 * sum(cold)
    for row, (_, theta, _) in zip(sharpness(objective, snapshots, **settings), snapshots, strict=True):
        top = torch.linalg.eigvalsh(dense_hessian(objective, theta))[-1].item()
        assert row["sharpness"] == pytest.approx(top, rel=1e-4)


def test_of_few_examples_and_of_problems_nothing_is_sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = solves(monkeypatch)
    settings = {"k": 1, "rtol": 1e-3, "max_products": 200, "audit_every": 100, "seed": 0}
    for objective, theta in (small_problem(), function_problem(quadratic(), [0.1, 0.1])):
        found.clear()
        row = next(sharpness(objective, [Position(0, theta, None)], **settings))
        assert [products for _, products in found] == [row["products"], row["audit_products"]]


def test_no_snapshot_depends_on_the_one_before() -> None:
    objective, snapshots = snapshots_of_a_run(steps=10, every=5)
    settings = {"k": 1, "rtol": 1e-6, "max_products": 200, "audit_every": 100, "seed": 0}
    rows = list(sharpness(objective, snapshots, **settings))
    for row, snapshot in zip(rows, snapshots, strict=True):
        alone = next(sharpness(objective, [snapshot], **settings))
        assert row["sharpness"] == pytest.approx(alone["sharpness"], rel=1e-9)


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

    objective, _ = function_problem(f, [0.0] * size)
    before, after = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    after[0] = 3.0
    rows = list(
        sharpness(
            objective,
            [Position(0, before, None), Position(1, after, None)],
            k=1,
            rtol=1e-3,
            max_products=40,
            audit_every=10,
            seed=0,
        )
    )

    assert rows[0]["sharpness"] == pytest.approx(10.1, rel=1e-3)
    assert rows[1]["sharpness"] == pytest.approx(36 + growing[1].item(), rel=1e-3)


def test_works_on_a_problem_of_two_numbers() -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.1])
    row = next(sharpness(objective, [Position(0, theta, None)], k=1, rtol=1e-3, max_products=10, audit_every=1, seed=0))

    assert row["sharpness"] == pytest.approx(40.0, rel=1e-6)


def sixty_digits(
    *, width: int, depth: int, loss: Any, dtype: torch.dtype, activation: str = "tanh"
) -> tuple[Objective, Tensor]:
    raw = digits(n_examples=60, seed=0)
    inputs = torch.from_numpy(raw.pixels).float() / 255
    data = Dataset(inputs, torch.from_numpy(raw.targets), raw.n_classes, raw.label)
    model = partial(mlp, width=width, depth=depth, activation=activation)
    return network_problem(model, loss, data, seed=0, dtype=dtype, device="cpu", chunk_size=60)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigenvalues_that_are_tenfold_are_found_as_often_as_asked(dtype: torch.dtype) -> None:
    """A linear classifier with squared error has one Hessian, ten times: a block for every class."""
    objective, theta = sixty_digits(width=4, depth=0, loss=mse(), dtype=dtype)
    (row,) = sharpness(objective, [Position(0, theta, None)], k=3, rtol=3e-3, max_products=200, audit_every=1, seed=0)
    dense = torch.linalg.eigvalsh(dense_hessian(objective, theta).double())[-10:]

    assert dense.tolist() == pytest.approx([11.744676] * 10, rel=1e-6)
    assert [row["sharpness"], row["eigenvalue_2"], row["eigenvalue_3"]] == pytest.approx([11.744676] * 3, rel=1e-5)
    assert row["residual"] <= 3e-3 * 11.7447


def test_k_pairs_from_a_sketch_agree_with_the_dense_hessian() -> None:
    objective, snapshots = many_examples()
    rows = sharpness(objective, snapshots, k=3, rtol=1e-3, max_products=200, audit_every=100, seed=0)
    for row, (_, theta, _) in zip(rows, snapshots, strict=True):
        expected = torch.linalg.eigvalsh(dense_hessian(objective, theta)).flip(0)[:3].tolist()
        assert [row["sharpness"], row["eigenvalue_2"], row["eigenvalue_3"]] == pytest.approx(expected, rel=1e-3)


def test_audits_are_ten_times_as_accurate_as_the_solves() -> None:
    objective, snapshots = snapshots_of_a_run(steps=60, every=10)
    rows = list(sharpness(objective, snapshots, k=1, rtol=1e-4, max_products=200, audit_every=1, seed=0))

    assert all(row["audit_residual"] <= 1e-5 * row["audit_sharpness"] for row in rows)
    assert max(row["residual"] / row["sharpness"] for row in rows) > 2e-5  # as accurate as a solve is not enough


def quadratic_with(hessian: Tensor, n_examples: int, of_sketch: Tensor | None = None) -> Objective:
    """θᵀHθ/2, in which a sketch sees another H."""

    def part(theta: Tensor) -> tuple[Tensor, Tensor]:
        return theta @ hessian @ theta / 2, theta.new_tensor(0.0)

    def sketch(indices: Tensor, _everywhere: bool) -> Objective:
        assert of_sketch is not None
        return quadratic_with(of_sketch, len(indices))

    return Objective(torch.zeros(len(hessian)), [part], n_examples, sketch)


@pytest.mark.parametrize("seed", range(3))
def test_a_sketch_that_takes_the_second_eigenvector_for_the_first_does_not_mislead(seed: int) -> None:
    few, many = torch.tensor([10.0, 9.2]), torch.linspace(-1, 5, 198)
    whole, swapped = (torch.diag(torch.cat([top, many]).double()) for top in (few, few.flip(0)))
    objective, at = quadratic_with(whole, 1000, swapped), torch.zeros(200, dtype=torch.float64)
    (row,) = sharpness(objective, [Position(0, at, None)], k=1, rtol=3e-3, max_products=200, audit_every=1, seed=seed)

    assert row["sharpness"] == pytest.approx(10.0, rel=3e-3)


@pytest.mark.parametrize("tangent", [1.9, -1.9])
def test_a_sketch_whose_eigenvectors_are_turned_does_not_mislead(tangent: float) -> None:
    """The first and half of the second, with either sign, nearly make up the second eigenvector of all examples."""
    whole = torch.diag(torch.cat([torch.tensor([10.0, 9.5]), torch.linspace(-1, 5, 198)]).double())
    angle = torch.atan(torch.tensor(tangent, dtype=torch.float64))
    turn = torch.eye(200, dtype=torch.float64)
    turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    objective, at = quadratic_with(whole, 1000, turn @ whole @ turn.T), torch.zeros(200, dtype=torch.float64)
    for seed in range(6):
        (row,) = sharpness(
            objective, [Position(0, at, None)], k=1, rtol=3e-3, max_products=200, audit_every=1, seed=seed
        )
        assert row["sharpness"] == pytest.approx(10.0, rel=3e-3)


def test_the_random_part_of_a_start_finds_what_the_sketch_does_not_see() -> None:
    """The sketch has three eigenvalues, so that its eigenvectors are exact and hold nothing of the first axis."""
    whole = torch.diag(torch.cat([torch.tensor([20.0]), torch.linspace(-1, 5, 199)]).double())
    blind = torch.diag(torch.cat([torch.tensor([0.0]), torch.tensor([4.0, 5.0]).repeat(100)[:199]]).double())
    objective, at = quadratic_with(whole, 1000, blind), torch.zeros(200, dtype=torch.float64)
    (row,) = sharpness(objective, [Position(0, at, None)], k=1, rtol=3e-3, max_products=200, audit_every=1, seed=0)

    assert row["sharpness"] == pytest.approx(20.0, rel=3e-3)


def test_where_the_hessian_is_not_finite_the_row_is_empty() -> None:
    """As where a run diverged: loss and gradient of a deep linear network are finite, products with its Hessian not."""
    objective, theta = sixty_digits(width=8, depth=4, loss=mse(), dtype=torch.float32, activation="linear")
    snapshots = [Position(step, scale * theta, None) for step, scale in enumerate((1, 1e4, 1))]
    fine, empty, again = sharpness(objective, snapshots, k=2, rtol=3e-3, max_products=200, audit_every=1, seed=0)

    reached = objective.value_and_grad(1e4 * theta)
    assert np.isfinite(reached.loss)
    assert reached.grad.isfinite().all()
    quantities = ["sharpness", "eigenvalue_2", "residual", "audit_sharpness", "audit_residual"]
    assert np.isnan([empty[name] for name in quantities]).all()
    assert (empty["step"], empty["products"], empty["audit_products"]) == (1, 1, 1)
    for row in (fine, again):
        assert row["sharpness"] == pytest.approx(row["audit_sharpness"], rel=3e-3)


def test_in_a_sketch_too_what_is_not_finite_is_empty() -> None:
    objective, snapshots = many_examples()
    theta = snapshots[0].theta
    (row,) = sharpness(
        objective, [Position(0, theta * torch.nan, None)], k=1, rtol=3e-3, max_products=200, audit_every=1, seed=0
    )

    assert np.isnan([row["sharpness"], row["residual"], row["audit_sharpness"]]).all()


def test_eigensolves_may_start_in_bfloat16_of_all_examples() -> None:
    """The value is as accurate as without, by one or two products in full precision."""
    data = small_dataset(600)
    make = partial(network_problem, partial(mlp, width=6, depth=2), cross_entropy(), data, seed=0, dtype=torch.float32)
    plain, theta = make(device="cpu", chunk_size=250)
    rough, _ = make(device="cpu", chunk_size=250, rough=True)
    assert plain.rough is None
    assert rough.rough is not None
    kept: list[Position] = []
    list(minimise(plain, theta, gd(step_size=1.0), stop=Stop(60), on_iterate=kept.append))

    full_precision = 0
    hvp = rough.hvp

    def counting(point: Tensor) -> Any:
        product = hvp(point)

        def counted(vector: Tensor) -> Tensor:
            nonlocal full_precision
            full_precision += 1
            return product(vector)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Objective, "hvp", lambda self, point: counting(point) if self is rough else hvp.__func__(self, point)
        )
        rows = list(sharpness(rough, kept[1::15], k=1, rtol=3e-3, max_products=200, audit_every=100, seed=0))
    assert full_precision - rows[0]["audit_products"] <= 2 * len(rows)
    for row, at in zip(rows, kept[1::15], strict=True):
        top = torch.linalg.eigvalsh(dense_hessian(plain, at.theta).double())[-1].item()
        assert row["sharpness"] == pytest.approx(top, rel=1e-3)
        assert row["residual"] <= 3e-3 * top


def test_in_bfloat16_too_k_pairs_and_preconditioned_ones_are_right() -> None:
    objective, theta = network_problem(
        partial(mlp, width=6, depth=2), cross_entropy(), small_dataset(60), seed=0, dtype=torch.float64, device="cpu",
        chunk_size=60, rough=True,
    )  # fmt: skip
    scale = torch.linspace(0.5, 2, len(theta), dtype=torch.float64)
    (row,) = solved(objective, [Point(0, theta, scale)], k=3, rtol=1e-6, max_products=300, audit_every=1, seed=0)
    dense = dense_hessian(objective, theta) / torch.outer(scale, scale).sqrt()
    third, second, first = torch.linalg.eigvalsh(dense)[-3:].tolist()
    found = [row["sharpness"], row["eigenvalue_2"], row["eigenvalue_3"]]
    assert found == pytest.approx([first, second, third], rel=1e-6)


def test_where_bfloat16_overflows_the_eigenvalue_is_found_without() -> None:
    objective, theta = small_problem()
    lost = replace(objective, parts=[lambda theta: (theta.sum().double() * torch.inf, theta.new_tensor(0.0))])
    options: dict[str, Any] = {"k": 1, "rtol": 1e-6, "max_products": 200, "audit_every": 1, "seed": 0}
    (row,) = sharpness(replace(objective, rough=lambda: lost), [Position(0, theta, None)], **options)
    assert row["sharpness"] == pytest.approx(torch.linalg.eigvalsh(dense_hessian(objective, theta))[-1].item())


@pytest.mark.parametrize("kind", ["none", "number", "vector"])
def test_a_sketch_in_its_own_row_space_serves_every_geometry(kind: str) -> None:
    """A preconditioner with a weight for each number does not fit into it: that sketch is solved in all numbers."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 1, 8, 8, generator=generator)
    data = Dataset(inputs, torch.randint(0, 3, (500,), generator=generator), 3, "noise")
    options: dict[str, Any] = {"seed": 0, "dtype": torch.float64, "device": "cpu", "chunk_size": 500}
    objective, theta = network_problem(partial(mlp, width=4, depth=1), cross_entropy(), data, **options)
    assert on_own_row_space(objective, torch.arange(50))
    weights = 0.5 + 4 * torch.rand(len(theta), generator=generator).double()
    preconditioner = {"none": None, "number": 0.25, "vector": weights}[kind]
    scale = torch.as_tensor(1.0 if preconditioner is None else preconditioner).double().expand(len(theta)) ** -0.5
    dense = scale[:, None] * dense_hessian(objective, theta) * scale
    (row,) = solved(objective, [Point(0, theta, preconditioner)], 2, 1e-6, 200, 1, 0)
    top = torch.linalg.eigvalsh(dense).flip(0).tolist()
    assert [row["sharpness"], row["eigenvalue_2"]] == pytest.approx(top[:2], rel=1e-6)

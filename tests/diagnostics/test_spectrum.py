"""The spectrum along a run against the dense Hessian at every snapshot."""

from __future__ import annotations

from dataclasses import astuple
from math import isnan
from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem
from eosrepro.core.types import Position
from eosrepro.diagnostics.spectral_density import spectral_density
from eosrepro.diagnostics.spectrum import SpectrumRow, spectrum
from eosrepro.losses.mse import mse
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian
from tests.diagnostics.test_sharpness import sixty_digits, snapshots_of_a_run

SETTINGS: dict[str, Any] = {"k": 3, "n_probes": 10, "n_nodes": 20, "rtol": 1e-5, "max_products": 200, "seed": 0}


@pytest.fixture(scope="module")
def run() -> tuple[Objective, list[tuple[int, Tensor]], list[SpectrumRow]]:
    objective, snapshots = snapshots_of_a_run(steps=30, every=10)
    return objective, snapshots, list(spectrum(objective, snapshots, **SETTINGS))


def test_both_ends_and_the_gradient_in_them_agree_with_the_dense_hessian(run: Any) -> None:
    objective, snapshots, rows = run
    before = None

    assert [row.step for row in rows] == [0, 10, 20, 30]
    for row, (_, theta, _) in zip(rows, snapshots, strict=True):
        values, vectors = torch.linalg.eigh(dense_hessian(objective, theta))
        grad = objective.value_and_grad(theta).grad
        shares = (vectors.T @ grad).square().flip(0) / grad.square().sum()
        measured = [row.top_eigenvalue_1, row.top_eigenvalue_2, row.top_eigenvalue_3]
        assert measured == pytest.approx(values.flip(0)[:3].tolist(), rel=1e-6)
        assert isnan(row.top_eigenvalue_4)
        assert isnan(row.top_eigenvalue_5)
        assert row.smallest_eigenvalue == pytest.approx(values[0].item(), rel=1e-6)
        assert row.spectrum_residual <= 1e-5 * row.top_eigenvalue_1
        assert row.smallest_residual <= 1e-5 * abs(row.smallest_eigenvalue)
        assert row.gradient_overlap_1 == pytest.approx(shares[0].item(), rel=1e-3)
        assert row.gradient_overlap == pytest.approx(shares[:3].sum().item(), rel=1e-3)
        if before is None:
            assert isnan(row.alignment)
        else:
            assert row.alignment == pytest.approx(abs(before @ vectors[:, -1]).item(), abs=1e-3)
        before = vectors[:, -1]


def test_trace_and_negative_mass_agree_with_the_dense_hessian(run: Any) -> None:
    objective, snapshots, rows = run
    for row, (_, theta, _) in zip(rows, snapshots, strict=True):
        values = torch.linalg.eigvalsh(dense_hessian(objective, theta))
        negative = -values.clamp(max=0).sum() / values.abs().sum()
        assert row.trace == pytest.approx(values.sum().item(), abs=5 * row.trace_standard_error)
        assert row.negative_mass == pytest.approx(negative.item(), rel=0.3)


def test_the_trace_comes_from_the_first_product_of_each_probe() -> None:
    objective, snapshots = snapshots_of_a_run(steps=0, every=1)
    few, many = (next(spectrum(objective, snapshots, **SETTINGS | {"n_nodes": nodes})) for nodes in (1, 20))

    assert few.trace == pytest.approx(many.trace, rel=1e-10)
    assert few.trace_standard_error == pytest.approx(many.trace_standard_error, rel=1e-10)
    assert many.spectrum_products == few.spectrum_products + 10 * 19


def test_all_products_are_counted() -> None:
    objective, snapshots = snapshots_of_a_run(steps=0, every=1)
    calls: list[int] = []

    class Counted:
        def __init__(self, theta: Tensor) -> None:
            self._hvp = Objective.hvp(objective, theta)
            self.grad = self._hvp.grad

        def __call__(self, vector: Tensor) -> Tensor:
            calls.append(1)
            return self._hvp(vector)

    class Counting(Objective):
        def hvp(self, theta: Tensor) -> Counted:
            return Counted(theta)

    counting = Counting(objective.start, objective.parts, objective.n_examples)
    row = next(spectrum(counting, snapshots, **SETTINGS))

    assert row.spectrum_products == len(calls)


def test_works_on_a_problem_of_two_numbers() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.1])
    row = next(spectrum(objective, [Position(0, theta, None)], **SETTINGS))

    assert (row.top_eigenvalue_1, row.top_eigenvalue_2, row.smallest_eigenvalue) == pytest.approx((40.0, 2.0, 2.0))
    assert isnan(row.top_eigenvalue_3)
    assert row.trace == pytest.approx(42.0)  # the Hessian is diagonal, and so every probe exact
    assert row.trace_standard_error == pytest.approx(0.0, abs=1e-9)
    assert row.negative_mass == 0
    assert row.gradient_overlap == pytest.approx(1.0)
    assert row.gradient_overlap_1 == pytest.approx(16 / 16.04)


def test_a_flat_function_has_no_shares() -> None:
    objective, theta = function_problem(lambda point: point.sum() * 0, [0.1, 0.1])
    row = next(spectrum(objective, [Position(0, theta, None)], **SETTINGS | {"k": 1}))

    assert isnan(row.negative_mass)
    assert isnan(row.gradient_overlap)
    assert row.trace == 0


def test_the_same_seed_gives_the_same_rows(run: Any) -> None:
    objective, snapshots, rows = run
    again = list(spectrum(objective, snapshots, **SETTINGS))

    assert str([astuple(row) for row in again]) == str([astuple(row) for row in rows])  # NaN is not itself


def test_the_weights_of_a_density_sum_to_one_and_its_nodes_span_the_spectrum(run: Any) -> None:
    objective, snapshots, _ = run
    rows = list(spectral_density(objective, snapshots, n_probes=10, n_nodes=20, seed=0))

    assert len(rows) == 4 * 10 * 20
    for step, theta, _ in snapshots:
        values = torch.linalg.eigvalsh(dense_hessian(objective, theta))
        here = [row for row in rows if row.step == step]
        assert {row.probe for row in here} == set(range(10))
        assert sum(row.weight for row in here) == pytest.approx(1.0)
        assert min(row.eigenvalue for row in here) == pytest.approx(values[0].item(), rel=1e-3)
        assert max(row.eigenvalue for row in here) == pytest.approx(values[-1].item(), rel=1e-6)
        second_moment = sum(row.weight * row.eigenvalue**2 for row in here)
        assert second_moment == pytest.approx(values.square().mean().item(), rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_smallest_eigenvalue_of_zero_is_found_to_a_share_of_the_scale(dtype: torch.dtype) -> None:
    """A linear classifier with squared error: its Hessian is semidefinite, and every eigenvalue tenfold."""
    objective, theta = sixty_digits(width=4, depth=0, loss=mse(), dtype=dtype)
    row = next(spectrum(objective, [Position(0, theta, None)], **SETTINGS | {"rtol": 1e-2, "n_probes": 2}))
    tops = [row.top_eigenvalue_1, row.top_eigenvalue_2, row.top_eigenvalue_3]

    assert torch.linalg.eigvalsh(dense_hessian(objective, theta).double())[0].item() == pytest.approx(0, abs=1e-5)
    assert row.smallest_eigenvalue == pytest.approx(0, abs=1e-4 * 11.7447)
    assert row.smallest_residual <= 1e-4 * 11.7447
    assert tops == pytest.approx([11.744676] * 3, rel=1e-3)


def test_the_largest_of_a_negative_semidefinite_hessian_is_zero() -> None:
    curvatures = -torch.cat([torch.zeros(10), 5 * 0.7 ** torch.arange(40)]).double()
    objective, theta = function_problem(lambda point: (curvatures * point * point).sum() / 2, [0.1] * 50)
    row = next(spectrum(objective, [Position(0, theta, None)], **SETTINGS))

    assert [row.top_eigenvalue_1, row.top_eigenvalue_2, row.top_eigenvalue_3] == pytest.approx([0] * 3, abs=1e-6)
    assert row.smallest_eigenvalue == pytest.approx(-5.0, rel=1e-6)


def test_where_the_hessian_is_not_finite_the_row_is_empty() -> None:
    objective, theta = sixty_digits(width=8, depth=4, loss=mse(), dtype=torch.float32, activation="linear")
    snapshots = [Position(step, scale * theta, None) for step, scale in enumerate((1, 1e4, 1))]
    fine, empty, again = spectrum(objective, snapshots, **SETTINGS | {"rtol": 1e-2})
    step, *quantities, products = astuple(empty)

    assert (step, products) == (1, 2 + SETTINGS["n_probes"])
    assert all(map(isnan, quantities))
    for row in (fine, again):
        assert row.top_eigenvalue_1 > 0 > row.smallest_eigenvalue
        assert not isnan(row.trace)
    assert isnan(again.alignment)

    nodes = list(spectral_density(objective, [Position(1, 1e4 * theta, None)], n_probes=2, n_nodes=5, seed=0))
    assert [(node.step, node.probe, isnan(node.eigenvalue)) for node in nodes] == [(1, 0, True), (1, 1, True)]

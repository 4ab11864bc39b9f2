"""Both ends of the spectrum, its trace and its density against dense Hessians and an independent library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eosrepro.core.lanczos import NotConvergedError, bottom_eigenpair
from eosrepro.core.quadrature import average, quadrature, stochastic_quadratures
from eosrepro.models.mlp import mlp
from tests.conftest import dense_hessian, small_dataset, small_problem
from tests.test_lanczos import start_vector

ACTIVATIONS = ["tanh", "relu", "linear"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_eigenvalue_of_small_networks_agrees_with_the_dense_hessian(activation: str, seed: int) -> None:
    objective, theta = small_problem(activation, seed=seed)
    dense = dense_hessian(objective, theta)
    expected = torch.linalg.eigvalsh(dense)[0].item()
    pair = bottom_eigenpair(objective.hvp(theta), start_vector(len(theta)), rtol=1e-5)

    assert pair.value == pytest.approx(expected, rel=1e-6)
    assert torch.linalg.vector_norm(dense @ pair.vector - pair.value * pair.vector) == pytest.approx(
        pair.residual, rel=0.01, abs=1e-9
    )


def test_the_smallest_is_the_most_negative_not_the_smallest_in_magnitude(
    matrix_with: Callable[[list[float]], Tensor],
) -> None:
    matrix = matrix_with([-2.0, *np.linspace(-1, 1, 60).tolist(), 30.0])

    assert bottom_eigenpair(matrix.mv, start_vector(62), rtol=1e-6).value == pytest.approx(-2.0, rel=1e-6)


def test_a_smallest_one_that_did_not_converge_is_not_returned(matrix_with: Callable[[list[float]], Tensor]) -> None:
    with pytest.raises(NotConvergedError):
        bottom_eigenpair(matrix_with(np.linspace(0, 1, 200).tolist()).mv, start_vector(200), rtol=1e-6, max_products=4)


@settings(deadline=None, max_examples=60)
@given(
    eigenvalues=st.lists(st.floats(-10, 10), min_size=1, max_size=30),
    n_nodes=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_m_nodes_integrate_polynomials_up_to_degree_2m_minus_1_exactly(
    eigenvalues: list[float], n_nodes: int, seed: int
) -> None:
    diagonal = torch.tensor(eigenvalues, dtype=torch.float64)
    start = start_vector(len(diagonal), seed=seed)
    rule = quadrature(lambda vector: diagonal * vector, start, n_nodes)
    measure = start.square() / start.square().sum()  # of each eigenvalue, as seen from `start`

    assert len(rule.nodes) <= min(n_nodes, len(diagonal))
    assert (rule.weights >= 0).all()
    for degree in range(2 * n_nodes):
        moment = (measure * diagonal**degree).sum().item()
        scale = (measure * diagonal.abs() ** degree).sum().item()
        assert rule(lambda nodes, d=degree: nodes**d) == pytest.approx(moment, rel=1e-9, abs=1e-9 * max(scale, 1))


def test_nodes_and_weights_are_the_spectral_measure_where_the_space_is_exhausted() -> None:
    diagonal = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    start = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64)
    rule = quadrature(lambda vector: diagonal * vector, start, 10)

    torch.testing.assert_close(rule.nodes, diagonal)
    torch.testing.assert_close(rule.weights, torch.tensor([4.0, 1.0, 4.0], dtype=torch.float64) / 9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_trace_lies_within_its_standard_errors_over_many_seeds(activation: str) -> None:
    """z = (estimate − trace) / standard error over 100 seeds: mean 0 and mean square 1, and one product a probe."""
    objective, theta = small_problem(activation)
    dense = dense_hessian(objective, theta)
    expected, scores = dense.trace().item() / len(theta), []
    for seed in range(100):
        calls: list[int] = []

        def product(vector: Tensor, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return dense @ vector

        probes = stochastic_quadratures(
            product, theta, n_probes=50, n_nodes=1, generator=torch.Generator().manual_seed(seed)
        )
        mean, error = average(probes, lambda values: values)
        scores.append((mean - expected) / error)
        assert len(calls) == 50

    assert abs(fmean(scores)) < 0.3  # three standard errors of the mean of 100
    assert 0.7 < fmean(score**2 for score in scores) < 1.4
    assert max(map(abs, scores)) < 5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_density_agrees_with_the_dense_spectrum(activation: str) -> None:
    """Its distribution function, where the spectrum has a gap, and the mean of smooth functions."""
    objective, theta = small_problem(activation)
    spectrum = torch.linalg.eigvalsh(dense_hessian(objective, theta))
    rules = stochastic_quadratures(
        objective.hvp(theta), theta, n_probes=100, n_nodes=40, generator=torch.Generator().manual_seed(0)
    )
    levels = (spectrum[1:] + spectrum[:-1])[(spectrum[1:] - spectrum[:-1]) > 0.02 * spectrum[-1]] / 2
    functions = [lambda values, level=level: (values < level).double() for level in levels]
    functions += [torch.abs, torch.square, lambda values: torch.exp(-((values - 0.1) ** 2) / 0.02)]

    assert len(levels) >= 3
    for function in functions:
        mean, error = average(rules, function)
        assert mean == pytest.approx(function(spectrum).double().mean().item(), abs=4 * error + 1e-9)


def test_the_trace_agrees_with_curvlinops() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    objective, theta = small_problem()
    data, module = small_dataset(), mlp((1, 3, 3), 3, width=6, depth=2, activation="tanh").double()
    nn.utils.vector_to_parameters(theta, module.parameters())
    reference = curvlinops.HessianLinearOperator(
        module,
        nn.CrossEntropyLoss(),
        list(module.parameters()),
        [(data.inputs.double(), data.targets)],
        check_deterministic=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = float(curvlinops.hutchinson_trace(reference, num_matvecs=120, distribution="rademacher"))
    rules = stochastic_quadratures(
        objective.hvp(theta), theta, n_probes=120, n_nodes=1, generator=torch.Generator().manual_seed(0)
    )
    mean, error = average(rules, lambda values: values)

    assert len(theta) * mean == pytest.approx(theirs, abs=5 * len(theta) * error)


def test_the_nodes_are_the_eigenvalues_on_the_explicit_krylov_space() -> None:
    objective, theta = small_problem()
    start, dense = start_vector(len(theta)), dense_hessian(*small_problem())
    basis = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(dense, i) @ start for i in range(5)], 1))[0]
    rule = quadrature(objective.hvp(theta), start, 5)

    np.testing.assert_allclose(rule.nodes, torch.linalg.eigvalsh(basis.T @ dense @ basis), rtol=1e-6, atol=1e-8)


def test_the_same_generator_gives_the_same_quadratures() -> None:
    objective, theta = small_problem()
    draw = partial(stochastic_quadratures, objective.hvp(theta), theta, n_probes=2, n_nodes=4)
    first, second, other = (draw(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))

    assert all(torch.equal(a.nodes, b.nodes) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].nodes, other[0].nodes)
    assert not torch.equal(first[0].nodes, first[1].nodes)

"""The loss along lines: closed forms, full gradients in float64, and both paths against each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.baselines import without_first_layer
from eosrepro.core.along import MinibatchStep, along, dot, minibatch_steps
from eosrepro.core.objective import LinearFirst, Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.problems.quadratic import quadratic
from tests.conftest import small_dataset, small_problem

STEP_SIZE = 2 / 60
SMALL = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative difference of the two paths
ACTIVATIONS = ["tanh", "relu", "linear", "elu", "softplus"]
CASES = [(activation, dtype) for activation in ACTIVATIONS for dtype in SMALL]


def paper_problem(activation: str, dtype: torch.dtype, *, chunk_size: int = 64) -> tuple[Objective, Tensor]:
    """3072-200-200-10 on 64 examples of noise."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.rand(64, 3, 32, 32, generator=generator), torch.randint(0, 10, (64,), generator=generator)
    return network_problem(
        partial(mlp, activation=activation),
        cross_entropy(),
        Dataset(inputs, targets, 10, "noise"),
        seed=0,
        dtype=dtype,
        device="cpu",
        chunk_size=chunk_size,
    )


def shuffled(n_examples: int, batch_size: int) -> list[Tensor]:
    return list(torch.randperm(n_examples, generator=torch.Generator().manual_seed(1)).split(batch_size))


def smoothness(slope: float, time: float, sq_norm: float) -> float:
    """L(θ; t∇f) from the slope of f along -∇f."""
    return (sq_norm + slope) / (time * sq_norm)


# --- a line -----------------------------------------------------------------------------------------------------------


def test_on_a_quadratic_value_and_slope_are_known() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.1])
    direction = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for time, point in zip((0.0, 0.5, -2.0), along(objective, theta, direction, (0.0, 0.5, -2.0)), strict=True):
        first, second = 0.1 + time, 0.1 - 2 * time
        assert point.loss == pytest.approx(20 * first**2 + second**2, rel=1e-14)
        assert point.slope == pytest.approx(40 * first - 4 * second, rel=1e-14)


@pytest.mark.parametrize("chunk_size", [40, 13, 1])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_slope_are_those_of_the_full_gradient(activation: str, chunk_size: int) -> None:
    objective, theta = small_problem(activation, chunk_size=chunk_size)
    direction = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    assert all(isinstance(part, LinearFirst) for part in objective.parts)
    for time, point in zip((-0.7, 0.0, 0.3), along(objective, theta, direction, (-0.7, 0.0, 0.3)), strict=True):
        expected = objective.value_and_grad(theta + time * direction)
        assert point.loss == pytest.approx(expected.loss, rel=1e-13)
        assert point.slope == pytest.approx(float(expected.grad @ direction), rel=1e-11)


@pytest.mark.parametrize(("activation", "dtype"), CASES)
def test_l_along_the_papers_network_is_the_same_by_both_paths(activation: str, dtype: torch.dtype) -> None:
    objective, theta = paper_problem(activation, dtype)
    grad = objective.value_and_grad(theta).grad
    sq_norm = float(grad.double() @ grad.double())
    times = [tau * STEP_SIZE for tau in (0.1, 0.5, 1.0)]
    fast = along(objective, theta, -grad, times)
    general = along(without_first_layer(objective), theta, -grad, times)
    for time, one, other in zip(times, fast, general, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=SMALL[dtype])
        # L = (1 + slope/‖∇f‖²)/t: what both are rounded by is divided by t.
        assert smoothness(one.slope, time, sq_norm) == pytest.approx(
            smoothness(other.slope, time, sq_norm), rel=SMALL[dtype], abs=torch.finfo(dtype).eps / time
        )


def test_a_network_without_hidden_layers_has_no_later_parameters() -> None:
    objective, theta = network_problem(
        partial(mlp, depth=0), mse(), small_dataset(), seed=0, dtype=torch.float64, device="cpu", chunk_size=40
    )
    direction = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    (point,) = along(objective, theta, direction, [0.4])
    assert point.slope == pytest.approx(float(objective.value_and_grad(theta + 0.4 * direction).grad @ direction))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(9, 3)],
        [nn.Flatten(2), nn.Flatten(1), nn.Linear(9, 3)],
        [nn.Flatten(), nn.Linear(9, 3, bias=False)],
        [nn.Flatten(), nn.Tanh(), nn.Linear(9, 3)],
        [nn.Flatten()],
    ],
)
def test_a_network_that_begins_otherwise_takes_the_general_path(layers: list[nn.Module]) -> None:
    dataset = small_dataset()
    if not isinstance(layers[0], nn.Flatten):
        dataset = Dataset(dataset.inputs.flatten(1), dataset.targets, 3, "noise")
    if len(layers) == 1 and isinstance(layers[0], nn.Flatten):
        layers = [*layers, nn.LayerNorm(9)]
        dataset = Dataset(dataset.inputs, dataset.targets, 9, "noise")
    objective, theta = network_problem(
        lambda *_: nn.Sequential(*layers), cross_entropy(), dataset, seed=0, dtype=torch.float64, device="cpu",
        chunk_size=40,
    )  # fmt: skip
    assert not any(isinstance(part, LinearFirst) for part in objective.parts)
    grad = objective.value_and_grad(theta).grad
    (point,) = along(objective, theta, grad, [0.0])
    assert point.slope == pytest.approx(float(grad @ grad))
    steps = list(minibatch_steps(objective, theta, grad, shuffled(40, 16), step_size=0.1))
    assert sum(step.weight * step.grad_dot_full for step in steps) > 0


# --- minibatches ------------------------------------------------------------------------------------------------------


def by_definition(objective: Objective, theta: Tensor, indices: Tensor, step_size: float) -> MinibatchStep:
    """From full gradients: one backward pass over the minibatch's own loss, and one over all examples."""
    point = theta.clone().requires_grad_()
    losses = [objective.batch(index[None]).parts[0](point)[0] for index in indices]
    grad = torch.autograd.grad(torch.stack(losses).mean(), point)[0]
    here, there = (objective.value_and_grad(at) for at in (theta, theta - step_size * grad))
    return MinibatchStep(
        len(indices) / objective.n_examples,
        float(grad @ grad),
        float(grad @ here.grad),
        there.loss,
        float(grad @ there.grad),
    )


@pytest.mark.parametrize("chunk_size", [40, 13])
@pytest.mark.parametrize("batch_size", [16, 1, 40])
@pytest.mark.parametrize("general", [False, True])
def test_steps_on_minibatches_are_those_of_their_definition(general: bool, batch_size: int, chunk_size: int) -> None:
    objective, theta = small_problem(chunk_size=chunk_size)
    grad = objective.value_and_grad(theta).grad
    batches = shuffled(40, batch_size)
    seen = without_first_layer(objective) if general else objective
    steps = list(minibatch_steps(seen, theta, grad, batches, step_size=0.7))
    for step, indices in zip(steps, batches, strict=True):
        assert step == pytest.approx(by_definition(objective, theta, indices, 0.7), rel=1e-10)


@given(st.integers(1, 40), st.floats(0.01, 2))
@settings(max_examples=20, deadline=None)
def test_over_an_epoch_the_gradients_of_minibatches_average_to_the_gradient(batch_size: int, step_size: float) -> None:
    objective, theta = small_problem("softplus")
    grad = objective.value_and_grad(theta).grad
    steps = list(minibatch_steps(objective, theta, grad, shuffled(40, batch_size), step_size=step_size))
    weights = np.array([step.weight for step in steps])
    assert weights.sum() == pytest.approx(1)
    mean = float(weights @ [step.grad_dot_full for step in steps])
    assert mean == pytest.approx(float(grad @ grad), rel=1e-9)
    assert all(step.grad_dot_full**2 <= step.grad_sq_norm * float(grad @ grad) * (1 + 1e-9) for step in steps)


@pytest.mark.parametrize(("activation", "dtype"), CASES)
@pytest.mark.parametrize("chunk_size", [64, 30])
def test_minibatches_on_the_papers_network_are_the_same_by_both_paths(
    activation: str, dtype: torch.dtype, chunk_size: int
) -> None:
    objective, theta = paper_problem(activation, dtype, chunk_size=chunk_size)
    grad = objective.value_and_grad(theta).grad
    batches = shuffled(64, 24)
    fast = list(minibatch_steps(objective, theta, grad, batches, step_size=STEP_SIZE))
    general = list(minibatch_steps(without_first_layer(objective), theta, grad, batches, step_size=STEP_SIZE))
    for one, other in zip(fast, general, strict=True):
        assert one[:4] == pytest.approx(other[:4], rel=SMALL[dtype])
        # ⟨g, ∇f(θ − ηg)⟩ may itself nearly vanish; what eq. 5.1 takes of it is this difference.
        bends = [step.grad_dot_full - step.grad_dot_next_full for step in (one, other)]
        assert bends[0] == pytest.approx(bends[1], rel=SMALL[dtype])


def test_inner_products_of_inputs_are_cut_from_one_matrix_only_where_it_is_no_larger_than_twice_the_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def count(part: LinearFirst) -> Tensor:
        asked.append(len(part.inputs))
        return part.inputs @ part.inputs.T

    monkeypatch.setattr(LinearFirst, "inner_products", property(count))
    for problem, n_asked in (
        (paper_problem("tanh", torch.float64), 3),  # 64 examples of 3072 numbers
        (paper_problem("tanh", torch.float64, chunk_size=30), 0),
        (small_problem(), 0),  # 40 examples of 9 numbers
    ):
        objective, theta = problem
        asked.clear()
        batches = shuffled(objective.n_examples, -(-objective.n_examples // 3))
        list(minibatch_steps(objective, theta, theta, batches, step_size=STEP_SIZE))
        assert len(asked) == n_asked


def test_the_same_parts_make_the_objective_whether_or_not_its_first_layer_is_known() -> None:
    objective, theta = small_problem(chunk_size=13)
    whole, _ = small_problem()
    assert_close(objective.batch(torch.arange(40)).value_and_grad(theta).grad, whole.value_and_grad(theta).grad)
    few = torch.tensor([3, 17, 17])  # an example may be drawn twice
    expected = (
        whole.batch(few[:1]).value_and_grad(theta).grad + 2 * whole.batch(few[1:2]).value_and_grad(theta).grad
    ) / 3
    assert_close(whole.batch(few).value_and_grad(theta).grad, expected)


def test_a_problem_has_no_minibatches() -> None:
    objective, theta = function_problem(quadratic(), [0.1, 0.1])
    with pytest.raises(ConfigError, match="a problem has no examples"):
        list(minibatch_steps(objective, theta, theta, [torch.tensor([0])], step_size=0.1))


@pytest.mark.parametrize("left", [torch.tensor([1.0, 1e8, -1e8]), torch.full((3, 4), 0.1)])
def test_inner_products_are_summed_in_float64(left: Tensor) -> None:
    right = torch.ones_like(left)
    exact: Callable[[Tensor], float] = lambda value: float(value.double().sum())  # noqa: E731
    assert dot(left, right) == pytest.approx(exact(left), rel=1e-7)

"""f, ∇f and Hv against closed forms, dense autograd and an independent library."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from eosrepro.core.along import along
from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.problems.quadratic import quadratic
from tests.conftest import dense_hessian, small_dataset, small_problem


def test_softmax_regression_has_its_textbook_gradient_and_hessian() -> None:
    """Closed forms share no code with autograd: ∇_W f = mean (p − y)xᵀ, ∇² f = mean (diag p − ppᵀ) ⊗ x̃x̃ᵀ."""
    dataset = small_dataset()
    build = partial(mlp, depth=0)
    objective, theta = network_problem(
        build, cross_entropy(), dataset, seed=0, dtype=torch.float64, device="cpu", chunk_size=40
    )
    x = dataset.inputs.double().flatten(1)
    weight, bias = theta[:27].view(3, 9), theta[27:]
    p = torch.softmax(x @ weight.T + bias, -1)
    error = p - nn.functional.one_hot(dataset.targets, 3)
    extended = torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], 1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    full = torch.einsum("nab,ni,nj->aibj", curvature, extended, extended) / 40  # (class, input or bias)²
    order = torch.cat([torch.arange(30).view(3, 10)[:, :9].reshape(-1), torch.arange(30).view(3, 10)[:, 9]])
    hessian = full.reshape(30, 30)[order][:, order]

    assert_close(objective.value_and_grad(theta).grad, torch.cat([(error.T @ x / 40).reshape(-1), error.mean(0)]))
    assert_close(torch.stack([objective.hvp(theta)(e) for e in torch.eye(30, dtype=torch.float64)]), hessian)


def test_least_squares_on_a_linear_network_without_hidden_layers_has_hessian_of_second_moments() -> None:
    dataset = small_dataset()
    objective, theta = network_problem(
        partial(mlp, depth=0), mse(), dataset, seed=0, dtype=torch.float64, device="cpu", chunk_size=40
    )
    x = dataset.inputs.double().flatten(1)
    expected = torch.block_diag(*[x.T @ x / 40] * 3)

    assert_close(torch.stack([objective.hvp(theta)(e)[:27] for e in torch.eye(30, dtype=torch.float64)[:27]]), expected)


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear", "elu", "softplus"])
@pytest.mark.parametrize("chunk_size", [40, 13, 1])
def test_gradient_and_products_do_not_depend_on_the_chunks(activation: str, chunk_size: int) -> None:
    objective, theta = small_problem(activation, chunk_size=chunk_size)
    whole, _ = small_problem(activation)
    vector = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    hvp = objective.hvp(theta)

    assert objective.loss(theta) == pytest.approx(whole.loss(theta), rel=1e-13)
    assert_close(objective.value_and_grad(theta).grad, whole.value_and_grad(theta).grad)
    assert_close(hvp.grad, whole.value_and_grad(theta).grad)
    assert_close(hvp(vector), dense_hessian(whole, theta) @ vector)
    assert_close(hvp(2 * vector), 2 * hvp(vector))


@pytest.mark.parametrize("chunk_size", [6, 4])
def test_layers_may_work_in_place(chunk_size: int) -> None:
    """On the outputs of the first layer, of which Hessian products and lines take derivatives."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.randint(0, 3, (6,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
    objective = Objective.of(model, nn.functional.cross_entropy, x, y, chunk_size=chunk_size)
    model[2] = nn.ReLU()
    whole = Objective.of(model, nn.functional.cross_entropy, x, y)
    direction = torch.linspace(-1, 1, objective.n_params, dtype=torch.float64)

    assert_close(objective.hvp(objective.start)(direction), dense_hessian(whole, whole.start) @ direction)
    (point,) = along(objective, objective.start, direction, [0.1])
    there = whole.value_and_grad(whole.start + 0.1 * direction).grad
    assert point.slope == pytest.approx((there @ direction).item(), rel=1e-12)


def test_gradient_agrees_with_finite_differences_of_the_loss() -> None:
    objective, theta = small_problem()
    direction = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    slope = (objective.loss(theta + 1e-5 * direction) - objective.loss(theta - 1e-5 * direction)) / 2e-5

    assert objective.value_and_grad(theta).grad @ direction == pytest.approx(slope, rel=1e-7)


def test_accuracy_counts_the_largest_output() -> None:
    dataset = Dataset(torch.eye(3).reshape(3, 1, 1, 3), torch.tensor([0, 1, 0]), 3, "corners")
    objective, theta = network_problem(
        partial(mlp, depth=0), cross_entropy(), dataset, seed=0, dtype=torch.float64, device="cpu", chunk_size=2
    )
    identity = torch.cat([torch.eye(3, dtype=torch.float64).reshape(-1), torch.zeros(3, dtype=torch.float64)])

    assert len(theta) == len(identity)
    assert objective.value_and_grad(identity).accuracy == pytest.approx(2 / 3)


def test_the_initialisation_depends_on_the_seed_alone_and_not_on_the_dtype() -> None:
    state = torch.random.get_rng_state()
    _, single = small_problem(dtype=torch.float32, seed=3)
    _, double = small_problem(dtype=torch.float64, seed=3)
    _, other = small_problem(dtype=torch.float32, seed=4)

    assert_close(single.double(), double, atol=1e-7, rtol=1e-6)
    assert not torch.equal(single, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_start_is_pytorchs_default_initialisation() -> None:
    objective, start = network_problem(
        mlp, cross_entropy(), small_dataset(), seed=7, dtype=torch.float32, device="cpu", chunk_size=40
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layer = nn.Linear(9, 200)

    assert objective.n_params == len(start) == 9 * 200 + 200 + 200 * 200 + 200 + 200 * 10 - 200 * 7 + 3
    assert_close(start[: 9 * 200].view(200, 9), layer.weight.detach(), rtol=0, atol=0)


def test_a_function_is_an_objective_without_accuracy() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.1])
    evaluation = objective.value_and_grad(theta)
    hvp = objective.hvp(theta)

    assert evaluation.loss == pytest.approx(0.21)
    assert evaluation.accuracy != evaluation.accuracy
    assert_close(evaluation.grad, torch.tensor([4.0, 0.2], dtype=torch.float64))
    assert_close(hvp(torch.tensor([1.0, 1.0], dtype=torch.float64)), torch.tensor([40.0, 2.0], dtype=torch.float64))


def test_an_affine_function_has_no_curvature() -> None:
    objective, theta = function_problem(lambda point: point.sum(), [1.0, 2.0])

    assert_close(objective.hvp(theta)(torch.ones(2, dtype=torch.float64)), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_products_on_the_papers_network_agree_with_curvlinops(activation: str) -> None:
    """3072-200-200-10, in float32, against an independent library in float64."""
    curvlinops = pytest.importorskip("curvlinops")
    generator = torch.Generator().manual_seed(0)
    dataset = Dataset(
        torch.rand(64, 3, 32, 32, generator=generator), torch.randint(0, 10, (64,), generator=generator), 10, "noise"
    )
    build = partial(mlp, activation=activation)
    objective, theta = network_problem(
        build, cross_entropy(), dataset, seed=0, dtype=torch.float32, device="cpu", chunk_size=64
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build((3, 32, 32), 10).double()
    batch = [(dataset.inputs.double(), dataset.targets)]
    reference = curvlinops.HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), batch, check_deterministic=False
    )
    vector = torch.randn(theta.shape, generator=generator)
    ours = objective.hvp(theta)(vector).double()
    theirs = torch.as_tensor(reference @ vector.double())

    assert objective.n_params == 656_810
    assert torch.linalg.vector_norm(ours - theirs) < 1e-5 * torch.linalg.vector_norm(theirs)


@pytest.mark.parametrize(
    ("targets", "outputs", "said"),
    [
        (torch.arange(4) % 3, 5, "the model has 5 outputs an example, and the data have 3 classes"),
        (torch.arange(4.0)[:, None], 1, ""),
    ],
)
def test_a_model_has_an_output_for_each_class_or_number(targets: torch.Tensor, outputs: int, said: str) -> None:
    """One with more classes than the data would be trained on them in silence."""
    data = Dataset(torch.arange(12.0).reshape(4, 3), targets, 3 if targets.ndim == 1 else 1, "few")
    loss = cross_entropy() if targets.ndim == 1 else mse()

    def build(_shape: tuple[int, ...], _n_outputs: int) -> nn.Module:
        return nn.Linear(3, outputs)

    def make() -> object:
        return network_problem(build, loss, data, seed=0, dtype=torch.float64, device="cpu", chunk_size=4)

    if not said:
        make()
        return
    with pytest.raises(ConfigError, match=said):
        make()

"""The row space of the inputs: fewer numbers, the same training; and where it does not apply, nothing changes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eosrepro import catalog
from eosrepro.core.problem import network_problem
from eosrepro.core.row_space import in_row_space, on_own_row_space, size_in_row_space
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Iterate, Optimizer, Position, Row, Stop
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.cnn import cnn
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.adam import adam
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from tests.conftest import dense_hessian

MODELS = {
    "tanh": partial(mlp, width=4, depth=2),
    "no bias": partial(mlp, width=4, depth=2, activation="relu", bias=False),
    "linear": partial(mlp, width=4, depth=0),
}


def wide_dataset(n_examples: int = 12, *, rank: int | None = None) -> Dataset:
    """More inputs, 25, than examples; of that rank."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_examples, 25, generator=generator)
    if rank is not None:
        inputs = torch.randn(n_examples, rank, generator=generator) @ inputs[:rank]
    return Dataset(inputs.view(-1, 1, 5, 5), torch.randint(0, 3, (n_examples,), generator=generator), 3, "noise")


def problems(model: Any, data: Dataset, **options: Any) -> tuple[Any, Any]:
    """The same problem in all parameters and in the row space."""
    common = {"seed": 0, "dtype": torch.float64, "device": "cpu", "chunk_size": 5} | options
    whole, reduced = (
        network_problem(model, cross_entropy(), data, reduce_inputs=each, **common)[0] for each in (False, True)
    )
    return whole, reduced


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rank", [None, 3])
def test_loss_gradient_and_hessian_are_those_of_the_network(name: str, rank: int | None) -> None:
    whole, reduced = problems(MODELS[name], wide_dataset(rank=rank))
    space = reduced.row_space
    assert reduced.n_params < whole.n_params == space.n_parameters(reduced.n_params)
    torch.testing.assert_close(space.parameters(reduced.start), whole.start)

    moved = reduced.start + 0.3 * torch.randn(reduced.n_params, generator=torch.Generator().manual_seed(1)).double()
    theta = space.parameters(moved)
    here, there = whole.value_and_grad(theta), reduced.value_and_grad(moved)
    assert there.loss == pytest.approx(here.loss, rel=1e-13)
    assert there.accuracy == here.accuracy
    assert there.grad.norm().item() == pytest.approx(here.grad.norm().item(), rel=1e-12)

    values = torch.linalg.eigvalsh(dense_hessian(whole, theta)).numpy()
    own = torch.linalg.eigvalsh(dense_hessian(reduced, moved)).numpy()
    others = np.sort(np.concatenate([own, np.zeros(whole.n_params - reduced.n_params)]))
    np.testing.assert_allclose(others, values, atol=1e-12 * abs(values).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_few_of_the_examples_have_their_eigenvectors_in_the_row_space_of_their_own(dtype: torch.dtype) -> None:
    objective, _ = problems(MODELS["tanh"], wide_dataset(60), dtype=dtype, chunk_size=60)
    assert objective.row_space is None  # of all of them there is none
    indices, rtol = torch.arange(3, 60, 7), 1e-10 if dtype == torch.float64 else 1e-4
    narrow = on_own_row_space(objective, indices)
    assert narrow
    few, (own, space) = objective.batch(indices), narrow
    assert own.n_params == few.n_params - 4 * (25 - len(indices))

    theta = objective.start + 0.3 * torch.randn(objective.n_params, generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    assert own.loss(space.coordinates(theta)) == pytest.approx(few.loss(theta), rel=rtol)
    values, vectors = torch.linalg.eigh(dense_hessian(own, space.coordinates(theta)))
    hessian = dense_hessian(few, theta)
    np.testing.assert_allclose(values[-3:], torch.linalg.eigvalsh(hessian)[-3:], rtol=rtol)
    outside = space.parameters(vectors.T[-3:])
    torch.testing.assert_close(outside @ outside.T, torch.eye(3, dtype=dtype), rtol=0, atol=rtol)
    torch.testing.assert_close(outside @ hessian, values[-3:, None] * outside, rtol=0, atol=rtol * values[-1].item())
    torch.testing.assert_close(space.coordinates(outside), vectors.T[-3:], rtol=0, atol=rtol)


def test_there_is_none_of_as_many_examples_as_inputs_of_several_chunks_and_of_no_linear_layer() -> None:
    data = wide_dataset(60)
    (mlps, _), (chunks, _) = (problems(MODELS["tanh"], data, chunk_size=size) for size in (60, 5))
    (convolutional, _) = problems(partial(cnn, width=2, activation="tanh", pooling="average"), data, chunk_size=60)
    assert on_own_row_space(mlps, torch.arange(24))
    assert not on_own_row_space(mlps, torch.arange(25))
    assert not on_own_row_space(chunks, torch.arange(24))
    assert not on_own_row_space(convolutional, torch.arange(24))


SPANNING = {
    "gd": gd(step_size=0.3),
    "sgd": sgd(step_size=0.1, batch_size=5, seed=0),
    **{
        name: catalog.find("optimizers", name)(step_size=size)
        for name, size in {
            "momentum": 0.1, "normalised_gd": 0.05, "sqrt_loss_gd": 0.1, "scalar_rmsprop": 0.05, "gradient_flow": 0.2,
            "central_flow": 0.2,
        }.items()
    },
    "sam": catalog.find("optimizers", "sam")(step_size=0.1, rho=0.1),
}  # fmt: skip


def trained(objective: Any, optimizer: Optimizer, steps: int = 20) -> tuple[list[Row], Position]:
    last: list[Position] = []
    rows = list(minimise(objective, objective.start, optimizer, stop=Stop(steps), on_iterate=last.append))
    return rows, last[-1]


@pytest.mark.parametrize("name", SPANNING)
def test_a_run_is_the_same_and_ends_at_the_same_parameters(name: str) -> None:
    optimizer = SPANNING[name]
    assert optimizer.spans_gradients
    whole, reduced = problems(MODELS["tanh"], wide_dataset())
    (rows, end), (own, at) = (trained(objective, optimizer) for objective in (whole, reduced))
    torch.testing.assert_close(reduced.row_space.parameters(at.theta), end.theta, rtol=1e-8, atol=1e-10)
    for row, other in zip(rows[:-1], own[:-1], strict=True):
        ours, theirs = (each.columns for each in (row, other))
        assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-9, nan_ok=True)


def test_every_optimizer_that_says_so_spans_gradients_and_every_other_does_not() -> None:
    """One step from a gradient with a part that no gradient of the network has moves nothing along that part."""
    theta, grad = torch.ones(4, dtype=torch.float64), torch.tensor([1.0, 2, 0, 0], dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())

    def step(optimizer: Optimizer, of: torch.Tensor) -> torch.Tensor:
        at = Iterate(theta, of, None, 1.0)  # type: ignore[arg-type]  # these need no examples
        return optimizer.update(at, optimizer.init(theta))[0]

    decaying = partial(gd, weight_decay=0.1)
    for make in (gd, decaying, adam, *(catalog.find("optimizers", name) for name in ("momentum", "normalised_gd"))):
        optimizer = make(step_size=0.1)
        found = (
            torch.allclose(turn @ step(optimizer, grad), step(optimizer, turn @ grad))
            and not step(optimizer, grad)[2:].any()
        )
        assert found is optimizer.spans_gradients


def test_it_applies_to_fewer_examples_than_inputs_and_a_leading_linear_layer_alone() -> None:
    data, image = wide_dataset(), (1, 5, 5)
    module = MODELS["tanh"](image, 3)
    assert size_in_row_space(module, 12) == sum(p.numel() for p in module.parameters()) - 4 * (25 - 12)
    with torch.device("meta"):
        assert size_in_row_space(MODELS["tanh"](image, 3), 12) == size_in_row_space(module, 12)
    assert in_row_space(module, torch.randn(25, *image)) is None
    assert in_row_space(nn.Sequential(nn.Linear(5, 2), nn.Flatten()), data.inputs) is None
    of_images, _ = network_problem(
        partial(cnn, width=2), mse(), data, seed=0, dtype=torch.float64, device="cpu", chunk_size=12,
        reduce_inputs=True,
    )  # fmt: skip
    assert of_images.row_space is None


def test_a_state_of_vectors_is_one_of_the_network_too() -> None:
    """Momentum, and a block of vectors, after some steps; what is no vector stays as it is."""
    optimizer = SPANNING["momentum"]
    whole, reduced = problems(MODELS["tanh"], wide_dataset())
    (_, end), (_, at) = (trained(objective, optimizer) for objective in (whole, reduced))
    there = reduced.row_space.position(at._replace(state=[at.state, torch.stack([at.state] * 2), torch.ones(3), 7]))
    torch.testing.assert_close(there.theta, end.theta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(there.state[0], end.state, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(there.state[1][1], end.state, rtol=1e-8, atol=1e-10)
    assert there.state[2:] == [pytest.approx(torch.ones(3)), 7]

"""Batch normalisation in training: f is that of the declared groups of examples, with exact derivatives, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from eosrepro.core.networks import LinearFirst
from eosrepro.core.objective import Objective
from eosrepro.core.training import minimise
from eosrepro.core.types import BatchStatistics, Stop
from eosrepro.errors import ConfigError
from eosrepro.models.cnn import cnn
from eosrepro.optimizers.gd import gd
from eosrepro.optimizers.sgd import sgd
from tests.conftest import small_dataset

N = 23  # no multiple of a group
IMAGES = (1, 4, 4)


def examples(n: int = N) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, *IMAGES, generator=generator).double(), torch.randint(0, 3, (n,), generator=generator)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Tanh(), nn.BatchNorm1d(2), nn.Linear(2, 3))


def convolutional(pooling: Any = "average") -> nn.Module:
    return cnn(IMAGES, 3, width=2, depth=1, pooling=pooling, batch_norm="whole")


MODULES: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "no running statistics": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.Tanh(), nn.Linear(2, 3)
    ),
    "average pooling": convolutional,
    "max pooling": lambda: convolutional("max"),
}
SIZES = {"whole": [23], 5: [5, 5, 5, 8], 8: [8, 15], 40: [23]}  # what is left over is in the last group


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[name]().double()


def by_hand(module: nn.Module, theta: Tensor, sizes: list[int]) -> Tensor:
    """The mean loss, each group normalised by its own means and variances."""
    x, y = examples()
    shapes = [(name, parameter.shape) for name, parameter in module.named_parameters()]
    pieces = torch.split(theta, [shape.numel() for _, shape in shapes])
    values = {name: piece.view(shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}
    batches = zip(torch.split(x, sizes), torch.split(y, sizes), strict=True)
    losses = [
        functional.cross_entropy(functional_call(copy.deepcopy(module), values, (inputs,)), targets, reduction="sum")
        for inputs, targets in batches
    ]
    return torch.stack(losses).sum() / N


@pytest.mark.parametrize("statistics", SIZES)
@pytest.mark.parametrize("name", MODULES)
def test_loss_gradient_and_products_are_those_of_the_groups_whatever_the_chunk_size(
    name: str, statistics: BatchStatistics
) -> None:
    module = made(name)
    found = [
        Objective.of(module, functional.cross_entropy, *examples(), batch_statistics=statistics, chunk_size=chunk_size)
        for chunk_size in (None, 7, 1)
    ]
    theta = found[0].start + 0.2 * torch.randn(found[0].start.shape, generator=torch.Generator().manual_seed(1))
    leaf = theta.double().requires_grad_()
    loss = by_hand(module, leaf, SIZES[statistics])
    (grad,) = torch.autograd.grad(loss, leaf)
    dense = torch.autograd.functional.hessian(lambda point: by_hand(module, point, SIZES[statistics]), leaf.detach())

    hvp = found[0].hvp(theta)
    products = torch.stack([hvp(unit) for unit in torch.eye(len(theta), dtype=torch.float64)])

    assert len(found[0].parts) == len(SIZES[statistics])
    assert dense.abs().max() > 1e-3
    torch.testing.assert_close(products, dense, rtol=1e-9, atol=1e-12)
    for objective in found:
        assert objective.loss(theta) == pytest.approx(loss.item(), rel=1e-12)
        assert objective.loss(theta) == found[0].loss(theta)
        torch.testing.assert_close(objective.value_and_grad(theta).grad, grad, rtol=1e-9, atol=1e-12)
        assert torch.equal(objective.hvp(theta)(grad), hvp(grad))


def test_a_perceptron_still_begins_with_its_linear_layer() -> None:
    objective = Objective.of(made("perceptron"), functional.cross_entropy, *examples(), batch_statistics=5)
    assert all(isinstance(part, LinearFirst) for part in objective.parts)


@pytest.mark.parametrize("name", MODULES)
def test_running_statistics_are_left_as_they_were(name: str) -> None:
    module = made(name)
    before = copy.deepcopy(module.state_dict())
    objective = Objective.of(module, functional.cross_entropy, *examples(), batch_statistics="whole")
    rows = [list(minimise(objective, objective.start, gd(0.1), stop=Stop(3))) for _ in range(2)]
    assert rows[0] == rows[1]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_model_declares_its_own_and_an_argument_is_stronger() -> None:
    module = made("average pooling")
    whole = Objective.of(module, functional.cross_entropy, *examples())
    groups = Objective.of(module, functional.cross_entropy, *examples(), batch_statistics=5)
    assert (len(whole.parts), len(groups.parts)) == (1, 4)
    assert whole.loss(whole.start) != groups.loss(whole.start)


def test_minibatches_are_normalised_by_themselves() -> None:
    module, (x, y) = made("average pooling"), examples()
    objective = Objective.of(module, functional.cross_entropy, x, y)
    batch, indices = objective.batch(torch.arange(6)), torch.arange(6)
    assert batch.loss(objective.start) == pytest.approx(
        functional.cross_entropy(module(x[indices]), y[indices]).item(), rel=1e-12
    )
    rows = list(minimise(objective, objective.start, sgd(0.1, batch_size=6), stop=Stop(3)))
    assert rows[-1].loss < rows[0].loss


@pytest.mark.parametrize(
    ("make", "statistics", "words"),
    [
        (perceptron, None, "changes its buffer 3.running_mean, so the next one could differ"),
        (MODULES["no running statistics"], None, "would depend on chunk_size"),
        (perceptron, "all", "batch_statistics is 'all': it should be"),
        (perceptron, 0, "batch_statistics is 0: it should be"),
        (perceptron, True, "batch_statistics is True: it should be"),
        (perceptron, 1, "cannot be evaluated on 1 example"),
        (lambda: nn.Sequential(perceptron(), nn.Dropout(0.5)), "whole", "two evaluations of the model"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3))),
            "whole",
            "two evaluations of the model",
        ),
    ],
)
def test_what_is_not_declared_or_no_function_of_theta_is_refused(
    make: Callable[[], nn.Module], statistics: Any, words: str
) -> None:
    torch.manual_seed(0)
    module = make().double()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError) as caught:
        Objective.of(module, functional.cross_entropy, *examples(), batch_statistics=statistics)
    assert words in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# --- a loss of PyTorch, and tensors of one's own ----------------------------------------------------------------------


def plain(n_outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, n_outputs))


NUMBERS = torch.linspace(-1, 2, 120).reshape(40, 3)
LOSSES: dict[str, tuple[Any, Tensor]] = {
    "cross_entropy": (functional.cross_entropy, small_dataset().targets),
    "one number an example": (lambda z, y: (z - y).square().mean(-1), NUMBERS),
    "mse_loss": (functional.mse_loss, NUMBERS),
    "smooth_l1_loss": (functional.smooth_l1_loss, NUMBERS),
    "probabilities": (functional.cross_entropy, NUMBERS.softmax(-1)),
    "binary_cross_entropy_with_logits": (functional.binary_cross_entropy_with_logits, (NUMBERS > 0).float()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("chunk_size", [None, 13])
@pytest.mark.parametrize("name", LOSSES)
def test_f_is_what_pytorch_returns_for_the_module_and_starts_at_its_weights(name: str, chunk_size: int | None) -> None:
    module, x, (loss, y) = plain().double(), small_dataset().inputs.double(), LOSSES[name]
    f = Objective.of(module, loss, x, y, chunk_size=chunk_size)
    expected = loss(module(x), y.double() if y.is_floating_point() else y).mean()
    grads = torch.autograd.grad(expected, list(module.parameters()))
    assert torch.equal(f.start, nn.utils.parameters_to_vector(module.parameters()))
    assert f.loss(f.start) == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(f.value_and_grad(f.start).grad, torch.cat([grad.reshape(-1) for grad in grads]))


def test_f_does_not_see_what_is_changed_in_the_module_later() -> None:
    module = nn.Sequential(plain(), nn.BatchNorm1d(3)).eval()
    f = Objective.of(module, functional.cross_entropy, small_dataset().inputs, small_dataset().targets)
    before = f.loss(f.start)
    module.train()
    nn.init.zeros_(module[0][1].weight)
    assert f.loss(f.start) == before


def test_outputs_enter_the_loss_in_float64_and_products_are_exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    seen: list[torch.dtype] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(outputs.dtype)
        return functional.cross_entropy(outputs, targets, reduction="none")

    data = small_dataset()
    f = Objective.of(plain(), loss, data.inputs.double(), data.targets)  # inputs take the dtype of the module
    assert f.value_and_grad(f.start).grad.dtype == torch.float32
    assert set(seen) == {torch.float64}
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.filterwarnings("default:Using a target size")
@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), small_dataset().targets, "the loss has reduction='sum'"),
        (lambda z, y: (z - y).square().mean(), NUMBERS, "the loss returns shape ()"),
        (lambda z, y, reduction="sum": functional.mse_loss(z, y, reduction=reduction), NUMBERS, "has reduction='sum'"),
        (lambda z, y: (z - y).square(), NUMBERS, "the loss returns shape (2, 3)"),
        (functional.multi_margin_loss, small_dataset().targets, "the Hessian of f cannot be computed"),
        (functional.cross_entropy, small_dataset().targets[:-1], "x holds 40 examples and y 39"),
    ],
)
def test_a_loss_that_is_not_one_number_an_example_is_refused(loss: Any, y: Tensor, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Objective.of(plain(), loss, small_dataset().inputs, y)
    assert words in str(caught.value)


@pytest.mark.filterwarnings("default:Using a target size")
def test_targets_that_broadcast_against_the_outputs_of_other_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(n, 1\) and the targets \(n,\)"):
        Objective.of(plain(1), functional.mse_loss, small_dataset().inputs, NUMBERS[:, 0])


def test_numbers_have_no_accuracy() -> None:
    f = Objective.of(plain(), functional.mse_loss, small_dataset().inputs, NUMBERS)
    assert f.value_and_grad(f.start).accuracy != f.value_and_grad(f.start).accuracy

"""Linear layers and tanh by oneDNN: the same functions as PyTorch's own, with all of their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as pairs

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from eosrepro.core import onednn as module
from eosrepro.core.networks import as_function, flattened
from eosrepro.core.objective import Objective
from eosrepro.core.onednn import linear, outer, product, tanh

SHAPES = [(1, 1, 1), (3, 5, 2), (64, 40, 24), (7, 300, 130)]  # n, n_inputs, width
CLOSE = 1e-5  # of the largest number: sums in float32, in another order


@pytest.fixture(params=["oneDNN", "PyTorch's own"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, however small the products and whatever the processor."""
    if request.param == "oneDNN" and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "FEW", 0)
    monkeypatch.setattr(module, "BLOCK", 1000)  # the larger shapes in pieces
    monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(module, "_is_faster", lambda: request.param == "oneDNN")
    return str(request.param)


def operands(n: int, n_inputs: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    shapes = ((n, n_inputs), (width, n_inputs), (width,))
    return [(torch.randn(shape, generator=generator) / n_inputs**0.25).to(dtype).requires_grad_() for shape in shapes]


def derivatives(layer: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """A function of the outputs, and in all three its gradient, a product of its Hessian, and one of the next order."""
    value = layer(*tensors).tanh().sum()
    found = [value]
    for seed in range(3):
        grads = torch.autograd.grad(value, tensors, create_graph=True)
        found += grads
        generator = torch.Generator().manual_seed(seed)
        value = sum(
            ((grad * torch.randn(grad.shape, generator=generator)).sum() for grad in grads), value.new_zeros(())
        )
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_derivatives_to_the_third_are_those_of_float64(shape: tuple[int, ...], either: str) -> None:
    ours = derivatives(linear, operands(*shape))
    exact = derivatives(functional.linear, operands(*shape, torch.float64))
    for found, expected in zip(ours, exact, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= 10 * CLOSE * (1 + expected.abs().max()), either


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transposed", pairs((False, True), repeat=2))
def test_product_of_any_layout(shape: tuple[int, ...], transposed: tuple[bool, bool], either: str) -> None:
    left, right, _ = (each.detach() for each in operands(*shape))
    left, right = (
        each.T.contiguous().T if other else each for each, other in zip((left, right), transposed, strict=True)
    )
    exact = left.double() @ right.double().T
    assert (product(left, right) - exact).abs().max() <= CLOSE * exact.abs().max(), either


@pytest.mark.parametrize("shape", SHAPES)
def test_outer_products_are_laid_out_in_rows(shape: tuple[int, ...], either: str) -> None:
    left, right = (each.detach().T.contiguous() for each in operands(*shape)[:2])
    for one, other in ((left, right), (right, left)):
        exact, found = one.double().T @ other.double(), outer(one, other)
        assert found.is_contiguous()
        assert (found - exact).abs().max() <= CLOSE * exact.abs().max(), either


class Own(nn.Module):
    """Not a plain sequence of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.layer(inputs))


def test_layers_of_any_module_are_multiplied_so(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def noted(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *operands: (used.append(name), function(*operands))[1]

    monkeypatch.setattr(module, "linear", noted("linear", functional.linear))
    monkeypatch.setattr(module, "tanh", noted("tanh", torch.tanh))
    own, inputs = Own(), torch.ones(2, 4)
    outputs = as_function(own)(inputs, flattened(own))
    assert used == ["linear", "tanh"]
    assert torch.equal(outputs, own(inputs))


def test_tanh_is_good_to_two_units_in_the_last_place(either: str) -> None:
    numbers = torch.cat([torch.linspace(-20, 20, 20_001), torch.logspace(-44, 1, 5_001), torch.tensor([0.0, -0.0])])
    exact = numbers.double().tanh()
    units = torch.nextafter(exact.float().abs(), torch.tensor(2.0)) - exact.float().abs()
    for laid_out in (numbers, numbers[:25_000].view(250, 100).T):
        found, expected = tanh(laid_out), laid_out.double().tanh()
        assert found.shape == laid_out.shape
        assert (found - expected).abs().max() <= 1.2e-7, either
    assert ((tanh(numbers) - exact).abs() <= 2 * units.double()).all(), either


@pytest.mark.usefixtures("either")
def test_tanh_of_what_is_not_finite() -> None:
    """A run that diverges is to be seen to."""
    found = tanh(torch.tensor([float("nan"), float("inf"), -float("inf")] * 500)).view(500, 3)
    assert found[:, 0].isnan().all()
    assert (found[:, 1:] == torch.tensor([1.0, -1.0])).all()


def test_derivatives_of_tanh(either: str) -> None:
    def by(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda inputs, weights, biases: function(functional.linear(inputs, weights, biases))

    exact = derivatives(by(torch.tanh), operands(64, 40, 24, torch.float64))
    for found, expected in zip(derivatives(by(tanh), operands(64, 40, 24)), exact, strict=True):
        assert (found - expected).abs().max() <= 10 * CLOSE * (1 + expected.abs().max()), either


@pytest.mark.usefixtures("either")
def test_layers_that_work_in_place_may_follow() -> None:
    layers = [nn.Flatten(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)]
    x, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    found = []
    for in_place in (False, True):
        model = nn.Sequential(*(nn.ReLU(in_place) if isinstance(layer, nn.ReLU) else layer for layer in layers))
        objective = Objective.of(model, functional.cross_entropy, x, y)
        direction = torch.linspace(-1, 1, objective.n_params)
        found.append((objective.value_and_grad(objective.start).grad, objective.hvp(objective.start)(direction)))
    for plain, in_place_too in zip(*found, strict=True):
        assert torch.equal(plain, in_place_too)


@pytest.mark.usefixtures("either")
def test_without_biases_and_for_inputs_of_more_dimensions() -> None:
    inputs, weights, biases = operands(6, 40, 3)
    assert torch.allclose(linear(inputs, weights), inputs @ weights.T, atol=1e-5)
    several = linear(inputs.view(2, 3, 40), weights, biases)
    assert torch.equal(several, linear(inputs, weights, biases).view(2, 3, 3))
    assert torch.equal(linear(inputs[0], weights, biases), functional.linear(inputs[0], weights, biases))


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_numbers_are_multiplied_by_pytorch(dtype: torch.dtype) -> None:
    tensors = operands(64, 40, 24, dtype)
    assert torch.equal(linear(*tensors), functional.linear(*tensors))
    assert torch.equal(product(*tensors[:2]), tensors[0] @ tensors[1].T)
    assert torch.equal(tanh(tensors[0]), tensors[0].tanh())


def test_what_it_finds_lies_row_by_row(either: str) -> None:
    inputs, weights, biases = operands(64, 40, 24)
    outputs = linear(inputs, weights, biases)
    grads = torch.autograd.grad(
        outputs, [inputs, weights], torch.ones_like(outputs).requires_grad_(), create_graph=True
    )
    further = torch.autograd.grad(grads, [inputs, weights], [torch.ones_like(grad) for grad in grads])
    assert all(each.is_contiguous() for each in (outputs, *grads, *further)), either


@pytest.mark.usefixtures("either")
def test_many_at_once() -> None:
    inputs, weights, biases = (each.detach() for each in operands(64, 40, 24))
    many = torch.stack([weights, 2 * weights, weights - 1])

    def value(each: Tensor, x: Tensor) -> Tensor:
        return linear(tanh(linear(x, each, biases)), each.T).square().sum()

    together = torch.vmap(torch.func.grad(value, argnums=(0, 1)), (0, None))(many, inputs)
    for index, each in enumerate(many):
        for found, alone in zip(together, torch.func.grad(value, argnums=(0, 1))(each, inputs), strict=True):
            assert torch.allclose(found[index], alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.usefixtures("either")
def test_the_same_bytes_with_any_number_of_threads() -> None:
    inputs, weights, _ = (each.detach() for each in operands(1000, 400, 130))
    delta, before = inputs[:, :130].contiguous(), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((product(inputs, weights), product(delta.T, inputs.T)))
    finally:
        torch.set_num_threads(before)
    for each in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(each, found[0], strict=True))


def test_small_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_faster", lambda: True)
    tensors = operands(10, 40, 24)
    assert torch.equal(linear(*tensors), functional.linear(*tensors))

"""f is what `module(x)` returns and a function of θ alone: whatever the module is, it is taken so or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize, prune, vector_to_parameters

from eosrepro.core.objective import LinearFirst, Objective, network_objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Function, Loss, Stop
from eosrepro.data._preprocessing import preprocess
from eosrepro.data.digits import digits
from eosrepro.errors import ConfigError, DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from tests.conftest import small_dataset

Make = Callable[[], nn.Module]
N_CLASSES = 3


def problem(
    make: Make,
    *,
    loss: Loss | None = None,
    data: Dataset | None = None,
    dtype: torch.dtype = torch.float64,
    chunk_size: int = 40,
) -> tuple[Objective, Tensor]:
    return network_problem(
        lambda *_: make(),
        loss or cross_entropy(),
        data or replace(small_dataset(), n_outputs=9 if make in (of_one_layer_twice, tied, tied_later) else N_CLASSES),
        seed=0,
        dtype=dtype,
        device="cpu",
        chunk_size=chunk_size,
    )


def plain(
    kind: type[nn.Sequential] = nn.Sequential, *, sizes: tuple[int, int, int] = (9, 5, N_CLASSES)
) -> nn.Sequential:
    return kind(nn.Flatten(), nn.Linear(*sizes[:2]), nn.Tanh(), nn.Linear(*sizes[1:]))


def hooked(layer: int | None = None, *, before: bool = False) -> nn.Module:
    module = plain()
    at = module if layer is None else module[layer]
    if before:
        at.register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 10,))
    else:
        at.register_forward_hook(lambda _module, _inputs, outputs: outputs / 10)
    return module


class Calls(nn.Module):
    """A function of a sequence of layers and the inputs."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs.flatten(1), *self.layers)


def then(*layers: nn.Module) -> nn.Module:
    """A network with these layers of width 6 in its middle."""
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 6), *layers, nn.Linear(6, N_CLASSES))


# --- the function is what the module returns --------------------------------------------------------------------------


class Tenth(nn.Sequential):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) / 10  # type: ignore[no-any-return]


class TenthByCall(nn.Sequential):
    def __call__(self, inputs: Tensor) -> Tensor:
        return super().__call__(inputs) / 10  # type: ignore[no-any-return]


class TenthOfLinear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) / 10


def with_hook(**sizes: Any) -> nn.Module:
    module = plain(**sizes)
    module.register_forward_hook(lambda _module, _inputs, outputs: outputs / 10)
    return module


@pytest.mark.parametrize("make", [lambda **sizes: plain(Tenth, **sizes), with_hook])
def test_a_sequence_whose_output_is_divided_by_10_has_the_numbers_of_an_independent_dense_hessian(
    make: Callable[..., nn.Module],
) -> None:
    data = preprocess(digits(n_examples=60, seed=0), scale="unit", standardise="none", statistics="subset")
    objective, theta = problem(lambda: make(sizes=(64, 4, 10)), data=data)
    row = next(minimise(objective, theta, gd(step_size=0.2), stop=Stop(1)))
    hvp = objective.hvp(theta)
    hessian = torch.stack([hvp(unit) for unit in torch.eye(len(theta), dtype=torch.float64)])
    assert row.loss == pytest.approx(2.30933, abs=5e-6)
    assert row.relative_progress == pytest.approx(-1.00064, abs=5e-6)
    assert torch.linalg.eigvalsh(hessian)[-3:].flip(0).tolist() == pytest.approx([0.0485, 0.0380, 0.0364], abs=5e-5)


def own_forward(layer: int | None = None) -> nn.Module:
    module = plain()
    at = module if layer is None else module[layer]
    original = at.forward
    at.forward = lambda inputs: original(inputs) / 10  # type: ignore[method-assign]
    return module


def subclass_first() -> nn.Module:
    return nn.Sequential(nn.Flatten(), TenthOfLinear(9, 5), nn.Tanh(), nn.Linear(5, N_CLASSES))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(layer: int) -> nn.Module:
    module = plain()
    parametrize.register_parametrization(module[layer], "weight", Doubled())
    return module


class WrittenOut(nn.Module):
    """What weight_norm computes, by operations whose second derivatives are right."""

    def forward(self, direction: Tensor) -> Tensor:
        return direction / direction.norm(dim=1, keepdim=True)


def written_out(layer: int) -> nn.Module:
    module = plain()
    parametrize.register_parametrization(module[layer], "weight", WrittenOut())
    return module


def weight_norm(layer: int) -> nn.Module:
    module = plain()
    parametrizations.weight_norm(module[layer])
    return module


def weight_norm_by_hook() -> nn.Module:
    module = plain()
    nn.utils.weight_norm(module[1])
    return module


def spectral_norm_of_fixed_vectors() -> nn.Module:
    module = plain()
    parametrizations.spectral_norm(module[1])
    return module.eval()


def pruned() -> nn.Module:
    module = plain()
    prune.random_unstructured(module[1], "weight", amount=0.5)
    return module


def frozen(*layers: int) -> nn.Module:
    module = plain()
    for layer in layers:
        module[layer].requires_grad_(False)
    return module


def frozen_bias() -> nn.Module:
    module = plain()
    module[1].bias.requires_grad_(False)
    return module


def of_one_layer_twice() -> nn.Module:
    layer = nn.Linear(9, 9)
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer)


def tied() -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9))
    module[3].weight = module[1].weight
    return module


def tied_later() -> nn.Module:
    layer = nn.Linear(9, 9)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Tanh(), layer, nn.Tanh(), layer)


def with_a_parameter_of_its_own() -> nn.Module:
    module = plain()
    module.register_parameter("unused", nn.Parameter(torch.ones(4)))
    return module


def bias_before_weight() -> nn.Module:
    module = plain()
    weight = module[1].weight
    del module[1].weight
    module[1].weight = weight
    return module


def not_contiguous() -> nn.Module:
    module = plain()
    module[1].weight = nn.Parameter(torch.randn(9, 5).T)
    return module


def with_fixed_buffer() -> nn.Module:
    module = Calls(lambda x, first, last: last(torch.tanh(first(x + module.shift))), nn.Linear(9, 5), nn.Linear(5, 3))  # type: ignore[has-type]
    module.register_buffer("shift", torch.randn(9))
    return module


def attention(*kernels: SDPBackend) -> nn.Module:
    """By the kernels that the objective chooses, or by these."""

    def of(inputs: Tensor, into: nn.Module, last: nn.Module) -> Tensor:
        query, key, value = into(inputs.unflatten(1, (3, 3))).chunk(3, -1)
        with sdpa_kernel(list(kernels)) if kernels else nullcontext():
            return last(functional.scaled_dot_product_attention(query, key, value).mean(1))  # type: ignore[no-any-return]

    return Calls(of, nn.Linear(3, 24), nn.Linear(8, N_CLASSES))


def multihead() -> nn.Module:
    def of(inputs: Tensor, layer: nn.Module, last: nn.Module) -> Tensor:
        tokens = inputs.unflatten(1, (3, 3))
        return last(layer(tokens, tokens, tokens, need_weights=False)[0].mean(1))  # type: ignore[no-any-return]

    return Calls(of, nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, N_CLASSES))


def transformer(dropout: float = 0.0) -> nn.Module:
    def of(inputs: Tensor, into: nn.Module, layer: nn.Module, last: nn.Module) -> Tensor:
        return last(layer(into(inputs.unflatten(1, (3, 3)))).mean(1))  # type: ignore[no-any-return]

    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, activation="gelu", batch_first=True)
    return Calls(of, nn.Linear(3, 8), layer, nn.Linear(8, N_CLASSES))


def recurrent() -> nn.Module:
    def of(inputs: Tensor, layer: nn.Module, last: nn.Module) -> Tensor:
        return last(layer(inputs.unflatten(1, (3, 3)))[0][:, -1])  # type: ignore[no-any-return]

    return Calls(of, nn.LSTM(3, 4, batch_first=True), nn.Linear(4, N_CLASSES))


SLOW: dict[str, Make] = {  # begins otherwise than by a plain linear layer of its own, as far as can be told
    "subclass of the sequence": lambda: plain(Tenth),
    "__call__ of its own": lambda: plain(TenthByCall),
    "hook": hooked,
    "hook before": lambda: hooked(before=True),
    "hook on flatten": lambda: hooked(0),
    "hook on linear": lambda: hooked(1),
    "hook before linear": lambda: hooked(1, before=True),
    "forward in place": own_forward,
    "forward of linear in place": lambda: own_forward(1),
    "subclass of linear": subclass_first,
    "parametrised": lambda: doubled(1),
    "weight norm of simple operations": lambda: written_out(1),
    "spectral norm, fixed": spectral_norm_of_fixed_vectors,
    "pruned": pruned,
    "one layer twice": of_one_layer_twice,
    "tied weights": tied,
    "parameter of the sequence": with_a_parameter_of_its_own,
    "bias before weight": bias_before_weight,
    "frozen first": lambda: frozen(1),
    "frozen bias": frozen_bias,
    "fixed buffer": with_fixed_buffer,
    "attention": attention,
    "multihead attention": multihead,
    "transformer": transformer,
    "transformer in eval": lambda: transformer(0.1).eval(),
    "recurrent": recurrent,
}
FAST: dict[str, Make] = {
    "plain": plain,
    "hook on a later layer": lambda: hooked(3),
    "later layer parametrised": lambda: doubled(3),
    "later layers tied": tied_later,
    "later layer frozen": lambda: frozen(3),
    "not contiguous": not_contiguous,
    "layer norm": lambda: then(nn.LayerNorm(6)),
    "group norm": lambda: then(nn.GroupNorm(2, 6)),
    "instance norm": lambda: then(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()),
    "batch norm in eval": lambda: then(nn.BatchNorm1d(6)).eval(),
    "dropout in eval": lambda: then(nn.Dropout(0.5)).eval(),
}


def as_it_is(make: Make, theta: Tensor, data: Dataset) -> tuple[Tensor, Tensor]:
    """Mean loss and gradient of the module itself, with the parameters in θ, as PyTorch trains it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().double()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    vector_to_parameters(theta, parameters)
    loss = functional.cross_entropy(module(data.inputs.double()), data.targets)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat([grad.reshape(-1) for grad in grads])


@pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")
@pytest.mark.parametrize("chunk_size", [40, 13, 1])
@pytest.mark.parametrize("name", [*SLOW, *FAST])
def test_loss_gradient_and_products_are_those_of_the_module_as_pytorch_calls_it(name: str, chunk_size: int) -> None:
    make, data = (SLOW | FAST)[name], small_dataset()
    objective, start = problem(make, chunk_size=chunk_size)
    assert all(isinstance(part, LinearFirst) == (name in FAST) for part in objective.parts)
    theta = start + 0.3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1)).double()
    direction = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    loss, grad = as_it_is(make, theta, data)
    found, hvp = objective.value_and_grad(theta), objective.hvp(theta)
    assert objective.n_params == len(theta) == len(grad)
    assert objective.loss(theta) == pytest.approx(loss.item(), rel=1e-12)
    assert found.loss == objective.loss(theta)  # one kernel for both
    torch.testing.assert_close(found.grad, grad)
    torch.testing.assert_close(hvp.grad, grad)
    ahead, behind = (as_it_is(make, theta + t * direction, data)[1] for t in (1e-5, -1e-5))
    torch.testing.assert_close(hvp(direction), (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["one layer twice", "tied weights", "later layers tied"])
def test_what_layers_share_stands_in_theta_once(name: str) -> None:
    _, theta = problem((SLOW | FAST)[name])
    assert len(theta) == {"one layer twice": 90, "tied weights": 99, "later layers tied": 180}[name]


def test_what_requires_no_gradient_is_not_trained() -> None:
    module = frozen(1)
    before = copy.deepcopy(module.state_dict())
    objective, theta = problem(lambda: module, dtype=torch.float32)
    assert len(theta) == 5 * N_CLASSES + N_CLASSES
    list(minimise(objective, theta, gd(step_size=0.1), stop=Stop(3)))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_what_no_structure_shows_is_found_by_its_values() -> None:
    """A hook on all modules of the process stands nowhere in the module itself."""
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _inputs, outputs: outputs / 10 if isinstance(module, nn.Flatten) else outputs
    )
    try:
        objective, theta = problem(plain)
        loss, grad = as_it_is(plain, theta, small_dataset())
        assert objective.loss(theta) == pytest.approx(loss.item(), rel=1e-12)
        torch.testing.assert_close(objective.value_and_grad(theta).grad, grad)
    finally:
        hook.remove()


def test_the_module_is_left_as_it_was() -> None:
    module = plain().double()
    before, state = copy.deepcopy(module.state_dict()), torch.random.get_rng_state()
    data = small_dataset()
    network_objective(module, cross_entropy(), data.inputs.double(), data.targets, chunk_size=40)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


# --- what is no function of θ is refused ------------------------------------------------------------------------------


class Noise(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 1e-4 * torch.rand(inputs.shape)


class RarelyDropped(nn.Module):
    """Draws random numbers, which the first evaluations do not show."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * (torch.rand(()) > 1e-9)


class Counts(nn.Module):
    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return inputs * self.calls


class Centred(nn.Module):
    """Couples the examples of a chunk, by no buffer and no known layer."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean(0).detach()


RANDOM: dict[str, Make] = {
    "dropout": lambda: then(nn.Dropout(0.1)),
    "alpha dropout": lambda: then(nn.AlphaDropout(0.1)),
    "rrelu": lambda: then(nn.RReLU()),
    "noise": lambda: then(Noise()),
    "rare": lambda: then(RarelyDropped()),
    "counter": lambda: then(Counts()),
    "transformer": lambda: transformer(0.1),
    "behind an output of zeros": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), zeros(nn.Linear(9, N_CLASSES))),
}
BUFFERS: dict[str, Make] = {
    "batch norm": lambda: then(nn.BatchNorm1d(6)),
    "batch norm of images": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(9, N_CLASSES)),
    "instance norm": lambda: nn.Sequential(
        nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), nn.Linear(9, N_CLASSES)
    ),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(9, N_CLASSES)),
}
COUPLED: dict[str, Make] = {
    "batch norm": lambda: then(nn.BatchNorm1d(6, track_running_stats=False)),
    "batch norm of images": lambda: nn.Sequential(
        nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(9, N_CLASSES)
    ),
    "less the mean": lambda: then(Centred()),
    "behind an output of zeros": lambda: nn.Sequential(nn.Flatten(), Centred(), zeros(nn.Linear(9, N_CLASSES))),
}


def zeros(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer


def refusal(make: Make, **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        problem(make, **given)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_what_is_random_is_refused(make: Make, dtype: torch.dtype) -> None:
    assert "two evaluations of the model at the same parameters differ" in refusal(make, dtype=dtype)


@pytest.mark.parametrize("chunk_size", [40, 1])
@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_buffers_that_an_evaluation_changes_are_refused(make: Make, chunk_size: int) -> None:
    data = small_dataset()
    if isinstance(make(), nn.Linear):
        data = Dataset(data.inputs.flatten(1), data.targets, N_CLASSES, "noise")
    assert "changes its buffer" in refusal(make, data=data, chunk_size=chunk_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [40, 1])
@pytest.mark.parametrize("make", COUPLED.values(), ids=COUPLED)
def test_a_model_that_couples_the_examples_of_a_chunk_is_refused(
    make: Make, chunk_size: int, dtype: torch.dtype
) -> None:
    assert "would depend on chunk_size" in refusal(make, chunk_size=chunk_size, dtype=dtype)


@pytest.mark.parametrize("n_examples", [1, 2])
def test_few_examples_suffice_to_refuse(n_examples: int) -> None:
    few = small_dataset(n_examples)
    assert "batch norm" in refusal(COUPLED["batch norm"], data=few).lower()
    assert "two evaluations" in refusal(RANDOM["dropout"], data=few)
    problem(plain, data=few)


class Copied(nn.Linear):
    """Reads its weights from a copy that only an update in place reaches."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__(n_inputs, n_outputs)
        self.copied = [self.weight.detach()]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Copied:
        super()._apply(fn, recurse)
        self.copied = [self.weight.detach()]
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.copied[0], self.bias)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.sin()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()


class Sine(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return Once.apply(inputs)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: then(Sine()), "the Hessian of f cannot be computed"),
        (lambda: attention(SDPBackend.FLASH_ATTENTION), "the Hessian of f cannot be computed: derivative for"),
        (lambda: nn.Sequential(nn.Flatten(), Copied(9, N_CLASSES)), "does not follow its parameters"),
        (lambda: Calls(lambda x, layer: layer(x).detach(), nn.Linear(9, 3)), "does not follow its parameters"),
        (lambda: Calls(lambda x, layer: layer(x).mean(0), nn.Linear(9, 3)), r"returns shape (3,)"),
        (lambda: Calls(lambda x, layer: layer(x).mean(0, keepdim=True), nn.Linear(9, 3)), r"returns shape (1, 3)"),
        (lambda: Calls(lambda x, layer: layer(x)[:, 0], nn.Linear(9, 3)), r"returns shape (2,)"),
        (lambda: Calls(lambda x, layer: layer(x).to(torch.complex128), nn.Linear(9, 3)), "complex128"),
        (lambda: Calls(lambda x, layer: layer(x).long(), nn.Linear(9, 3)), "int64"),
        (lambda: Calls(lambda x, layer: {"logits": layer(x)}, nn.Linear(9, 3)), "returns a dict"),  # type: ignore[arg-type, return-value]
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), "cannot be evaluated on 2 examples of shape (1, 3, 3)"),
        (lambda: frozen(1, 3), "nothing to train"),
        (lambda: nn.Flatten(), "nothing to train"),
        (lambda: nn.Sequential(nn.Linear(9, 3, dtype=torch.complex64)), "is complex"),
    ],
)
def test_other_models_that_cannot_be_trained_are_refused_with_the_reason(make: Make, words: str) -> None:
    assert words in refusal(make)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [lambda: weight_norm(1), lambda: weight_norm(3), weight_norm_by_hook])
def test_second_derivatives_that_pytorch_has_wrong_are_refused(make: Make, dtype: torch.dtype) -> None:
    """torch._weight_norm fails PyTorch's own gradgradcheck: its backward takes the saved norms for constants."""
    assert "second derivatives of it are not those of its gradient" in refusal(make, dtype=dtype)


@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize("activation", ["tanh", "relu", "linear", "elu", "softplus"])
def test_the_papers_networks_are_taken_whatever_the_scale_of_their_inputs(activation: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = scale * torch.rand(2, 3, 32, 32, generator=generator)
    for depth in (0, 2, 6):
        network_problem(
            partial(mlp, activation=activation, depth=depth),
            cross_entropy(),
            Dataset(inputs, torch.tensor([3, 5]), 10, "noise"),
            seed=0,
            dtype=torch.float32,
            device="cpu",
            chunk_size=1,
        )


def test_parameters_of_several_dtypes_are_refused() -> None:
    module, data = plain(), small_dataset()
    module[3].double()
    with pytest.raises(ConfigError, match=r"torch\.float32 and torch\.float64"):
        network_objective(module, cross_entropy(), data.inputs, data.targets, chunk_size=40)


@pytest.mark.parametrize(
    ("f", "start"),
    [
        (lambda theta: theta.relu().square().sum(), [0.0]),  # its second derivative jumps at the start
        (lambda theta: theta.abs().sum(), [0.0, 1.0]),
        (lambda theta: (1e5 * theta).sin().sum(), [0.3]),  # differences are too far apart for it
        (lambda theta: theta.sum(), [0.3]),
        (lambda theta: 0 * theta.sum(), [0.0]),
    ],
)
def test_differences_that_say_nothing_of_a_hessian_refuse_no_function(f: Function, start: list[float]) -> None:
    objective, theta = function_problem(f, start)
    assert objective.hvp(theta)(torch.ones_like(theta)).shape == theta.shape


def test_outputs_that_are_nan_are_left_to_the_training_to_name() -> None:
    def broken() -> nn.Module:
        module = plain()
        nn.init.constant_(module[3].bias, float("nan"))
        return module

    objective, theta = problem(broken)
    with pytest.raises(DataError, match="the loss at initialisation is nan"):
        next(minimise(objective, theta, gd(step_size=0.1), stop=Stop(1)))


def test_a_function_without_second_derivatives_is_refused() -> None:
    with pytest.raises(ConfigError, match="second derivatives of it are not those of its gradient"):
        function_problem(lambda theta: Once.apply(theta).sum(), [0.1, 0.2])  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match="the Hessian of f cannot be computed"):
        function_problem(lambda theta: theta.detach().sum(), [0.1, 0.2])


# --- losses -----------------------------------------------------------------------------------------------------------


def onehot(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)


@pytest.mark.filterwarnings("default:Using a target size")
@pytest.mark.parametrize("chunk_size", [40, 1])
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (nn.CrossEntropyLoss(), r"the loss returns shape () and torch.float64 for 2 example(s)"),
        (nn.MSELoss(), "the loss cannot be evaluated on outputs of shape (2, 3) and targets of shape (2,)"),
        (lambda z, y: nn.MSELoss()(z, onehot(z, y)), "the loss returns shape ()"),
        (lambda z, y: (z - onehot(z, y)).square(), "the loss returns shape (2, 3)"),
        (lambda z, y: (z - onehot(z, y)).square().sum(-1, keepdim=True), "the loss returns shape (2, 1)"),
        (lambda z, y: (z - onehot(z, y)).square().mean(0), "the loss returns shape (3,)"),
        (lambda z, y: (z - onehot(z, y)).square().mean(0)[:2], "the loss returns shape (2,) and torch.float64 for 1"),
        (lambda z, y: cross_entropy()(z, y)[:1], "the loss returns shape (1,) and torch.float64 for 2"),
        (lambda z, y: cross_entropy()(z, y).detach(), "the loss has no gradient"),
        (lambda z, y: (z.argmax(-1) != y).double(), "the loss has no gradient"),
        (lambda z, y: (z.argmax(-1) != y).long(), "torch.int64"),
        (lambda z, y: cross_entropy()(z, y).to(torch.complex128), "torch.complex128"),
        (lambda z, y: cross_entropy()(z, y) - z.mean(), "would depend on chunk_size"),
        (lambda z, y: Once.apply(z).sum(-1) + 0 * y, "second derivatives of it are not those of its gradient"),
    ],
)
def test_a_loss_is_one_real_number_an_example_with_two_derivatives_or_refused(
    loss: Loss, words: str, chunk_size: int
) -> None:
    assert words in refusal(plain, loss=loss, chunk_size=chunk_size)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="none"), cross_entropy(), mse()])
def test_a_loss_of_one_number_an_example_is_taken_with_pytorchs_own_among_them(loss: Loss) -> None:
    objective, theta = problem(plain, loss=loss, chunk_size=13)
    module = plain().double()
    vector_to_parameters(theta, module.parameters())
    data = small_dataset()
    expected = loss(module(data.inputs.double()), data.targets).mean().item()
    assert objective.loss(theta) == pytest.approx(expected, rel=1e-12)

"""Activations, initialisation and normalisation, which the models share."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, init

from eosrepro.errors import ConfigError
from eosrepro.models._layers import ACTIVATIONS, INITS, POOLINGS, ChannelNorm, normalisation
from eosrepro.models._options import Activation, Init, Pooling
from eosrepro.models.cnn import cnn
from eosrepro.models.deep_linear import deep_linear
from eosrepro.models.mlp import mlp
from eosrepro.models.resnet import resnet
from eosrepro.models.vgg import vgg
from eosrepro.models.vit import vit


def seeded(make: Callable[[], nn.Module]) -> list[Tensor]:
    """Parameters of a module that is made from a given state of the generator."""
    torch.manual_seed(3)
    return [parameter.detach() for parameter in make().parameters()]


def test_the_types_name_what_there_is() -> None:
    assert get_args(Activation) == tuple(ACTIVATIONS)
    assert get_args(Init) == ("default", *INITS)
    assert get_args(Pooling) == tuple(POOLINGS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_function_of_its_name_with_exact_second_derivatives(name: str) -> None:
    numbers = (3 * torch.randn(8, generator=torch.Generator().manual_seed(1))).double()
    by_name: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda x: x,
        "gelu_tanh": lambda x: x / 2 * (1 + torch.tanh(sqrt(2 / torch.pi) * (x + 0.044715 * x**3))),
        "prelu": lambda x: torch.where(x > 0, x, x / 4),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }
    layer = ACTIVATIONS[name]().double()
    expected = (by_name.get(name) or getattr(functional, name))(numbers)
    assert layer(numbers).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert type(mlp((1,), 1, activation=name)[2]) is type(layer)  # type: ignore[arg-type, index]
    numbers.requires_grad_()
    assert torch.autograd.gradcheck(layer, numbers)
    assert torch.autograd.gradgradcheck(layer, numbers)


DRAWS: dict[str, Callable[[Tensor], Any]] = {
    "xavier_normal": init.xavier_normal_,
    "xavier_uniform": init.xavier_uniform_,
    "kaiming_normal": lambda weight: init.normal_(weight, std=sqrt(2 / weight[0].numel())),
    "kaiming_uniform": lambda weight: init.uniform_(weight, -sqrt(6 / weight[0].numel()), sqrt(6 / weight[0].numel())),
    "kaiming_normal_fan_out": lambda weight: init.normal_(weight, std=sqrt(2 * weight.shape[1] / weight.numel())),
}


@pytest.mark.parametrize("name", INITS)
def test_weights_are_drawn_by_that_rule_in_order_and_biases_are_0(name: Any) -> None:
    found = seeded(lambda: cnn((1, 8, 8), 3, width=4, init=name))

    def by_hand() -> nn.Module:
        module = cnn((1, 8, 8), 3, width=4)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                DRAWS[name](parameter.data)
            else:
                parameter.data.zero_()
        return module

    for one, other in zip(found, seeded(by_hand), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_init_scale_multiplies_weights_and_no_biases() -> None:
    before = seeded(lambda: mlp((5,), 2, width=4))
    for scale, of_layers in ((0.2, (0.2, 0.2, 0.2)), ((2.0, 1.0, 0.5), (2, 1, 0.5))):
        after = seeded(lambda scale=scale: mlp((5,), 2, width=4, init_scale=scale))  # type: ignore[misc]
        for layer, factor in enumerate(of_layers):
            assert torch.equal(after[2 * layer], before[2 * layer] * factor)
            assert torch.equal(after[2 * layer + 1], before[2 * layer + 1])


def test_as_many_scales_as_layers() -> None:
    with pytest.raises(ConfigError, match="init_scale has 2 numbers, and the model has 3 layers"):
        mlp((5,), 2, init_scale=(1.0, 2.0))


def test_the_network_of_cohen_et_al_for_chebyshev_polynomials() -> None:
    module = mlp((1,), 1, width=10_000, depth=1, output_bias=False, init="xavier_normal", init_scale=(1.9, 1))
    first, _, last = [*module.children()][1:]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert last.bias is None
    assert not first.bias.any()
    assert first.weight.std().item() == pytest.approx(1.9 * sqrt(2 / 10_001), rel=0.03)
    assert last.weight.std().item() == pytest.approx(sqrt(2 / 10_001), rel=0.03)


def test_without_biases_there_are_weights_alone() -> None:
    assert all(each.ndim == 2 for each in mlp((5,), 2, bias=False).parameters())
    assert mlp((5,), 2, bias=False, output_bias=True)[-1].bias is not None  # type: ignore[index]
    *_, last = cnn((1, 8, 8), 3, bias=False, hidden=6).parameters()
    assert [each.ndim for each in cnn((1, 8, 8), 3, bias=False, hidden=6).parameters()] == [4, 4, 2, 2, 1]
    assert last.shape == (3,)


def test_a_deep_linear_network_is_the_product_of_its_matrices() -> None:
    module = deep_linear((50,), 50).double()
    matrices = [*module.parameters()]
    assert [matrix.shape for matrix in matrices] == [(50, 50)] * 20
    assert matrices[7].std().item() == pytest.approx(sqrt(1 / 50), rel=0.05)
    inputs = torch.randn(3, 50, dtype=torch.float64)
    product = torch.linalg.multi_dot([matrix.detach() for matrix in matrices[::-1]])
    torch.testing.assert_close(module(inputs), inputs @ product.T)


def test_layer_norm_of_a_convolution_is_over_its_channels() -> None:
    inputs = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    centred = inputs - inputs.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(ChannelNorm(5).double()(inputs), expected)


def test_the_convolutional_network_of_long_and_bartlett() -> None:
    module = cnn((3, 32, 32), 10, width=16, growth=2, activation="relu", layer_norm=True, init="xavier_normal")
    assert [type(layer).__name__ for layer in module.children()] == [
        *(2 * ["Conv2d", "ReLU", "ChannelNorm", "MaxPool2d"]),
        *("Flatten", "Linear"),
    ]
    shapes = [tuple(each.shape) for each in module.parameters() if each.ndim > 1]
    assert shapes == [(16, 3, 3, 3), (32, 16, 3, 3), (10, 32 * 8 * 8)]


def test_two_normalisations_or_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="given batch_norm and group_norm: keep one"):
        resnet((3, 8, 8), 2, group_norm=2)
    with pytest.raises(ConfigError, match="5 groups do not divide 16 channels"):
        resnet((3, 8, 8), 2, batch_norm=None, group_norm=5)
    with pytest.raises(ConfigError, match="given group_norm and layer_norm"):
        normalisation(None, 3, layer_norm=True)


@pytest.mark.parametrize("make", [resnet, vit])
def test_a_head_of_scale_0_predicts_0(make: Callable[..., nn.Module]) -> None:
    outputs = make((3, 8, 8), 2, head_scale=0)(torch.randn(4, 3, 8, 8))
    assert not outputs.any()


@pytest.mark.parametrize(
    ("module", "n_params"),
    [
        (vgg((3, 32, 32), 10), 9_750_922),
        (vgg((3, 32, 32), 10, batch_norm="whole"), 9_756_426),
        (resnet((3, 32, 32), 10), 269_722),
        (resnet((3, 32, 32), 10, depth=32), 464_154),
    ],
)  # those of the published networks; He et al. 2016 say 0.27 and 0.46 million
def test_numbers_of_parameters(module: nn.Module, n_params: int) -> None:
    assert sum(each.numel() for each in module.parameters()) == n_params

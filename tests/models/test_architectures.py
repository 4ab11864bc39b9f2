"""Networks with shortcuts and attention, and those of other packages."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from eosrepro import catalog
from eosrepro.config.members import _Of
from eosrepro.core.objective import Objective
from eosrepro.core.problem import network_problem
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError, DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models._attention import Attention, sinusoids
from eosrepro.models.resnet import resnet
from eosrepro.models.transformer import transformer
from eosrepro.models.vgg import vgg
from eosrepro.models.vit import vit


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- vgg and resnet ---------------------------------------------------------------------------------------------------


def test_vgg_pools_five_times_or_as_often_as_it_can() -> None:
    for size, poolings in ((32, 5), (8, 3), (1, 0)):
        module = vgg((3, size, size), 10, width_factor=1 / 64, pooling="average")
        assert sum(isinstance(layer, nn.AvgPool2d) for layer in module.modules()) == poolings
        assert module(torch.rand(2, 3, size, size)).shape == (2, 10)


def test_vgg_starts_as_cohen_et_al_have_it() -> None:
    torch.manual_seed(0)
    convolution, *_, last = [each for each in vgg((3, 32, 32), 10).modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert not convolution.bias.any()  # type: ignore[union-attr]
    assert last.weight.abs().max().item() == pytest.approx(512**-0.5, rel=0.01)


def test_the_last_layer_of_vgg_may_stay_as_it_is() -> None:
    build = partial(vgg, width_factor=1 / 64, hidden=0)
    data = Dataset(noise(4, 3, 4, 4), torch.arange(4) % 2, 2, "noise")
    sizes = []
    for train_last in (True, False):
        objective, _ = network_problem(
            partial(build, train_last=train_last),
            cross_entropy(),
            data,
            seed=0,
            dtype=torch.float64,
            device="cpu",
            chunk_size=4,
        )
        sizes.append(objective.n_params)
    assert sizes[0] - sizes[1] == 2 * 8 + 2


def test_a_residual_network_without_its_branches_is_what_the_shortcuts_leave() -> None:
    module = resnet((3, 8, 8), 4, depth=8, width=2, batch_norm=None, activation="linear", init_scale=0).double()
    first, head = [each for each in module.children() if isinstance(each, nn.Conv2d | nn.Linear)]
    nn.init.normal_(first.weight)
    nn.init.normal_(head.weight)
    images = noise(5, 3, 8, 8)
    # Every second pixel twice, and 0 in the channels that come with it.
    left = functional.conv2d(images, first.weight, padding=1)[:, :, ::4, ::4].mean((2, 3))
    torch.testing.assert_close(module(images), left @ head.weight[:, :2].T)


def test_depth_of_a_residual_network_is_6n_and_2() -> None:
    with pytest.raises(ConfigError, match=r"depth: 18 should be 6n \+ 2: take 14 or 20"):
        resnet((3, 8, 8), 2, depth=18)
    layers = [each for each in resnet((3, 8, 8), 2, depth=26).modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    assert len(layers) == 26


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_that_of_pytorch(causal: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = (Attention(6, 3, 2, causal=causal, bias=True).double(), nn.MultiheadAttention(6, 3).double())
    theirs.load_state_dict(
        dict(zip(theirs.state_dict(), [ours.into.weight, ours.into.bias, ours.out.weight, ours.out.bias], strict=True))
    )
    inputs = noise(4, 5, 6)
    along = inputs.transpose(0, 1)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(along, along, along, attn_mask=mask)[0].transpose(0, 1)
    torch.testing.assert_close(ours(inputs), expected)


def test_sinusoids_are_those_of_vaswani_et_al() -> None:
    found = sinusoids(torch.arange(7), 5)
    assert found.shape == (7, 5)
    for position, column in ((3, 0), (6, 2), (5, 4)):
        angle = torch.tensor(position / 10_000 ** (column / 5))
        assert found[position, column] == pytest.approx(angle.sin().item(), rel=1e-5)
        if column < 4:
            assert found[position, column + 1] == pytest.approx(angle.cos().item(), rel=1e-5)


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_causal_transformer_sees_no_later_token_and_another_sees_all(norm: str, positions: str) -> None:
    tokens = torch.tensor([[0.0, 1, 2, 1, 0, 2]])
    other = tokens.clone()
    other[0, 4] = 1
    for causal in (True, False):
        torch.manual_seed(0)
        module = transformer((6,), 3, width=8, norm=norm, positions=positions, causal=causal).double()  # type: ignore[arg-type]
        changed = (module(tokens) - module(other)).abs().amax(-1)[0] > 1e-9
        assert changed.tolist() == ([False] * 4 + [True] * 2 if causal else [True] * 6)


def test_positions_tell_an_order() -> None:
    torch.manual_seed(0)
    module = transformer((4,), 2, n_tokens=5, predict="whole", causal=False, width=8).double()
    one, other = module(torch.tensor([[0.0, 1, 2, 3]])), module(torch.tensor([[1.0, 0, 2, 3]]))
    assert (one - other).abs().max() > 1e-4
    nn.init.zeros_(module.positions)  # type: ignore[arg-type]
    torch.testing.assert_close(module(torch.tensor([[0.0, 1, 2, 3]])), module(torch.tensor([[1.0, 0, 2, 3]])))


@pytest.mark.parametrize("wrong", [0.5, -1.0, 3.0])
def test_what_is_no_token_is_refused(wrong: float) -> None:
    inputs = torch.zeros(4, 5)
    inputs[2, 1] = wrong
    module = transformer((5,), 3, width=4)
    with pytest.raises(DataError, match=f"the input {wrong:g} is no token: inputs should be whole numbers from 0 to 2"):
        module(inputs)
    with pytest.raises(
        ConfigError, match=r"cannot be evaluated on 4 examples of shape \(5,\): the input .* is no token"
    ):
        Objective.of(module, functional.mse_loss, inputs, torch.zeros(4, 5, 3), batch_statistics="whole")


def test_images_are_no_tokens_and_patches_and_heads_have_to_fit() -> None:
    with pytest.raises(ConfigError, match="of images take another model, such as vit"):
        transformer((3, 8, 8), 2)
    with pytest.raises(ConfigError, match="patches of 3 × 3 pixels do not fill images of 8 × 8"):
        vit((3, 8, 8), 2, patch=3)
    with pytest.raises(ConfigError, match="5 heads do not divide a width of 64"):
        vit((3, 8, 8), 2, heads=5)


def test_a_vision_transformer_knows_where_a_patch_lies() -> None:
    torch.manual_seed(0)
    module = vit((3, 8, 8), 2, width=16, depth=1).double()
    images = noise(2, 3, 8, 8)
    for turned in (images.flip(2), images.flip(3)):
        assert (module(images) - module(turned)).abs().max() > 1e-6
    swapped = torch.cat([images[..., 4:], images[..., :4]], -1)
    assert (module(images) - module(swapped)).abs().max() > 1e-6
    module.positions.zero_()  # type: ignore[operator, union-attr]
    torch.testing.assert_close(module(images), module(swapped))


# --- from other packages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_networks_of_torchvision_run_with_declared_batch_statistics(name: str) -> None:
    written = {"name": f"torchvision.models:{name}", "num_classes": 3, "batch_statistics": 4}
    model = _Of("models")._read(written)
    images, targets = noise(8, 3, 32, 32).float(), torch.arange(8) % 3
    build = partial(catalog.find("models", model.name), **model.options)
    objective, start = network_problem(
        build,
        cross_entropy(),
        Dataset(images, targets, 3, "noise"),
        seed=0,
        dtype=torch.float32,
        device="cpu",
        chunk_size=4,
    )
    torch.manual_seed(0)
    module = build((3, 8, 8), 3)
    losses = [functional.cross_entropy(module(images[four]), targets[four]) for four in (slice(4), slice(4, 8))]
    assert len(objective.parts) == 2
    assert objective.loss(start) == pytest.approx((sum(losses) / 2).item(), rel=1e-6)

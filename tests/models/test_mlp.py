"""The paper's network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eosrepro.models.mlp import mlp


def test_the_papers_network_has_656810_parameters() -> None:
    assert sum(p.numel() for p in mlp((3, 32, 32), 10).parameters()) == 656_810


@pytest.mark.parametrize(("depth", "layers"), [(0, 1), (1, 2), (4, 5)])
def test_depth_counts_hidden_layers(depth: int, layers: int) -> None:
    module = mlp((3, 4, 4), 10, width=5, depth=depth)
    assert [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)] == [5] * (layers - 1) + [
        10
    ]


def test_without_activation_the_network_is_affine() -> None:
    module = mlp((1, 4, 4), 3, width=5, depth=3, activation="linear").double()
    a, b = torch.randn(2, 6, 1, 4, 4, dtype=torch.float64)
    assert torch.allclose(module(0.3 * a + 0.7 * b), 0.3 * module(a) + 0.7 * module(b), rtol=1e-12)

"""What every loss must do, whichever files lie in eosrepro/losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eosrepro import catalog
from eosrepro.core.types import Loss
from tests.members import identify, variants


@pytest.fixture(params=variants("losses"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def loss(request: pytest.FixtureRequest) -> Loss:
    name, options = request.param
    made: Loss = catalog.find("losses", name)(**options)
    return made


def batch(n: int = 6, *, scale: float = 2.0, **kind: Any) -> tuple[Tensor, Tensor]:
    outputs = scale * torch.randn(n, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return outputs.to(**kind) if kind else outputs, torch.arange(n) % 4


def test_one_nonnegative_float64_number_an_example(loss: Loss) -> None:
    values = loss(*batch())
    assert values.shape == (6,)
    assert values.dtype == torch.float64
    assert (values >= 0).all()


def test_an_example_does_not_see_the_others(loss: Loss) -> None:
    outputs, targets = batch()
    alone = torch.cat([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))])
    assert torch.allclose(alone, loss(outputs, targets), rtol=1e-12)


def test_first_and_second_derivatives_are_those_of_finite_differences(loss: Loss) -> None:
    outputs, targets = batch()
    outputs.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), outputs)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, targets), outputs)


def test_the_target_counts_and_being_right_is_better_than_being_wrong(loss: Loss) -> None:
    outputs = 3 * torch.eye(4, dtype=torch.float64)
    right = torch.arange(4)
    assert (loss(outputs, right) < loss(outputs, right.roll(1))).all()


def test_large_outputs_give_finite_losses_and_gradients(loss: Loss) -> None:
    outputs, targets = batch(scale=1e4)
    outputs.requires_grad_()
    value = loss(outputs, targets).sum()
    assert torch.isfinite(value)
    assert torch.isfinite(torch.autograd.grad(value, outputs)[0]).all()

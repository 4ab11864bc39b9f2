"""The problems that params.yaml can pose: a network on data, or a function of few numbers; and where they start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from typing import TYPE_CHECKING

from eosrepro.core.later import torch
from eosrepro.core.metrics import on_last_positions
from eosrepro.core.networks import (
    as_function,
    near_by,
    refuse_other_width,
    refuse_without_derivatives,
    refuse_wrong_products,
    trained,
)
from eosrepro.core.objective import FEW, Objective, network_objective
from eosrepro.core.row_space import in_row_space, size_in_row_space
from eosrepro.core.spread import placed
from eosrepro.core.types import Dataset, Function, Loss

if TYPE_CHECKING:
    from torch import Tensor, nn


def network_problem(
    build: Callable[[tuple[int, ...], int], nn.Module],
    loss: Loss,
    dataset: Dataset,
    *,
    seed: int,
    dtype: torch.dtype,
    device: str,
    chunk_size: int,
    reduce_inputs: bool = False,
    rough: bool = False,
) -> tuple[Objective, Tensor]:
    """The objective of a network on a data set, and its start θ₀ of shape (P,).

    The initialisation is drawn in float32 on the CPU whatever `dtype` and `device` are, so it depends on `seed` alone,
    and the global random generator is left as it was.

    Args:
        reduce_inputs: in coordinates of the row space of the inputs, where there are any, see `row_space.py`.
        rough: eigensolves may start in bfloat16.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(tuple(dataset.inputs.shape[1:]), dataset.n_outputs)
    trained(module)  # PyTorch would make complex parameters real
    module = module.to(device=device, dtype=dtype)
    inputs, targets, spread = dataset.inputs.to(device=device, dtype=dtype), dataset.targets.to(device), dataset.spread
    inputs = spread.placed(inputs) if spread else placed(inputs)
    row_space = None
    if reduce_inputs and size_in_row_space(module, len(dataset)):
        all_inputs = spread.rows(inputs, torch.arange(len(dataset))) if spread else inputs  # few: no more than columns
        if reduced := in_row_space(module, all_inputs):
            module, inputs, row_space = reduced
            inputs = inputs[spread.here.start : spread.here.stop] if spread else inputs
    loss = on_last_positions(loss)
    objective = network_objective(
        module, loss, inputs, targets, chunk_size=chunk_size, may_be_rough=rough, spread=spread
    )
    with torch.no_grad():
        refuse_other_width(as_function(module)(inputs[:FEW], objective.start), targets[:FEW], dataset.n_outputs)
    return replace(objective, row_space=row_space), objective.start


def function_problem(f: Function, start: Sequence[float]) -> tuple[Objective, Tensor]:
    """The objective of a function of few numbers, which has no accuracy, and its start θ₀; in float64.

    Raises:
        ConfigError: it has no second derivatives.
    """
    theta = torch.tensor(start, dtype=torch.float64)
    objective = Objective(theta, [lambda theta: (f(theta).double(), theta.new_tensor(nan))], 1)
    refuse_without_derivatives(objective, theta)
    refuse_wrong_products(objective, near_by(theta))
    return objective, theta

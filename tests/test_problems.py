"""What the settings of params.yaml stand for."""

from __future__ import annotations

import torch

from eosrepro.config.load import parse
from eosrepro.config.params import PARAMS, Config
from eosrepro.stages.build import problem
from tests.conftest import small_dataset
from tests.project import small_params


def test_products_in_tf32_are_switched_off() -> None:
    """TF32 keeps 10 bits of a factor: it would move the sharpness by 1e-4, and a run past the edge altogether."""
    run = parse(Config, small_params(), PARAMS).run("exp3_2over30")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    problem(run, small_dataset())
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32

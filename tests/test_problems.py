"""What the settings of params.yaml stand for."""

from __future__ import annotations

import pytest
import torch

from eosrepro.config.load import parse
from eosrepro.config.params import PARAMS, Config
from eosrepro.stages.build import problem
from tests.conftest import small_dataset
from tests.project import small_params


@pytest.mark.parametrize("name", ["exp3_2over30", "example1_2over39"])
def test_products_in_tf32_are_switched_off(name: str) -> None:
    """TF32 keeps 10 bits of a factor: it would move the sharpness by 1e-4, and a run past the edge altogether."""
    run = parse(Config, small_params(), PARAMS).run(name)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    problem(run, small_dataset() if run.has_examples else None)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32

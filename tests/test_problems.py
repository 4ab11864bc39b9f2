"""What the settings of params.yaml stand for."""

from __future__ import annotations

import pytest
import torch

from eosrepro.config.load import validate
from eosrepro.config.params import Config
from eosrepro.stages.build import problem
from tests.conftest import small_dataset
from tests.project import PARAMS, ROOT, all_params


@pytest.fixture(scope="module")
def config() -> Config:
    params = all_params()
    params["compute"]["threads"] = 1
    return validate(params, PARAMS, reference=ROOT / "reference")


@pytest.mark.parametrize("name", ["exp3_2over60", "example4"])
def test_products_in_tf32_are_switched_off(name: str, config: Config) -> None:
    """TF32 keeps 10 bits of a factor: it would move the sharpness by 1e-4, and a run past the edge altogether."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    problem(config, name, None if name == "example4" else small_dataset())
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32

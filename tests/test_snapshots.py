"""The state of an optimizer in a snapshot: it comes back bit by bit, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from eosrepro.core.types import Position
from eosrepro.errors import ConfigError
from eosrepro.records.snapshots import load_snapshot, save_snapshot

THETA = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MOMENTUM = torch.randn(4, generator=torch.Generator().manual_seed(1))


class Moments(NamedTuple):
    first: Tensor
    second: Tensor


def kept(folder: Path, state: Any) -> Any:
    save_snapshot(folder, Position(3, THETA, state))
    found = load_snapshot(folder / "0000003.safetensors")
    assert found.step == 3
    assert torch.equal(found.theta, THETA)
    return found.state


@pytest.mark.parametrize(
    "state",
    [
        0.1,
        7,
        True,
        (),
        MOMENTUM,
        (MOMENTUM, THETA / 3, 12),
        (MOMENTUM[::2], MOMENTUM),
        {"momentum": MOMENTUM, "by_layer": {1: [0.1, 2, False]}, "rate": float("inf")},
        [*range(12)],  # the tenth after the ninth
        (3, None, [None, MOMENTUM]),  # as of gradient descent with a schedule
    ],
    ids=str,
)
def test_a_state_comes_back_bit_by_bit(tmp_path: Path, state: Any) -> None:
    found = kept(tmp_path, state)
    torch.testing.assert_close(found, state, rtol=0, atol=0)
    assert repr(found) == repr(state)  # an int is an int


def test_a_state_may_hold_theta_itself_or_a_tensor_twice(tmp_path: Path) -> None:
    found = kept(tmp_path, (THETA, MOMENTUM, MOMENTUM, THETA[1:]))
    torch.testing.assert_close(found, (THETA, MOMENTUM, MOMENTUM, THETA[1:]), rtol=0, atol=0)


def test_without_a_state_there_is_theta_alone(tmp_path: Path) -> None:
    assert kept(tmp_path, None) is None
    assert load_file(tmp_path / "0000003.safetensors").keys() == {"theta"}


def test_equal_states_make_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        kept(tmp_path / name, {"second": MOMENTUM, "first": [THETA, 0.1]})
    ours, theirs = (tmp_path / name / "0000003.safetensors" for name in "ab")
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("state", ["text", 2**70, Moments(MOMENTUM, THETA), {1.5, 2.5}], ids=str)
def test_a_state_of_anything_else_is_refused(tmp_path: Path, state: Any) -> None:
    with pytest.raises(ConfigError, match="the state of the optimizer cannot be kept: it should be numbers"):
        kept(tmp_path, state)
    assert not [*tmp_path.iterdir()]

"""One run over ranks: the same bytes as of one process, and one message where it cannot be."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eosrepro.core import ranks
from eosrepro.core.ranks import divide
from eosrepro.core.spread import Spread, chunk_sizes, placed
from eosrepro.core.types import Dataset
from eosrepro.errors import ConfigError, DataError
from eosrepro.records.dataset import load_dataset, save_dataset
from tests.project import ROOT, environment

SIZES = (1, 2, 4)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By number of ranks and rank, as 4_0, what it found; see tests/ranks.py."""
    folder = tmp_path_factory.mktemp("ranks")
    program = [sys.executable, "-m", "tests.ranks", str(folder), *map(str, SIZES)]
    done = subprocess.run(program, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.stem: torch.load(path, weights_only=True) for path in folder.iterdir()}


def as_bytes(value: Any) -> Any:
    """With NaN equal to itself, and 0 other than −0."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return [as_bytes([*item]) for item in value.items()]
    if isinstance(value, (list, tuple)):
        return [as_bytes(each) for each in value]
    return value.hex() if isinstance(value, float) else value


def test_every_rank_of_every_world_finds_the_bytes_of_one_process(found: dict[str, dict[str, Any]]) -> None:
    assert sorted(found) == ["1_0", "2_0", "2_1", "4_0", "4_1", "4_2", "4_3"]
    alone = found["1_0"]
    assert len(alone) > 100
    assert alone["has a row space"]
    for world, values in found.items():
        assert values.keys() == alone.keys()
        told = {name for name in values if not name.startswith("refused")}
        assert [name for name in told if as_bytes(values[name]) != as_bytes(alone[name])] == [], world


def test_a_sum_is_added_in_the_order_of_its_parts(found: dict[str, dict[str, Any]]) -> None:
    for values in found.values():
        sums = [name for name in values if re.fullmatch(r"sum of \d pieces of \d+", name)]
        assert len(sums) == 12
        assert all(as_bytes(values[name]) == as_bytes(values[f"{name}, alone"]) for name in sums)


def test_a_sum_lies_where_a_tensor_of_its_own_would(found: dict[str, dict[str, Any]]) -> None:
    assert {at for values in found.values() for name, at in values.items() if name.startswith("where ")} == {0}


def test_what_ranks_cannot_share_is_refused_on_all_of_them_with_what_to_do(found: dict[str, dict[str, Any]]) -> None:
    assert {said for name, said in found["1_0"].items() if name.startswith("refused")} == {""}
    for world in ("2_0", "2_1"):
        assert found[world]["refused: few chunks"] == (
            "50 examples in chunks of 50 are 1 part, which 2 ranks cannot share. Set EOSREPRO_RANKS to at most 1, or "
            "compute.chunk_size to at most 25 (other chunks are another run: its last bits differ)"
        )
        assert found[world]["refused: whole batch"].endswith("Set EOSREPRO_RANKS to 1")
        assert found[world]["refused: groups across ranks"].endswith(
            "Set EOSREPRO_RANKS to 1, or compute.chunk_size to a multiple of the 10 examples of a group"
        )


# --- what belongs to which rank ---------------------------------------------------------------------------------------


@pytest.fixture
def alone_again() -> Iterator[None]:
    """After the test there is one rank."""
    yield
    ranks.declare(0, 1)


@pytest.mark.usefixtures("alone_again")
@given(st.integers(1, 200), st.integers(1, 60), st.integers(2, 8))
def test_each_rank_holds_whole_chunks_of_one_process(n_examples: int, chunk_size: int, size: int) -> None:
    chunks = chunk_sizes(n_examples, chunk_size)
    assert chunks == [len(chunk) for chunk in torch.split(torch.empty(n_examples), chunk_size)]
    ranks.declare(0, size)
    shares = divide(len(chunks))
    assert [part for share in shares for part in share] == [*range(len(chunks))]
    lengths = [len(share) for share in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1
    if len(chunks) < size:
        with pytest.raises(ConfigError, match="cannot share"):
            Spread.of(n_examples, chunk_size)
        return
    spread = Spread.of(n_examples, chunk_size)
    assert spread
    assert {*spread.borders} <= {0, *accumulate(chunks)}
    for own, (low, high) in enumerate(pairwise(spread.borders)):
        ranks.declare(own, size)
        assert spread.here == range(low, high)
        assert spread.parts(chunks) == shares[own]


@given(st.integers(0, 40), st.integers(0, 40))
def test_numbers_lie_where_they_would_behind_others(first: int, skipped: int) -> None:
    tensor = torch.arange(60, dtype=torch.float32)[first : first + 20]
    found = placed(tensor, 4 * skipped)
    assert torch.equal(found, tensor)
    assert (found.data_ptr() - 4 * skipped) % ranks.ALIGNMENT == 0


@pytest.mark.usefixtures("alone_again")
def test_a_rank_reads_its_own_inputs_alone(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(50, 3, generator=generator), torch.arange(50) % 4
    for n_test, chunk_size in ((30, 10), (12, 10)):
        test = inputs[:n_test] + 1, targets[:n_test].clone()
        save_dataset(tmp_path, Dataset(inputs, targets, 4, "noise", test=test))
        whole = load_dataset(tmp_path, chunk_size=chunk_size)
        assert torch.equal(whole.inputs, inputs)
        assert whole.spread is None
        for own, (low, high) in enumerate([(0, 20), (20, 40), (40, 50)]):
            ranks.declare(own, 3)
            share = load_dataset(tmp_path, chunk_size=chunk_size)
            assert share.spread
            assert share.spread.borders == (0, 20, 40, 50)
            assert torch.equal(share.inputs, inputs[low:high])
            assert share.inputs.untyped_storage().nbytes() <= 12 * (high - low) + ranks.ALIGNMENT
            assert torch.equal(share.targets, targets)
            assert str(share) == str(whole)
            assert share.test
            of_test = range(10 * own, 10 * own + 10) if n_test == 30 else range(n_test)  # too few: all of them
            assert torch.equal(share.test[0], test[0][of_test.start : of_test.stop])
        ranks.declare(0, 1)


@pytest.mark.usefixtures("alone_again")
def test_an_example_that_is_wrong_is_counted_from_the_first_of_all() -> None:
    ranks.declare(1, 2)
    spread = Spread.of(6, 2)
    assert spread
    inputs = torch.zeros(2, 3)
    inputs[1, 2] = torch.nan
    with pytest.raises(DataError, match="example 5 has inputs"):
        Dataset(inputs, torch.zeros(6), 1, "numbers", spread=spread)

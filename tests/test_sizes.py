"""What a training takes is said before it starts, and a disk that is too small is noticed there."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from eosrepro.config.load import validate
from eosrepro.config.runs import Run
from eosrepro.stages import estimate
from eosrepro.stages.build import problem
from eosrepro.stages.estimate import Size
from tests.conftest import small_dataset
from tests.project import alone, small_params

RUN = "exp3_2over30"
DATA = small_dataset()  # 40 examples of 3 × 3
N_PARAMETERS = 9 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3  # of two hidden layers of 8


def declared() -> Run:
    return validate(alone(small_params(), "exp3"), Path("params.yaml")).run(RUN)


def announce(folder: Path, done: int = 0) -> None:
    objective, theta = problem(declared(), DATA)
    estimate.announce(declared(), objective, theta, done=done, folder=folder)


def test_the_size_is_that_of_all_snapshots_of_the_longest_run() -> None:
    size = estimate.of_run(declared(), DATA)
    assert size == Size(N_PARAMETERS, steps=10, every=5, itemsize=4)
    assert size.snapshots == 3  # of iterations 0, 5 and 10
    assert size.bytes == 3 * N_PARAMETERS * 4


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 kB"), (12_345, "12.3 kB"), (52.5e6, "52.5 MB"), (1.58e10, "15.8 GB")]
)
def test_bytes_in_words(size: int, words: str) -> None:
    assert estimate.in_words(size) == words


def test_what_is_to_come_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(tmp_path)
    said = capsys.readouterr()
    assert said.out == ""
    start = f"train {RUN}: {N_PARAMETERS} parameters, 40 examples; at most 10 iterations (about 0 s) and 3 snapshots ("
    assert said.err.startswith(start)
    assert said.err.count("\n") == 1
    announce(tmp_path, done=6)
    assert "at most 4 iterations (about 0 s) and 1 snapshots" in capsys.readouterr().err


def test_a_disk_that_may_be_too_small_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=1000))
    announce(tmp_path)
    found = f"the snapshots of {RUN} take up to {3 * N_PARAMETERS * 4 / 1000:.3g} kB, and the disk has 1 kB free"
    assert capsys.readouterr().err.endswith(
        f"Warning: {found}. They fit if the run ends early; else {estimate.MORE_ROOM}\n"
    )

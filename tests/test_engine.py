"""Tasks in one process or in several: the same results, and one message where something ends them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.core.problem import network_problem
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from eosrepro.stages import diagnose as diagnose_stage
from eosrepro.stages import engine, track
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.train import train
from tests.project import alone, small_params, write_params


def scaled(shared: Tensor, task: int) -> tuple[float, int]:
    """A number, and the process that found it."""
    return float(shared.sum()) * task, os.getpid()


def numbers(shared: int, task: int) -> Iterator[int]:
    yield from range(task, task + shared)


def fails_or_takes_long(folder: Path, task: int) -> None:
    """The first fails when another has begun; the others say that they have begun, and where they were interrupted."""
    if task == 0:
        while not list(folder.iterdir()):
            time.sleep(0.01)
        raise EosreproError("no")
    (folder / str(task)).touch()
    try:
        time.sleep(600)
    except SystemExit:
        (folder / f"{task} interrupted").touch()
        raise


def killed(_shared: None, task: int) -> int:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # as Linux does where memory is short
    time.sleep(600)
    return task


def test_results_come_in_the_order_of_the_tasks_from_as_many_processes() -> None:
    shared, tasks = torch.ones(3), [5, 1, 4, 2]
    for jobs in (1, 2):
        values, processes = zip(*engine.map(scaled, shared, tasks, jobs=jobs), strict=True)
        assert values == (15, 3, 12, 6)
        assert len({*processes} - {os.getpid()}) <= jobs
        assert (os.getpid() in processes) == (jobs == 1)
    assert [process for _, process in engine.map(scaled, shared, [1], jobs=2)] == [os.getpid()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_task_yields_is_its_result(jobs: int) -> None:
    assert [[*found] for found in engine.map(numbers, 2, [0, 10], jobs=jobs)] == [[0, 1], [10, 11]]


def test_a_failure_is_the_same_in_another_process_and_ends_all_others(tmp_path: Path) -> None:
    with pytest.raises(EosreproError, match=r"^no$"):
        list(engine.map(fails_or_takes_long, tmp_path, range(6), jobs=2))
    begun = {path.name for path in tmp_path.iterdir()}
    at_work = {name for name in begun if "interrupted" not in name}
    assert begun - at_work == {f"{task} interrupted" for task in at_work}
    assert 1 <= len(at_work) <= 2  # one a process: none of those that waited was begun


def test_a_process_that_is_killed_is_one_clear_message() -> None:
    with pytest.raises(EosreproError, match=r"one of the processes .* was killed, .*: take a smaller"):
        list(engine.map(killed, None, [0, 1], jobs=2))


def test_where_the_data_lie_in_memory_changes_nothing() -> None:
    """They are loaded from a file here, and shared with other processes there."""
    inputs, room = torch.randn(100, 3, 32, 32), torch.empty(100 * 3072 + 16)
    values = []
    for offset in (0, 1, 3, 8):
        place = room[offset : offset + inputs.numel()].view_as(inputs).copy_(inputs)
        data = Dataset(place, torch.arange(100) % 10, 10, "noise")
        objective, theta = network_problem(
            partial(mlp, width=8, depth=2),
            cross_entropy(),
            data,
            seed=0,
            dtype=torch.float32,
            device="cpu",
            chunk_size=60,
        )
        values.append(objective.value_and_grad(theta))
    assert len({value.loss for value in values}) == 1
    assert all(torch.equal(value.grad, values[0].grad) for value in values)


def test_one_process_and_two_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "_is_worth_mlflow", lambda _started: False)
    monkeypatch.setattr(diagnose_stage, "BLOCK", 2)

    def made(jobs: int) -> dict[str, bytes]:
        folder = tmp_path / str(jobs)
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_params(folder, alone(small_params(), "exp3"))
        make_data(load())
        train(load(), "exp3", jobs=jobs)
        diagnose(load(), "exp3", jobs=jobs)
        paths = [path for path in folder.glob("stages/[tdm]*/**/*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    by_one = made(1)
    assert {f"stages/train/exp3/exp3_2over{end}/trajectory.csv" for end in (10, 30)} < by_one.keys()
    assert "stages/diagnostics/exp3/exp3_2over30/tau_scan.csv" in by_one
    assert "stages/metrics/exp3.json" in by_one
    assert made(2) == by_one


def test_as_many_processes_as_fit_and_one_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2, 3, 4})
    assert [engine.default_jobs("cpu", threads) for threads in (1, 2, 8)] == [5, 2, 1]
    assert engine.default_jobs("cuda", 1) == 1


def test_the_environment_may_say_how_many_and_a_mistake_in_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EOSREPRO_JOBS", "many")
    said = CliRunner().invoke(main, ["train", "exp3"])
    assert said.exit_code == 2
    assert "'many' is not a valid integer range" in said.stderr

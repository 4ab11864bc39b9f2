"""A diagnostic along the snapshots of a run: in blocks, by one process or several, with the same result."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from eosrepro.config.load import load
from eosrepro.config.members import Diagnosis
from eosrepro.config.runs import Run
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError
from eosrepro.records import store
from eosrepro.records.files import load_table
from eosrepro.records.snapshots import load_snapshot, snapshot_name, snapshot_paths
from eosrepro.stages import diagnose as stage
from eosrepro.stages import train
from eosrepro.stages.build import problem
from eosrepro.stages.data import make_data
from tests.project import alone, small_params, write_params

RUN = "exp8_2over50"
SHARPNESS = Diagnosis("sharpness", {"k": 1, "rtol": 1e-3, "max_products": 200, "audit_every": 2, "seed": 0})
EXPECTED = Diagnosis("expected_progress", {"sample": None})
SCAN = Diagnosis("tau_scan", {"n_taus": 3, "tolerance": 0})


class Trained(NamedTuple):
    """A small SGD run, its data and its folder."""

    run: Run
    data: Dataset
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = alone(small_params(), "exp8")
        params["profiles"]["quick"]["snapshot_every_epochs"] = 1
        write_params(folder, params)
        config = load()
        data = make_data(config)
        run = config.run(RUN)
        train.into_store(run, data, "key")
        store.place("key", folder / "run")
    return Trained(run, data, folder / "run")


@pytest.fixture
def trained(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The same in a folder of its own, where nothing has been measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "BLOCK", 4)
    return made


def measure(trained: Trained, diagnosis: Diagnosis, *, jobs: int = 1) -> pd.DataFrame:
    run = replace(trained.run, diagnose={diagnosis.name: diagnosis})
    keys = stage.into_store([run], {RUN: trained.folder}, trained.data, jobs=jobs)[RUN]
    table = load_table(store.STORE / keys[diagnosis.name] / f"{diagnosis.name}.csv")
    shutil.rmtree(store.STORE)
    return table


@pytest.mark.parametrize("diagnosis", [SHARPNESS, EXPECTED], ids=lambda member: member.name)
def test_several_processes_find_what_one_finds(diagnosis: Diagnosis, trained: Trained) -> None:
    alone, shared = measure(trained, diagnosis), measure(trained, diagnosis, jobs=2)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)
    assert alone["step"].tolist() == list(range(11))


def test_a_diagnostic_starts_afresh_in_every_block(trained: Trained, tmp_path: Path) -> None:
    whole = measure(trained, SHARPNESS)
    folder = Path(shutil.copytree(trained.folder, tmp_path / "block"))
    for step in {*range(11)} - {*range(4, 8)}:
        (folder / "snapshots" / snapshot_name(step)).unlink()
    block = measure(trained._replace(folder=folder), SHARPNESS)
    pd.testing.assert_frame_equal(whole[4:8].reset_index(drop=True), block, check_exact=True)


def test_it_looks_at_the_snapshots_that_every_divides(trained: Trained) -> None:
    whole, third = measure(trained, EXPECTED), measure(trained, replace(EXPECTED, every=3))
    pd.testing.assert_frame_equal(whole[::3].reset_index(drop=True), third, check_exact=True)


def test_a_diagnostic_is_given_the_optimizer_of_its_run(trained: Trained) -> None:
    """A step of SGD is an epoch of steps of η = 2/50 along the gradients of its minibatches."""
    objective, start = problem(trained.run, trained.data)
    minibatches = trained.run.method.minibatches
    assert minibatches is not None
    table = measure(trained, SCAN)
    assert len(table) == 11
    for step, snapshot, _ in map(load_snapshot, snapshot_paths(trained.folder / "snapshots")):
        theta = reached = snapshot.to(start)
        for indices in minibatches(100, step):
            reached = reached - 2 / 50 * objective.batch(indices).value_and_grad(reached).grad
        here = objective.value_and_grad(theta)
        promised = float((theta - reached).double() @ here.grad.double())
        progress = (objective.loss(reached) - here.loss) / promised
        assert table["relative_progress_of_step"][step] == pytest.approx(progress, rel=1e-3)


def test_a_diagnostic_is_given_the_minibatches_of_its_run(trained: Trained) -> None:
    """The mean over those of the next epoch, by their sizes, of the step along each, at η = 2/50."""
    objective, start = problem(trained.run, trained.data)
    minibatches = trained.run.method.minibatches
    assert minibatches is not None
    table = measure(trained, EXPECTED)
    assert set(table["minibatches"]) == {4}  # 100 examples in batches of 32
    for step, snapshot, _ in map(load_snapshot, snapshot_paths(trained.folder / "snapshots")):
        theta = snapshot.to(start)
        here = objective.value_and_grad(theta)
        change = 0.0
        for indices in minibatches(100, step):
            grad = objective.batch(indices).value_and_grad(theta).grad
            change += len(indices) / 100 * (objective.loss(theta - 2 / 50 * grad) - here.loss)
        progress = change / (2 / 50 * float(here.grad.double().square().sum()))
        assert table["expected_relative_progress"][step] == pytest.approx(progress, rel=1e-3)


def test_a_failure_in_another_process_is_the_same_failure(trained: Trained) -> None:
    hopeless = replace(SHARPNESS, options={**SHARPNESS.options, "rtol": 1e-5, "max_products": 2})
    with pytest.raises(EosreproError, match="not converged"):
        measure(trained, hopeless, jobs=2)


def test_what_was_found_is_not_looked_for_again_until_settings_or_run_are_others(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looked: list[int] = []
    load_one = load_snapshot
    monkeypatch.setattr(stage, "load_snapshot", lambda path: (looked.append(int(path.stem)), load_one(path))[1])

    def look(diagnosis: Diagnosis, folder: Path = trained.folder) -> list[int]:
        looked.clear()
        stage.into_store(
            [replace(trained.run, diagnose={diagnosis.name: diagnosis})], {RUN: folder}, trained.data, jobs=1
        )
        return [*looked]

    assert look(EXPECTED) == [*range(11)]
    assert look(EXPECTED) == []
    assert look(replace(EXPECTED, options={"sample": 2})) == [*range(11)]
    other = Path(shutil.copytree(trained.folder, tmp_path / "other"))
    with (other / "trajectory.csv").open("a") as file:
        file.write("\n")
    assert look(EXPECTED, other) == [*range(11)]
    assert look(EXPECTED) == []

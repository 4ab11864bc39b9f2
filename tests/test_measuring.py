"""A diagnostic along the snapshots of a run: in blocks, by one process or several, with the same result."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest

from eosrepro.config.load import load
from eosrepro.config.members import Member
from eosrepro.config.params import Config
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError
from eosrepro.optimizers.sgd import sgd
from eosrepro.records.snapshots import load_snapshot, snapshot_paths
from eosrepro.stages import workers
from eosrepro.stages.build import problem
from eosrepro.stages.data import make_data
from eosrepro.stages.train import train_into
from tests.project import ROOT, small_params, write_params

RUN = "exp8_2over50"
SHARPNESS = Member("sharpness", {"k": 1, "rtol": 1e-3, "max_products": 200, "audit_every": 2, "seed": 0})
EXPECTED = Member("expected_progress", {"sample": None})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset, list[Path]]:
    """A small SGD run, its data and its snapshots."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "reference").symlink_to(ROOT / "reference")
        params = small_params()
        params["profiles"]["quick"]["snapshot_every_epochs"] = 1
        write_params(folder, params)
        config = load()
        data = make_data(config)
        train_into(folder / "run", config, RUN, data, fingerprint="")
    return config, data, snapshot_paths(folder / "run/snapshots")


def measure(trained: tuple[Config, Dataset, list[Path]], diagnostic: Member, *, jobs: int = 1) -> pd.DataFrame:
    config, data, snapshots = trained
    with TemporaryDirectory() as place:
        return workers.measure(config, RUN, diagnostic, snapshots, data, jobs=jobs, place=Path(place))


@pytest.mark.parametrize("diagnostic", [SHARPNESS, EXPECTED], ids=lambda member: member.name)
def test_several_processes_find_what_one_finds(
    diagnostic: Member, trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BLOCK", 4)
    alone, shared = measure(trained, diagnostic), measure(trained, diagnostic, jobs=2)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)
    assert alone["step"].tolist() == list(range(11))


def test_a_diagnostic_starts_afresh_in_every_block(
    trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, data, snapshots = trained
    monkeypatch.setattr(workers, "BLOCK", 4)
    whole = measure(trained, SHARPNESS)
    block = workers.measure(config, RUN, SHARPNESS, snapshots[4:8], data, jobs=1, place=tmp_path)
    pd.testing.assert_frame_equal(whole[4:8].reset_index(drop=True), block, check_exact=True)


def test_a_diagnostic_is_given_the_step_size_of_its_run(trained: tuple[Config, Dataset, list[Path]]) -> None:
    config, data, _ = trained
    objective, start = problem(config, RUN, data)
    table = measure(trained, Member("tau_scan", {"n_taus": 3, "tolerance": 0}))
    assert len(table) == 11
    for step, theta in map(load_snapshot, trained[2]):
        here = objective.value_and_grad(theta.to(start))
        reached = objective.loss(theta.to(start) - 2 / 50 * here.grad)
        progress = (reached - here.loss) / (2 / 50 * float(here.grad.double().square().sum()))
        assert table["relative_progress_of_step"][step] == pytest.approx(progress, rel=1e-4)


def test_a_diagnostic_is_given_the_minibatches_of_its_run(trained: tuple[Config, Dataset, list[Path]]) -> None:
    """The mean over those of the next epoch, by their sizes, of the step along each, at η = 2/50."""
    config, data, _ = trained
    objective, start = problem(config, RUN, data)
    options = config.experiments[RUN].optimizer.options
    assert options["batch_size"] == 32
    minibatches = sgd(step_size=0.0, **options).minibatches
    assert minibatches is not None
    table = measure(trained, EXPECTED)
    assert set(table["minibatches"]) == {4}  # 100 examples in batches of 32
    for step, snapshot in map(load_snapshot, trained[2]):
        theta = snapshot.to(start)
        here = objective.value_and_grad(theta)
        change = 0.0
        for indices in minibatches(100, step):
            grad = objective.batch(indices).value_and_grad(theta).grad
            change += len(indices) / 100 * (objective.loss(theta - 2 / 50 * grad) - here.loss)
        progress = change / (2 / 50 * float(here.grad.double().square().sum()))
        assert table["expected_relative_progress"][step] == pytest.approx(progress, rel=1e-3)


def test_a_failure_in_another_process_is_the_same_failure(
    trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BLOCK", 4)
    hopeless = Member("sharpness", {**SHARPNESS.options, "rtol": 1e-5, "max_products": 2})
    with pytest.raises(EosreproError, match="not converged"):
        measure(trained, hopeless, jobs=2)

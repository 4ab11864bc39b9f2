"""A diagnostic along the snapshots of a run: in blocks, by one process or several, with the same result."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest

from eosrepro import measuring, pipeline, store
from eosrepro.config import Config, Member, load
from eosrepro.errors import EosreproError
from eosrepro.optimizers.sgd import sgd
from eosrepro.problems import problem
from eosrepro.types import Dataset
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
        data = pipeline.make_data(config)
        pipeline.train_into(folder / "run", config, RUN, data, fingerprint="")
    return config, data, store.snapshot_paths(folder / "run/snapshots")


def measure(trained: tuple[Config, Dataset, list[Path]], diagnostic: Member, *, jobs: int = 1) -> pd.DataFrame:
    config, data, snapshots = trained
    with TemporaryDirectory() as place:
        return measuring.measure(config, RUN, diagnostic, snapshots, data, jobs=jobs, place=Path(place))


@pytest.mark.parametrize("diagnostic", [SHARPNESS, EXPECTED], ids=lambda member: member.name)
def test_several_processes_find_what_one_finds(
    diagnostic: Member, trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "BLOCK", 4)
    alone, shared = measure(trained, diagnostic), measure(trained, diagnostic, jobs=2)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)
    assert alone["step"].tolist() == list(range(11))


def test_a_diagnostic_starts_afresh_in_every_block(
    trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, data, snapshots = trained
    monkeypatch.setattr(measuring, "BLOCK", 4)
    whole = measure(trained, SHARPNESS)
    block = measuring.measure(config, RUN, SHARPNESS, snapshots[4:8], data, jobs=1, place=tmp_path)
    pd.testing.assert_frame_equal(whole[4:8].reset_index(drop=True), block, check_exact=True)


def test_a_diagnostic_is_given_step_size_and_minibatches_of_its_run(
    trained: tuple[Config, Dataset, list[Path]],
) -> None:
    """Both from the definitions, with the η = 2/50 and the minibatches of params.yaml."""
    config, data, snapshots = trained
    objective, start = problem(config, RUN, data)
    expected = measure(trained, EXPECTED)
    along = measure(trained, Member("tau_scan", {"n_taus": 2, "tolerance": 0}))
    for path, of_epoch, of_step in zip(snapshots, expected.iloc, along.iloc, strict=True):
        step, theta = store.load_snapshot(path)
        here = objective.value_and_grad(theta.to(start))
        promised = 2 / 50 * float(here.grad.double() @ here.grad.double())
        progress = (objective.loss(theta - 2 / 50 * here.grad) - here.loss) / promised
        assert of_step["relative_progress_of_step"] == pytest.approx(progress, rel=1e-3)
        gains = []
        for indices in sgd(step_size=2 / 50, **config.experiments[RUN].optimizer.options).minibatches(100, step):  # type: ignore[misc]
            grad = objective.batch(indices).value_and_grad(theta).grad
            gains.append(len(indices) / 100 * (objective.loss(theta - 2 / 50 * grad) - here.loss))
        assert of_epoch["minibatches"] == len(gains) == 4  # 100 examples in batches of 32
        assert of_epoch["expected_relative_progress"] == pytest.approx(sum(gains) / promised, rel=1e-3)


def test_a_failure_in_another_process_is_the_same_failure(
    trained: tuple[Config, Dataset, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "BLOCK", 4)
    hopeless = Member("sharpness", {**SHARPNESS.options, "rtol": 1e-5, "max_products": 2})
    with pytest.raises(EosreproError, match="not converged"):
        measure(trained, hopeless, jobs=2)

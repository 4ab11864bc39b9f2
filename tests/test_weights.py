"""The parameters of a network where a run stood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eosrepro.config.load import load
from eosrepro.errors import EosreproError
from eosrepro.models.mlp import mlp
from eosrepro.records.dataset import DATA, load_dataset
from eosrepro.records.files import save_tensors
from eosrepro.records.runs import load_record
from eosrepro.stages.data import make_data
from eosrepro.stages.train import train
from eosrepro.tools.parameters import parameters_at
from tests.project import small_params, write_params, write_project


@pytest.fixture
def trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    write_project(folder)
    monkeypatch.chdir(folder)
    make_data(load())
    train(load(), "exp3_2over30", jobs=1)
    return folder


def test_a_module_with_them_has_the_loss_of_the_run(trained_in: Path, tmp_path: Path) -> None:
    config = load()
    step, parameters = parameters_at(config, "exp3_2over30", None)
    save_tensors(tmp_path / "w.safetensors", parameters)
    setting, data = config.run("exp3_2over30").setting, load_dataset(DATA)
    assert setting.model
    module = mlp(tuple(data.inputs.shape[1:]), data.n_outputs, **setting.model.options)
    assert not module.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True).missing_keys
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(module(data.inputs).double(), data.targets).item()
    last = load_record(trained_in / "stages/train/exp3/exp3_2over30").trajectory.iloc[-1]
    assert (step, loss) == (last["step"], pytest.approx(last["loss"], rel=1e-5))

    start = parameters_at(config, "exp3_2over30", 0)[1]
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed or 0)
        drawn = mlp(tuple(data.inputs.shape[1:]), data.n_outputs, **setting.model.options)
    for name, tensor in drawn.state_dict().items():
        torch.testing.assert_close(start[name], tensor)


def test_what_cannot_be_had_is_said(trained_in: Path) -> None:
    config = load()
    with pytest.raises(EosreproError, match="no snapshot at iteration 1: there are those of 0, "):
        parameters_at(config, "exp3_2over30", 1)
    with pytest.raises(EosreproError, match="is a problem"):
        parameters_at(config, "example1_2over39", None)
    params = small_params()
    params["compute"]["reduce_inputs"] = False
    write_params(trained_in, params)
    with pytest.raises(EosreproError, match=r"trained with compute\.reduce_inputs True, now not set"):
        parameters_at(load(), "exp3_2over30", None)

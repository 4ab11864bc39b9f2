"""A run whose end has a Hessian that is not finite: what is found there is empty, and every command goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from eosrepro.cli import main
from eosrepro.config.load import read_params
from eosrepro.records.files import load_json
from tests.project import write_params, write_project

RUN = "exp3_2over30"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a deep linear network runs at η = 10, and all diagnostics of a Hessian are declared."""
    params = write_project(tmp_path)
    params["profiles"]["quick"]["data"] = {"name": "digits", "n_examples": 60, "seed": 0}
    params["profiles"]["quick"]["snapshot_every"] = 1
    params["diagnose"]["sharpness"] |= {"k": 2, "audit_every": 1}
    solved = {"rtol": 1e-2, "max_products": 200, "seed": 0}
    params["experiments"] = {
        "exp3": params["experiments"]["exp3"]
        | {
            "vary": {"step_size": {"2over30": "10"}},
            "snapshot_every": 1,
            "model": {"name": "mlp", "width": 8, "depth": 4, "activation": "linear"},
            "loss": {"name": "mse"},
            "stop": {"max_steps": 10},
            "diagnose": {
                "segment_sharpness": {"points": 5, **solved},
                "spectrum": {"k": 3, "n_probes": 2, "n_nodes": 20, **solved},
                "spectral_density": {"n_probes": 2, "n_nodes": 5, "seed": 0},
                "tau_scan": {"n_taus": 20, "tolerance": 1e-4},
                "alignment": solved,
                "slices": {**solved, "points": 2},
                "batch_sharpness": {},
                "critical_step_size": {},
                "taylor_model": {"steps": 2},
            },
        }
    }
    params["figures"] = {"exp3": params["figures"]["exp3"] | {"without": []}}
    claims = read_params(tmp_path / "papers/small/claims.yaml")
    claims["claims"] = [block for block in claims["claims"] if block["of"] == [RUN]]
    write_params(tmp_path / "papers/small", claims, "claims.yaml")
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("EOSREPRO_JOBS", "1")  # to start others takes seconds
    return tmp_path


def test_everything_that_is_found_there_is_empty_and_the_commands_go_on(folder: Path) -> None:
    for command in ("data", "train exp3", "diagnose exp3", "verify", "figure exp3", "report"):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, f"{command}: {done.output}"

    (measured,) = (folder / "stages/diagnostics").rglob(RUN)
    tables = {path.stem: pd.read_csv(path) for path in measured.glob("*.csv")}
    first, last = tables["sharpness"].iloc[0], tables["sharpness"].iloc[-1]
    quantities = ["sharpness", "eigenvalue_2", "residual", "audit_sharpness", "audit_residual"]
    assert first["sharpness"] == pytest.approx(first["audit_sharpness"], rel=3e-3)
    assert last[quantities].isna().all()
    assert last["step"] == load_json(folder / f"stages/train/exp3/{RUN}/summary.json")["steps"]
    for name in tables.keys() - {"sharpness"}:
        quantity = tables[name].columns[2 if name == "spectral_density" else 1]
        assert np.isfinite(tables[name][quantity].iloc[0])
        assert np.isnan(tables[name][quantity].iloc[-1])
    assert load_json(folder / "stages/metrics/exp3.json")["sharpness"] == "nan"

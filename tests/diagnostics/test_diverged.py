"""A run whose end has a Hessian that is not finite: what is measured there is empty, and every command goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from eosrepro.cli import main
from eosrepro.records.files import load_json
from tests.project import ROOT, all_params, small_params, write_params

RUN = "exp3_2over30"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a deep linear network runs at η = 10, and all diagnostics of a Hessian are declared."""
    params, templates = small_params(), all_params()["templates"]
    params["profiles"]["quick"]["data"] = {"name": "digits", "n_examples": 60, "seed": 0}
    params["profiles"]["quick"]["snapshot_every"] = 1
    params["sharpness"] |= {"k": 2, "audit_every": 1}
    params["experiments"] = {RUN: params["experiments"][RUN]}
    params["experiments"][RUN] |= {
        "snapshot_every": 1,
        "model": {"name": "mlp", "width": 8, "depth": 4, "activation": "linear"},
        "loss": {"name": "mse"},
        "step_size": "10",
        "stop": {"max_steps": 10},
    }
    density = {"name": "spectral_density", "n_probes": 2, "n_nodes": 5, "seed": 0}
    scan = {"name": "tau_scan", "n_taus": 20, "tolerance": 1e-4}
    diagnostics = {"segment": templates["segment"], "spectrum": templates["spectrum"], "density": density, "scan": scan}
    source = params["experiments"][RUN]["folder"]
    params["measurements"] = {
        name: {"run": RUN, "source": source, "diagnostic": diagnostic, "every": 1}
        for name, diagnostic in diagnostics.items()
    }
    params["figures"] = {"exp3": params["figures"]["exp3"] | {"runs": {RUN: "η = {step_size}"}}}
    params["toys"] = {}
    params["claims"] = {name: claim for name, claim in params["claims"].items() if claim["run"] == RUN}
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return tmp_path


def test_everything_that_is_measured_there_is_empty_and_the_commands_go_on(folder: Path) -> None:
    measurements = ("segment", "spectrum", "density", "scan")
    commands = ["data", f"train {RUN}", f"diagnose {RUN}", *(f"measure {name}" for name in measurements)]
    for command in (*commands, "verify", "plot exp3", "report"):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, f"{command}: {done.output}"

    (measured,) = (folder / "stages/diagnostics").rglob(RUN)
    tables = {path.stem: pd.read_csv(path) for path in measured.glob("*.csv")}
    first, last = tables["sharpness"].iloc[0], tables["sharpness"].iloc[-1]
    quantities = ["sharpness", "eigenvalue_2", "residual", "audit_sharpness", "audit_residual"]
    assert first["sharpness"] == pytest.approx(first["audit_sharpness"], rel=3e-3)
    assert last[quantities].isna().all()
    assert last["step"] == load_json(next((folder / "stages/train").rglob("summary.json")))["steps"]
    for name in ("segment_sharpness", "spectrum", "spectral_density", "tau_scan"):
        quantity = tables[name].columns[2 if name == "spectral_density" else 1]
        assert np.isfinite(tables[name][quantity].iloc[0])
        assert np.isnan(tables[name][quantity].iloc[-1])
    summary = load_json(measured / "summary.json")
    assert summary["sharpness_last"] is None
    assert summary["sharpness_max"] >= summary["sharpness_first"] > 0
    assert abs(summary["largest_audit_shortfall"]) < 3e-3

"""Questions beyond the first paper, posed in params.yaml alone: train, diagnose and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eosrepro.config.load import load
from eosrepro.records.files import load_json, load_table
from eosrepro.stages.check import check
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.figure import draw
from eosrepro.stages.train import train
from eosrepro.stages.verify import verify
from tests.project import alone, small_params, write_params

SOLVE = {"k": 1, "rtol": 1e-3, "max_products": 200, "audit_every": 100, "seed": 0}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path


def run(folder: Path, experiment: dict[str, Any], **changes: Any) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The trajectory of a single run, and what diagnostics found on it."""
    params = alone(small_params(), "exp3")
    params["profiles"]["quick"] |= {"max_steps": 400, "snapshot_every": 1} | changes.pop("profile", {})
    params |= changes
    base = {key: value for key, value in params["experiments"]["exp3"].items() if key not in ("vary", "diagnose")}
    params["experiments"] = {"mine": {**base, "step_size": 0.01, **experiment}}
    write_params(folder, params)
    config = load()
    check(config)
    make_data(config)
    train(config, "mine", jobs=1)
    found = diagnose(config, "mine", jobs=1)
    verify(config)
    for figure in config.figures:
        draw(config, figure)
    return load_table(folder / "stages/train/mine/mine/trajectory.csv"), dict(found["mine"])


def test_adam_hovers_at_its_own_threshold_and_the_figure_shows_that_line(project: Path) -> None:
    """Full-batch Adam on 100 patches: late effective sharpness within a tenth of 38/η (Cohen et al. 2022)."""
    figure = {
        "name": "trajectories",
        "of": "mine",
        "title": "Adam",
        "panels": ["loss", "effective_sharpness", "sharpness"],
    }
    trajectory, found = run(
        project,
        {
            "model": {"name": "mlp", "width": 32, "depth": 2, "activation": "tanh"},
            "loss": {"name": "mse"},
            "optimizer": {"name": "adam"},
            "step_size": 0.001,
            "snapshot_every": 25,
        },
        profile={
            "max_steps": 800,
            "preprocessing": {"scale": "unit", "standardise": "per_channel", "statistics": "subset"},
        },
        diagnose={"effective_sharpness": SOLVE, "sharpness": SOLVE},
        figures={"adam": figure},
    )
    assert trajectory["stability_threshold"].to_numpy() == pytest.approx(38 / 0.001)
    late = found["effective_sharpness"]["effective_sharpness"].iloc[-12:].mean() / (38 / 0.001)
    assert 0.9 < late < 1.1
    assert load_json(project / "stages/train/mine/mine/run.json")["preconditioned"]
    assert "38/η" in (project / "figures/adam/adam.svg").read_text("utf-8")
    drawn = load_table(project / "figures/adam/table.csv")
    assert set(drawn["panel"]) == {"loss", "effective_sharpness", "sharpness"}


def test_regression_on_numbers_with_a_test_split(project: Path) -> None:
    trajectory, found = run(
        project,
        {"loss": {"name": "mse"}, "stop": {"max_steps": 30}, "step_size": 0.05},
        profile={"data": {"name": "chebyshev", "n_examples": 20, "degree": 3, "n_test": 11}, "preprocessing": None},
        diagnose={"test_split": {"every": 10}},
    )
    assert trajectory["accuracy"].isna().all()
    assert trajectory["loss"].iloc[-1] < trajectory["loss"].iloc[0]
    power = 0.5  # of T₃ on the grid, about: R² = 1 − loss / (half of its variance)
    assert (1 - trajectory["r2"] - 2 * trajectory["loss"] / power).abs().max() < 0.2
    assert list(found["test_split"]["step"]) == [0, 10, 20, 30]
    assert (found["test_split"]["test_loss"] > 0).all()


def test_a_convolutional_network_with_batch_norm_and_observed_steps(project: Path) -> None:
    figure = {"name": "trajectories", "of": "mine", "title": "CNN", "panels": ["loss", "gradient_cosine"]}
    trajectory, found = run(
        project,
        {
            "model": {"name": "cnn", "width": 4, "batch_norm": "whole"},
            "stop": {"max_steps": 5},
            "observe": {"path": {}},
        },
        profile={"data": {"name": "digits", "n_examples": 40}},
        diagnose={"sharpness": SOLVE},
        figures={"cnn": figure},
    )
    assert trajectory["distance_from_start"].iloc[0] == 0
    assert trajectory["distance_from_start"].iloc[-1] != 0
    assert found["sharpness"]["sharpness"].notna().all()

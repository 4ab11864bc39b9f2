"""What is observed at every iteration: recorded with it, drawn and judged, and the same after an interruption."""

from __future__ import annotations

from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eosrepro.config.load import load
from eosrepro.core.columns import computed_by
from eosrepro.core.problem import function_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Position, Row, Stop, Visited
from eosrepro.errors import ConfigError
from eosrepro.observations.path import path
from eosrepro.optimizers.gd import gd
from eosrepro.problems.quadratic import quadratic
from eosrepro.records import resuming
from eosrepro.records.runs import load_record
from eosrepro.records.series import series
from eosrepro.stages.check import check
from eosrepro.stages.data import make_data
from eosrepro.stages.figure import draw
from eosrepro.stages.train import train
from eosrepro.stages.verify import verify
from eosrepro.views.mlflow.points import trajectory_points
from tests.conftest import small_problem
from tests.project import alone, small_params, write_params

OWN = [*Row(0, *[0.0] * 9).columns]


def test_the_path_is_as_numpy_has_it() -> None:
    objective, theta = small_problem()
    kept: list[Position] = []
    rows = list(minimise(objective, theta, gd(0.5), stop=Stop(20), on_iterate=kept.append, observe=[path]))
    thetas = np.array([at.theta.numpy() for at in kept])
    grads = np.array([objective.value_and_grad(at.theta).grad.numpy() for at in kept])
    cosines = (grads[:-1] * grads[1:]).sum(1) / np.linalg.norm(grads[:-1], axis=1) / np.linalg.norm(grads[1:], axis=1)

    found = pd.DataFrame([row.columns for row in rows])
    assert [*found] == [*OWN, "distance_from_start", "gradient_cosine"]
    np.testing.assert_allclose(found["distance_from_start"][:-1], np.linalg.norm(thetas - thetas[0], axis=1)[:-1])
    np.testing.assert_allclose(found["gradient_cosine"][:-1], cosines, rtol=1e-10)
    assert found.iloc[-1][["distance_from_start", "gradient_cosine"]].isna().all()


def test_past_the_edge_of_a_quadratic_the_gradient_flips() -> None:
    objective, theta = function_problem(quadratic(curvatures=(20.0, 1.0)), [0.1, 0.0])
    rows = list(minimise(objective, theta, gd(2 / 39), stop=Stop(10), observe=[path]))
    assert [row.observed["gradient_cosine"] for row in rows[:-1]] == pytest.approx([-1.0] * 10)
    assert rows[1].observed["distance_from_start"] == pytest.approx(0.1 * (1 + 41 / 39))  # θ₁ is multiplied by −41/39


def test_what_is_observed_sees_both_iterates_and_the_start() -> None:
    objective, theta = small_problem()
    seen: list[tuple[Visited, Visited]] = []

    def look(here: Visited, following: Visited, *, power: int) -> dict[str, float]:
        seen.append((here, following))
        return {"change": (following.loss - here.loss) ** power}

    rows = list(minimise(objective, theta, gd(0.5), stop=Stop(3), observe=[partial(look, power=2)]))
    assert [(here.step, following.step) for here, following in seen] == [(0, 1), (1, 2), (2, 3)]
    for here, following in seen:
        assert torch.equal(following.theta, here.theta - 0.5 * here.grad)
        assert torch.equal(following.grad, objective.value_and_grad(following.theta).grad)
        assert here.start is theta
    assert [row.loss for row in rows[:-1]] == [here.loss for here, _ in seen]
    assert rows[1].observed == {"change": (rows[2].loss - rows[1].loss) ** 2}


def test_it_changes_nothing_else() -> None:
    objective, theta = small_problem()
    without = list(minimise(objective, theta, gd(0.5), stop=Stop(5)))
    observed = list(minimise(objective, theta, gd(0.5), stop=Stop(5), observe=[path]))
    assert [{name: row.columns[name] for name in OWN} for row in observed][:-1] == [row.columns for row in without][:-1]
    assert without[0].columns.keys() == set(OWN)


def test_a_run_that_takes_no_step_has_the_columns_too() -> None:
    objective, theta = small_problem()
    (row,) = minimise(objective, theta, gd(0.5), stop=Stop(0), observe=[path])
    assert [*row.observed] == ["distance_from_start", "gradient_cosine"]
    assert all(map(isnan, row.observed.values()))


@pytest.mark.parametrize("observe", [[path, path], [lambda *_: {"loss": 1.0}], [lambda *_: {"step": 1.0}]])
def test_a_name_that_is_taken_is_refused(observe: Any) -> None:
    objective, theta = small_problem()
    with pytest.raises(ConfigError, match="has a name that is taken"):
        next(minimise(objective, theta, gd(0.5), stop=Stop(5), observe=observe))


def test_a_row_and_its_columns_are_the_same() -> None:
    row = Row(3, 1.0, 0.5, 2.0, 1.0, 0.5, 1.0, -0.9, 0.5, 60.0, {"mine": nan, "yours": 2.0})
    again = Row.of(row.columns)
    assert [*again.columns] == [*OWN, "mine", "yours"]
    assert repr(again) == repr(row)  # in which NaN is NaN


# --- from params.yaml -------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: one small network, its data made, a checkpoint at every iterate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    monkeypatch.setattr(resuming, "CHECKPOINT_SECONDS", 0.0)
    return tmp_path


def written(folder: Path, observe: Any, **changes: Any) -> None:
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"] |= {"observe": observe, "vary": {"step_size": ["2/30"]}, "diagnose": {}}
    write_params(folder, params | {"diagnose": {}} | changes)


def trained(folder: Path) -> Path:
    config = load()
    check(config)
    make_data(config)
    train(config, "exp3", jobs=1)
    return folder / "stages/train/exp3/exp3_2over30"


LOSS_CHANGE = '''
"""By how much the loss changes."""

from dataclasses import dataclass

from eosrepro.core.types import Visited


@dataclass(frozen=True)
class Change:
    loss_change: float


def loss_change(here: Visited, following: Visited, *, factor: float = 1.0) -> Change:
    """factor · (f(θ_{t+1}) − f(θ_t))."""
    return Change(factor * (following.loss - here.loss))
'''
CLAIMS = """
statements:
  falls: {claim: "the loss falls", quantity: loss_change, statistic: max, bound: [~, 0]}
claims:
  - {source: mine, of: exp3, falls: }
"""


def test_a_quantity_of_ones_own_is_one_file_and_is_recorded_drawn_and_judged(project: Path) -> None:
    (project / "members/observations").mkdir(parents=True)
    (project / "members/observations/loss_change.py").write_text(LOSS_CHANGE)
    (project / "papers/mine").mkdir(parents=True)
    (project / "papers/mine/claims.yaml").write_text(CLAIMS)
    figure = {"name": "trajectories", "of": "exp3", "title": "Mine", "panels": ["loss_change", "gradient_cosine"]}
    observe = {"loss_change": {"factor": 2.0}, "path": {}}
    written(project, observe, figures={"mine": figure}, paper="papers/mine")
    record = load_record(trained(project))
    table, config = record.trajectory, load()

    assert [*table] == [*OWN, "loss_change", "distance_from_start", "gradient_cosine"]
    np.testing.assert_allclose(table["loss_change"][:-1], 2 * np.diff(table["loss"]), rtol=1e-12)
    assert len(series(record, "gradient_cosine")) == len(table) - 1
    draw(config, "mine")
    assert set(pd.read_csv(project / "figures/mine/table.csv")["panel"]) == {"loss_change", "gradient_cosine"}
    verify(config)
    assert "the loss falls" in (project / "stages/verify/claims.md").read_text("utf-8")
    points = [point for point in trajectory_points(record, 20) if point.name == "train/loss_change"]
    assert [point.value for point in points] == table["loss_change"][:-1].to_list()


@pytest.mark.parametrize("until", [0, 1, 7, 9])
def test_an_interrupted_training_records_the_same_to_the_byte(
    until: int, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(project, ["path"])
    whole = {file.name: file.read_bytes() for file in trained(project).iterdir() if file.is_file()}
    for folder in ("stages/train", "stages/store"):
        (project / folder).rename(project / f"{folder}_of_the_first")

    before = resuming.Training.keep

    def keep(self: resuming.Training, at: Position) -> None:
        before(self, at)
        if at.step == until:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming.Training, "keep", keep)
        with pytest.raises(KeyboardInterrupt):
            trained(project)
    assert "Going on" not in capsys.readouterr().err
    again = {file.name: file.read_bytes() for file in trained(project).iterdir() if file.is_file()}
    assert f"Going on from iteration {until}" in capsys.readouterr().err
    assert again == whole
    assert b"gradient_cosine" in whole["trajectory.csv"]


@pytest.mark.parametrize(
    ("observe", "panel", "words"),
    [
        (["pth"], "loss", "exp3.observe.pth: no 'pth'"),
        ({"path": {"power": 2}}, "loss", "exp3.observe.path.power"),
        ("path", "loss", "exp3.observe: found 'path', should be a mapping"),
        ([], "gradient_cosine", "figures.mine.panels: exp3_2over30 has no 'gradient_cosine'"),
        (["path"], "gradient_cosin", "has no 'gradient_cosin'; did you mean 'gradient_cosine'?"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(observe: Any, panel: str, words: str, project: Path) -> None:
    figure = {"name": "trajectories", "of": "exp3", "title": "Mine", "panels": [panel]}
    written(project, observe, figures={"mine": figure})
    with pytest.raises(ConfigError) as caught:
        load()
    assert words in str(caught.value)


def test_a_row_that_is_imported_for_type_checkers_alone_is_named() -> None:
    def found(_here: Any, _following: Any) -> Absent:  # type: ignore[name-defined]  # noqa: F821
        raise NotImplementedError

    with pytest.raises(ConfigError, match=r"returns Absent, and name 'Absent' is not defined: import it when"):
        computed_by(found)

"""Two runs side by side: settings that differ, measures, and curves in units of each run's own 2/η."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from eosrepro.cli import main
from eosrepro.config.load import load, read_params
from eosrepro.records.runs import Record
from eosrepro.stages import track
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.train import train
from eosrepro.tools import compare
from tests.project import alone, small_params, write_params
from tests.records import record, unstable

A, B = "example1_2over39", "example1_2over41"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which two runs of a problem have been trained, and the sharpness of one measured."""
    folder = tmp_path_factory.mktemp("compare")
    params = alone(small_params(), "example1", "exp3")
    params["experiments"]["example1"]["vary"] = {"step_size": ["2/39", "2/41"]}
    write_params(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(track, "_is_worth_mlflow", lambda _started: False)
        train(load(), "example1", jobs=1)
        diagnose(load(), A, jobs=1)
    return folder


@pytest.fixture
def problems(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def test_runs_are_drawn_in_units_of_their_own_threshold() -> None:
    runs = [unstable(30), unstable(90)]
    figure, table = compare.draw([run_with_origin(each) for each in runs], ["step_size"])
    for each in runs:
        for quantity, recorded in (
            ("directional_smoothness", each.trajectory),
            ("sharpness", each.measured["sharpness"].table),
        ):
            drawn = table[(table["run"] == each.name) & (table["panel"] == quantity)]["value"]
            np.testing.assert_allclose(drawn, recorded[quantity].dropna() / each.thresholds.iloc[0])
        loss = table[(table["run"] == each.name) & (table["panel"] == "loss")]["value"]
        np.testing.assert_array_equal(loss, each.trajectory["loss"].dropna())
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == [
        "training loss",
        "relative progress",
        "directional smoothness\nin units of 2/η",
        "sharpness\nin units of 2/η",
    ]
    assert figure.get_suptitle() == "Runs that differ in step_size; relative progress cut at ±2\nnoise, N = 40"


def run_with_origin(published: Record) -> Record:
    return record(
        published.trajectory, name=published.name, step_size=str(published.step_size), sharpness=published.sharpness
    )


def test_a_spike_of_rp_does_not_flatten_all_else() -> None:
    rows = {
        "loss": [2.0, 1.0, 0.5],
        "relative_progress": [-1.0, 60.0, np.nan],
        "directional_smoothness": [1, 2, np.nan],
    }
    figure, table = compare.draw([record(rows, name="spiked"), record(rows, name="too")], [])
    assert figure.axes[1].get_ylim() == (-2, 2)
    assert table[table["panel"] == "relative_progress"]["value"].max() == 60
    assert figure.get_suptitle().startswith("Runs of equal settings; relative progress cut at ±2\n")


def test_the_command_tells_and_draws(problems: Path) -> None:
    done = run(A, B)
    assert done.exit_code == 0, done.stderr
    assert "2 settings differ" not in done.stdout
    assert "1 setting differs" in done.stdout
    assert "2/39" in done.stdout
    assert "L after onset, mean over its threshold" in done.stdout
    place = problems / f"stages/compare/{A}_{B}"
    assert done.stdout.endswith(f"wrote stages/compare/{A}_{B}/{A}_{B}.png\n")
    assert {path.suffix for path in place.iterdir()} == {".png", ".svg", ".csv"}
    said = f"Warning: the sharpness of {B} has not been measured since it was trained: run `eosrepro diagnose {B}`\n"
    assert done.stderr == said


@pytest.mark.usefixtures("problems")
def test_json_holds_the_same_and_nothing_else_is_on_stdout() -> None:
    done = run(A, B, "--json")
    told = json.loads(done.stdout)
    assert told["runs"] == [A, B]
    assert told["settings"] == {"step_size": {A: "2/39", B: "2/41"}}
    assert told["measures"]["sharpness in the last half, mean over its threshold"][A] == pytest.approx(
        40 / 39, rel=1e-3
    )
    assert told["measures"]["sharpness in the last half, mean over its threshold"][B] is None
    assert told["figure"] == f"stages/compare/{A}_{B}/{A}_{B}.png"


def test_a_record_of_other_settings_is_told(problems: Path) -> None:
    params = read_params()
    params["experiments"]["example1"]["start"] = [0.3, 0.3]
    write_params(problems, params)
    done = run(A, B)
    said = "trained with start [0.1, 0.1], now [0.3, 0.3]. This is as it was recorded"
    assert f"Warning: {A}, {B}: {said}" in done.stderr
    assert "1 setting differs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "wanted"),
    [
        ([], 2, "name two runs or more, each once"),
        ([A], 2, "name two runs or more, each once"),
        ([A, A], 2, "name two runs or more, each once"),
        ([A, "example1_2ver41"], 2, f"no run 'example1_2ver41'; did you mean '{B}'?"),
        ([A, "exp3_2over30"], 1, "run.json does not exist: run `dvc repro`"),
    ],
)
@pytest.mark.usefixtures("problems")
def test_what_cannot_be_compared(arguments: list[str], exit_code: int, wanted: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert wanted in done.stderr


def test_names_of_many_runs_make_no_name_that_is_too_long() -> None:
    assert compare._joined([A, B]) == f"{A}_{B}"
    assert compare._joined([f"{A}_{i}" for i in range(20)]) == f"{A}_0_and_19_more"

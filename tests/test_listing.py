"""What is up to date is what DVC says, and an unfinished stage says how far it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from dvc.repo import Repo

from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.core.types import Position, Row
from eosrepro.errors import StoreError
from eosrepro.records import resuming
from eosrepro.records.files import load_json, save_checkpoint, save_json, save_text
from eosrepro.records.places import CODE, diagnostics_folder, train_folder
from eosrepro.stages import track
from eosrepro.stages.check import check, digests
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.figure import draw
from eosrepro.stages.train import train
from eosrepro.tools import listing
from eosrepro.tools.listing import State
from tests.project import small_params, write_params, write_project

TRAIN, DIAGNOSE, FIGURE = "train@example1", "diagnose@example1", "figure@example1"
MADE = ("check", "data", TRAIN, DIAGNOSE, FIGURE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which DVC knows a problem and its figure as up to date, and nothing else."""
    folder = tmp_path_factory.mktemp("listing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(track, "_is_worth_mlflow", lambda _started: False)
        write_project(folder)
        check(load())
        make_data(load())
        train(load(), "example1", jobs=1)
        diagnose(load(), "example1", jobs=1)
        draw(load(), "example1")
        with Repo.init(no_scm=True) as repo:
            for stage in MADE:  # as if `dvc repro` had run it
                repo.commit(stage, force=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change, the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def states() -> dict[str, State]:
    """By stage."""
    return {stage: state for entry in listing.entries(load()) for stage, state in entry.states.items()}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["list", *arguments])


def append(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write("\n")

    return change


def set_param(*keys: str, to: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        params = small_params()
        place = params
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        write_params(folder, params)

    return change


def change_command(folder: Path) -> None:
    path = folder / "dvc.yaml"
    path.write_text(path.read_text().replace("eosrepro train ", "nice eosrepro train "))


def change_code(folder: Path) -> None:
    """As the stage `check` does where the code behind a training is another."""
    save_json(folder / CODE, load_json(folder / CODE) | {"train": {"example1": {"example1_2over39": "other"}}})


@pytest.mark.parametrize(
    ("change", "stage", "state"),
    [
        pytest.param(lambda _folder: None, TRAIN, State("up to date"), id="nothing"),
        pytest.param(
            set_param("experiments", "example1", "start", to=[0.2, 0.1]),
            TRAIN,
            State("changed", "experiments.example1"),
            id="a setting",
        ),
        pytest.param(set_param("mlflow", "window", to=5), FIGURE, State("up to date"), id="a setting of others"),
        pytest.param(change_code, TRAIN, State("changed", "train.example1"), id="the code"),
        pytest.param(
            lambda folder: shutil.rmtree(folder / "figures"),
            FIGURE,
            State(
                "changed",
                "figures/example1/example1.svg deleted, figures/example1/table.csv deleted, "
                "figures/example1/example1.png deleted",
            ),
            id="an output is gone",
        ),
        pytest.param(
            append("figures/example1/table.csv"),
            FIGURE,
            State("changed", "figures/example1/table.csv"),
            id="one is altered",
        ),
        pytest.param(change_command, TRAIN, State("changed", "its command"), id="the command"),
        pytest.param(
            lambda folder: (folder / "dvc.lock").unlink(),
            FIGURE,
            State("changed", "made without `dvc repro`"),
            id="DVC knows nothing",
        ),
    ],
)
def test_what_is_up_to_date_is_what_dvc_says(
    change: Callable[[Path], None], stage: str, state: State, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project)
    monkeypatch.setattr(listing, "digests", lambda _declared: load_json(CODE))
    found = states()
    assert found[stage] == state
    with Repo() as repo:
        stale = repo.status().keys() - {"check"}  # which DVC runs each time
    assert {name for name, each in found.items() if each.word not in ("up to date", "behind")} == stale


@pytest.mark.usefixtures("project")
def test_what_was_never_made() -> None:
    found = states()
    assert {stage for stage, state in found.items() if state == State("up to date")} == set(MADE)
    assert {state for stage, state in found.items() if stage not in MADE} == {State("never made")}


def test_what_hangs_on_a_stage_that_is_to_run_is_behind(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edited code is told before `check` has looked at it; what only that runs is behind no stage."""
    found = digests(load())
    monkeypatch.setattr(listing, "digests", lambda _declared: found | {"train": {"example1": "edited"}})
    assert states()[TRAIN] == State("changed", "train.example1")
    assert states()[FIGURE] == states()[DIAGNOSE] == State("behind", f"after {TRAIN}")
    assert states()["check"] == State("up to date")
    assert project.exists()


def keep_a_training(place: Path, steps: int) -> None:
    so_far = resuming.Training(place, 5)
    for step in range(steps):
        so_far.rows.append(Row(step, *[0.0] * 9))
        so_far.keep(Position(step + 1, torch.zeros(3), None))
    so_far.checkpoint()


@pytest.mark.usefixtures("project")
def test_an_unfinished_stage_says_how_far_it_is() -> None:
    trained = train_folder("exp3", "exp3_2over30")
    measured = diagnostics_folder("exp3", "exp3_2over30") / "tau_scan"
    with suppress(KeyboardInterrupt), resuming.unfinished(trained, "key") as place:
        keep_a_training(place, 7)
        assert states()["train@exp3"] == State("running", "at iteration 7")
        raise KeyboardInterrupt
    with suppress(KeyboardInterrupt), resuming.unfinished(measured, "key") as place:
        save_checkpoint(place / "from_0000000", {"snapshots": [], "rows": [{"step": 0}, {"step": 1_005}]})
        raise KeyboardInterrupt
    found = states()
    assert found["train@exp3"] == State("unfinished", "at iteration 7")
    assert found["diagnose@exp3"] == State("unfinished", "at iteration 1,005")
    assert found[TRAIN] == State("up to date")


@pytest.mark.usefixtures("project")
def test_a_comparison_makes_nothing_out_of_date() -> None:
    before = states()
    save_text(Path("stages/compare/a_b/table.csv"), "step\n")
    assert states() == before


@pytest.mark.usefixtures("project")
def test_the_command_lists_all_of_params_yaml() -> None:
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["example1", "1", "run:", "2/39", *["up", "to", "date", "up", "to", "date"]] in lines
    assert ["exp3", "2", "runs:", "2/10,", "2/30", *["never", "made", "never", "made"]] in lines
    assert ["example1", "example1_2over39", "up", "to", "date"] in lines
    assert ["exp5", "exp3_2over30", "never", "made"] in lines
    assert done.stdout.rstrip().endswith("`dvc repro STAGE`, such as figure@exp3, a part")


@pytest.mark.usefixtures("project")
def test_json_lists_the_same() -> None:
    told = json.loads(run("--json").stdout)
    stages = {FIGURE: vars(State("up to date"))}
    assert {"kind": "figure", "name": "example1", "about": "example1_2over39", "stages": stages} in told
    declared = load()
    named = [entry["name"] for entry in told if entry["kind"] != "other"]
    assert named == [*declared.experiments, *declared.figures]


def test_a_folder_that_dvc_does_not_know_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"DVC cannot read this project .*: run `dvc init`"), listing.project():
        pass

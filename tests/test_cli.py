"""The command line: what a person sees, and that a mistake costs nothing that is recorded."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from dvc.repo import Repo
from mlflow import MlflowClient

from eosrepro.cli import main
from eosrepro.config.load import load, read_params
from eosrepro.records.files import load_json, load_table
from eosrepro.records.runs import load_record
from eosrepro.stages import build, diagnose, track, train
from eosrepro.views.mlflow import live, server
from eosrepro.views.mlflow.connection import NO_FOLDER, WarnAndContinue, store_uri
from eosrepro.views.mlflow.live import LiveRun
from eosrepro.views.mlflow.live import open_run as open_run_of_stage
from tests.project import PARAMS, ROOT, RUNS, alone, environment, small_params, write_params, write_project
from tests.test_config import BROKEN

PROBLEM = "example1_2over39"
CLOSED_PORT = "http://127.0.0.1:9"  # an MLflow that is away


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with claims and published curves, and no params.yaml."""
    write_project(tmp_path)
    (tmp_path / "params.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED_PORT)
    monkeypatch.setenv("EOSREPRO_JOBS", "1")  # to start others takes seconds
    return tmp_path


@pytest.fixture
def small(folder: Path) -> dict[str, Any]:
    """The same with a params.yaml of small runs, returned."""
    params = small_params()
    write_params(folder, params)
    return params


@pytest.fixture
def recorded(folder: Path) -> Callable[[], dict[str, bytes]]:
    """Outputs of an earlier run; the fixture's value reads them all."""
    run = Path("exp3/exp3_2over30")
    for name in (
        "stages/data/dataset.safetensors",
        "stages/data/provenance.json",
        f"stages/train/{run}/snapshots/0000000.safetensors",
        f"stages/train/{run}/trajectory.csv",
        f"stages/train/{run}/summary.json",
        f"stages/diagnostics/{run}/sharpness.csv",
        "stages/verify/claims.json",
        "figures/exp3/exp3.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of an earlier run")
    return lambda: contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for top in ("stages", "figures") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def edited(old: str, new: str) -> str:
    """The small params.yaml with the first `old` replaced."""
    text = PARAMS.read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1)


def write_claims(folder: Path, statements: dict[str, Any], *claims: dict[str, Any]) -> None:
    """Add these to what the paper of the project says."""
    written = read_params(folder / "papers/small/claims.yaml")
    written["statements"] |= statements
    written["claims"] += claims
    write_params(folder / "papers/small", written, "claims.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def message(result: Result, exit_code: int) -> str:
    """What stands on stderr of a command that failed with a message and nothing else."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


# --- mistakes in params.yaml ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fragments"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN])
def test_a_broken_file_is_refused_with_its_place_and_what_is_allowed_and_leaves_what_is_recorded(
    text: str | None, fragments: list[str], folder: Path, recorded: Callable[[], dict[str, bytes]]
) -> None:
    before = recorded()
    if text is not None:
        (folder / "params.yaml").write_text(text, encoding="utf-8")
    said = message(run("train", "exp3_2over30"), exit_code=2)
    assert said.startswith("Error: ")
    assert all(line.startswith(("params.yaml", "  ")) for line in said.removeprefix("Error: ").splitlines())
    assert [fragment for fragment in fragments if fragment not in said] == []
    assert recorded() == before


@pytest.mark.parametrize(
    "command",
    [
        "data",
        "train exp3",
        "diagnose exp3_2over30",
        "figure exp3",
        "verify",
        "report",
        "track",
        "track exp3_2over30",
        "gc",
        "check",
        "list",
        "list --json",
        "compare exp3_2over30 exp2_2over300",
        "config show exp3_2over30",
        "config show exp3_2over30 --json",
        "config check",
    ],
)
def test_every_command_reads_all_of_params_yaml_first(
    command: str, folder: Path, recorded: Callable[[], dict[str, bytes]]
) -> None:
    before = recorded()
    (folder / "params.yaml").write_text(edited("threads: 1", "threads: 0"), encoding="utf-8")
    assert message(run(*command.split()), exit_code=2) == (
        "Error: params.yaml: compute.threads: found 0, should be greater than 0\n"
    )
    assert recorded() == before


def test_a_process_of_its_own_says_the_same(folder: Path, recorded: Callable[[], dict[str, bytes]]) -> None:
    before = recorded()
    (folder / "params.yaml").write_text(edited("threads: 1", "threads: 0"), encoding="utf-8")
    program = Path(sys.executable).parent / "eosrepro"
    command = [program, "train", "exp3_2over30"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: params.yaml: compute.threads: found 0, should be greater than 0\n"
    assert recorded() == before


# --- mistakes on the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("train exp3_2ovr30", "no experiment and no run 'exp3_2ovr30'; did you mean 'exp3_2over30'?"),
        ("diagnose exmple1", "no experiment and no run 'exmple1'; did you mean 'example1'?"),
        ("config show exp2_2over30", "no run 'exp2_2over30'; did you mean"),
        ("track exp8_2ver50", "no experiment and no run 'exp8_2ver50'; did you mean 'exp8_2over50'?"),
        ("compare exp3_2over3 exp3_2over10", "no run 'exp3_2over3'; did you mean 'exp3_2over30'?"),
        ("train exp3 --jobs 0", "--jobs"),
        ("diagnose exp3 --jobs two", "--jobs"),
        ("figure exmple1", "no figure 'exmple1'; did you mean 'example1'?"),
        ("trian exp3_2over30", "no command 'trian'; did you mean 'train'?"),
        ("config chek", "no command 'chek'; did you mean 'check'?"),
        ("measure exp5", "no command 'measure'"),
        ("train", "Missing argument 'RUNS'"),
        ("train --runs", "No such option"),
        ("ui --port 99999", "--port"),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_mistyped_name_is_answered_with_the_nearest(
    command: str, wanted: str, recorded: Callable[[], dict[str, bytes]]
) -> None:
    before = recorded()
    assert wanted in message(run(*command.split()), exit_code=2)
    assert recorded() == before


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train exp3_2over30", "stages/data/provenance.json does not exist: run `dvc repro`"),
        ("diagnose exp3_2over30", "stages/data/provenance.json does not exist: run `dvc repro`"),
        (
            "diagnose example1_2over39",
            "stages/train/example1/example1_2over39/run.json does not exist: run `dvc repro`",
        ),
        ("figure exp3", "run.json does not exist: run `dvc repro`"),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_stage_before_its_turn_says_what_is_missing(command: str, missing: str) -> None:
    said = message(run(*command.split()), exit_code=1)
    assert missing in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("small")
def test_claims_about_runs_that_do_not_exist_are_not_applicable(folder: Path) -> None:
    done = run("verify")
    assert done.exit_code == 0
    verdicts = load_json(folder / "stages/verify/claims.json")
    assert verdicts.keys() == load().claims.keys()
    assert {verdict["verdict"] for verdict in verdicts.values()} == {"not applicable"}
    assert verdicts[f"{PROBLEM}_leaves"]["reason"] == "example1_2over39 has not been run: `dvc repro` runs it"
    counts = load_json(folder / "stages/verify/summary.json")
    assert counts == {"holds": 0, "fails": 0, "not applicable": len(verdicts)}
    assert done.stdout == f"claims: 0 holds, 0 fails, {len(verdicts)} not applicable; see stages/verify/claims.md\n"


@pytest.mark.usefixtures("small")
def test_altered_data_are_not_trained_on(folder: Path) -> None:
    assert run("data").exit_code == 0
    path = folder / "stages/data/dataset.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    said = message(run("train", "exp3_2over30"), exit_code=1)
    assert "stages/data/dataset.safetensors is truncated or altered" in said


def test_without_a_gpu_cuda_is_refused_and_nothing_is_lost(
    folder: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("data").exit_code == 0
    snapshots = folder / "stages/train/exp3/exp3_2over30/snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / "0000000.safetensors").write_text("of an earlier run")
    before = contents(folder)

    monkeypatch.setattr(build.torch.cuda, "is_available", lambda: False)
    write_params(folder, small | {"compute": small["compute"] | {"device": "cuda"}})
    *warnings, error = message(run("train", "exp3_2over30"), exit_code=2).splitlines()
    assert error == "Error: compute.device is cuda, and PyTorch finds no GPU here: set it to cpu or auto"
    assert all(line.startswith("Warning: MLflow") for line in warnings)
    assert contents(folder) == before


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store_of_the_project(folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is where it is by default."""
    shutil.copy(empty_store, folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def test_track_succeeds_when_mlflow_has_everything_and_not_before(
    folder: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(WarnAndContinue, "_warned", set())
    assert run("train", "example1_2over39").exit_code == 0
    assert run("diagnose", "example1_2over39").exit_code == 0
    error = "Error: MLflow does not have everything: see the warnings above\n"
    WarnAndContinue._warned.clear()  # a new process knows of no earlier warning
    said = message(run("track"), exit_code=1)
    assert said.startswith(f"Warning: MLflow at {CLOSED_PORT} cannot be used (")
    assert said.endswith(error)

    request.getfixturevalue("store_of_the_project")
    before = contents(folder)
    for arguments in ([], ["example1_2over39"], []):
        done = run("track", *arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == "MLflow is up to date with the recorded files\n"
    assert contents(folder) == before

    small["experiments"]["example1"]["start"] = [0.2, 0.1]
    write_params(folder, small)
    said = message(run("track"), exit_code=1)
    other = "start [0.1, 0.1], now [0.2, 0.1]"
    assert said == f"Warning: example1_2over39 was trained with {other}: run `dvc repro`\n{error}"
    assert contents(folder) == before


@pytest.mark.usefixtures("small", "store_of_the_project")
def test_track_of_what_was_not_run(folder: Path) -> None:
    assert run("track").exit_code == 0
    assert "stages/train/example1/example1_2over39/run.json does not exist: run `dvc repro`" in message(
        run("track", "example1_2over39"), exit_code=1
    )
    assert contents(folder) == {}


@pytest.mark.usefixtures("store_of_the_project")
def test_ui_on_a_port_that_is_taken_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.os, "execve", lambda *_args: pytest.fail("the server would have started"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = message(run("ui", "--port", str(port)), exit_code=1)
    assert said == f"Error: port {port} is taken: choose another, `eosrepro ui --port {port + 1}`\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses at which the MLflow UI would have been started."""
    stores: list[str] = []
    monkeypatch.setattr(server.os, "execve", lambda *started: stores.append(started[2]["MLFLOW_BACKEND_STORE_URI"]))
    return stores


def test_ui_brings_mlflow_up_to_date_first(
    folder: Path, small: dict[str, Any], served: list[str], empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "example1_2over39").exit_code == 0
    shutil.copy(empty_store, folder)  # as after `dvc pull` in a clone: the files are there, MLflow is empty
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    done = run("ui", "--port", str(free_port()))
    assert (done.exit_code, done.stderr) == (0, "")
    assert served == [store_uri()]
    client = MlflowClient(served[0])
    experiment = client.get_experiment_by_name(small["mlflow"]["experiment"])
    assert experiment is not None
    assert [each.info.run_name for each in client.search_runs([experiment.experiment_id])] == ["example1_2over39"]
    assert f"/#/experiments/{experiment.experiment_id}/runs?" in done.stdout


@pytest.mark.usefixtures("store_of_the_project")
def test_ui_opens_where_it_cannot_bring_mlflow_up_to_date(folder: Path, served: list[str]) -> None:
    (folder / "params.yaml").write_text("profile: [")
    done = run("ui", "--port", str(free_port()))
    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: params.yaml, line 1, column 11: not valid YAML")
    assert served == [store_uri()]


@pytest.mark.usefixtures("small")
def test_ui_of_a_store_that_cannot_be_used_is_one_message(served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    said = message(run("ui", "--port", str(free_port())), exit_code=1)
    assert said.startswith("Error: file:./mlruns cannot be used (")
    assert said.endswith(f"): {NO_FOLDER}\n")
    assert (said.count("\n"), served) == (1, [])


@pytest.mark.usefixtures("small")
def test_track_asks_an_mlflow_that_is_away_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("train", "example1_2over39").exit_code == 0
    monkeypatch.setattr(track, "sync_run", lambda *_args, **_options: pytest.fail("each run would wait for it"))
    message(run("track"), exit_code=1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_track_leaves_its_stamp_only_where_mlflow_has_everything(
    folder: Path, request: pytest.FixtureRequest, small: dict[str, Any]
) -> None:
    stamp = folder / "stages/tracked"
    stamp.parent.mkdir()
    stamp.write_text("of an earlier time")
    message(run("track", "--stamp", "stages/tracked"), exit_code=1)
    assert not stamp.exists()
    request.getfixturevalue("store_of_the_project")
    assert run("track", "--stamp", "stages/tracked").exit_code == 0
    assert stamp.read_text() == "MLflow is up to date with the recorded files\n"
    assert small


# --- what works -------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_is_a_result(folder: Path, small: dict[str, Any]) -> None:
    small["experiments"]["example1"]["stop"]["max_steps"] = 20_000
    write_params(folder, small)
    done = run("train", "example1_2over39")
    assert done.exit_code == 0, done.stderr
    assert "example1_2over39: ended by diverged after" in done.stdout
    record = load_record(folder / "stages/train/example1/example1_2over39")
    assert record.summary["reason"] == "diverged"
    assert record.trajectory["step"].iloc[-1] == record.summary["steps"] < 20_000
    assert record.trajectory["loss"].iloc[-1] > 1e100


def test_a_sharpness_of_an_earlier_training_is_not_taken_for_this_one(folder: Path, small: dict[str, Any]) -> None:
    name = PROBLEM
    sharpness = {"claim": "It is 40", "quantity": "sharpness", "statistic": "final", "bound": [39, 41]}
    write_claims(folder, {"is_40": sharpness}, {"source": "Example 1", "of": "example1", "is_40": None})

    def verdict() -> Any:
        assert run("verify").exit_code == 0
        return load_json(folder / "stages/verify/claims.json")[f"{PROBLEM}_is_40"]

    run("train", name)
    assert verdict()["reason"] == f"sharpness of {name} has not been measured since it was trained: " + (
        f"run `eosrepro diagnose {name}`"
    )
    run("diagnose", name)
    assert verdict()["verdict"] == "holds"
    small["experiments"]["example1"]["stop"]["max_steps"] = 7
    write_params(folder, small)
    run("train", name)
    assert verdict()["verdict"] == "not applicable"
    assert "has not been measured since it was trained" in verdict()["reason"]
    run("diagnose", name)
    assert verdict()["verdict"] == "holds"


def test_published_curves_stand_beside_runs_of_their_step_size_alone(folder: Path) -> None:
    params = alone(small_params(), "exp3") | {"paper": "papers/small"}
    claims = read_params(folder / "papers/small/claims.yaml")
    write_params(
        folder / "papers/small", claims | {"claims": [{"source": "x", "of": "exp3", "loss_falls": None}]}, "claims.yaml"
    )
    params["profiles"]["quick"] |= {"published": True, "data": {"name": "digits", "n_examples": 20}}

    def declare(step_size: str) -> None:
        params["experiments"]["exp3"] |= {"diagnose": {}, "vary": {"step_size": {"2over60": step_size}}}
        write_params(folder, params)

    def rows() -> list[list[Any]]:
        assert [run(*command.split()).exit_code for command in ("data", "train exp3_2over60", "verify")] == [0, 0, 0]
        made = load_table(folder / "stages/verify/runs.csv")
        return made[["run", "source", "sharpness passes its threshold at"]].fillna("").to_numpy().tolist()

    declare("2/60")
    assert rows() == [["exp3_2over60", "ours", ""], ["exp3_2over60", "published", 159]]
    declare("2/45")
    run("verify")  # before it is trained anew: the recorded run is still the published one
    assert "published" in load_table(folder / "stages/verify/runs.csv")["source"].to_numpy()
    assert rows() == [["exp3_2over60", "ours", ""]]


@pytest.mark.usefixtures("small")
def test_under_dvc_a_short_training_leaves_mlflow_to_the_last_stage(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    run("data")
    opened: list[str] = []
    open_run = open_run_of_stage

    def count(name: str, *arguments: Any, **settings: Any) -> LiveRun:
        opened.append(name)
        return open_run(name, *arguments, **settings)

    monkeypatch.setattr(live, "open_run", count)
    monkeypatch.setenv("DVC_STAGE", "train@exp3")
    done = run("train", "exp3_2over30")
    assert (done.exit_code, opened) == (0, [])
    assert "MLflow" not in done.stderr
    shutil.rmtree(folder / "stages/store")
    monkeypatch.setattr(track, "SHORT", 0.0)
    run("train", "exp3_2over30")
    assert opened == ["exp3_2over30"]
    shutil.rmtree(folder / "stages/store")
    monkeypatch.setattr(track, "SHORT", 10.0)
    monkeypatch.delenv("DVC_STAGE")
    run("train", "exp3_2over30")
    assert opened == ["exp3_2over30"] * 2
    assert len(load_table(folder / "stages/train/exp3/exp3_2over30/trajectory.csv")) == 11


def test_only_what_is_not_there_is_trained_and_what_is_no_more_declared_goes(
    folder: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    problem = train.problem
    monkeypatch.setattr(train, "problem", lambda run, data: (trained.append(run.name), problem(run, data))[1])

    def train_with(*step_sizes: str) -> list[str]:
        trained.clear()
        small["experiments"]["example1"]["vary"]["step_size"] = [*step_sizes]
        write_params(folder, small)
        done = run("train", "example1")
        assert done.exit_code == 0
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == sorted(
            path.name for path in (folder / "stages/train/example1").iterdir()
        )
        return [*trained]

    assert train_with("2/39") == [PROBLEM]
    before = contents(folder)
    shutil.rmtree(folder / "stages/train/example1")  # as DVC does before it runs a stage
    assert train_with("2/39") == []
    assert contents(folder) == before
    assert train_with("2/39", "2/41") == ["example1_2over41"]
    assert train_with("2/41") == []
    assert train_with("2/39") == []
    assert contents(folder).items() >= before.items()


def test_gc_removes_what_no_profile_asks_for(folder: Path, small: dict[str, Any]) -> None:
    def stored() -> int:
        return len(list((folder / "stages/store").iterdir()))

    for start in ([0.1, 0.1], [0.2, 0.1]):
        small["experiments"]["example1"]["start"] = start
        write_params(folder, small)
        for command in ("train", "diagnose"):
            assert run(command, "example1").exit_code == 0
    placed = contents(folder / "stages/train"), contents(folder / "stages/diagnostics")
    assert stored() == 4
    assert run("gc").stdout.startswith("removed 2 of 4 entries of stages/store, ")
    assert run("gc").stdout == "removed 0 of 2 entries of stages/store, 0 kB\n"
    assert stored() == 2
    assert (contents(folder / "stages/train"), contents(folder / "stages/diagnostics")) == placed
    small["profile"] = "paper"  # another profile asks for it no less
    write_params(folder, small)
    assert run("gc").stdout == "removed 0 of 2 entries of stages/store, 0 kB\n"


def test_gc_keeps_the_runs_of_studies(folder: Path, small: dict[str, Any]) -> None:
    """They are days of work, and no profile names them."""
    write_params(folder, small)
    study = {
        "run": "example1_2over39",
        "vary": {"step size": {"path": "step_size", "values": {"2/50": "2/50"}}},
        "pooled": [],
        "measures": {"loss": {"quantity": "loss", "statistic": "final"}},
    }
    write_params(folder, study, "mine.yaml")
    assert run("sweep", "mine.yaml").exit_code == 0
    assert run("gc").stdout == "removed 0 of 1 entries of stages/store, 0 kB\n"


@pytest.mark.usefixtures("small")
def test_diagnostics_are_taken_on_the_snapshots_of_the_runs_that_they_name(folder: Path) -> None:
    run("data")
    assert run("train", "exp3").stdout.count(": ended by max_steps after 10 steps at loss ") == 2
    done = run("diagnose", "exp3")
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"exp3_2over10: sharpness .+ → .+, at most .+; .+ Hessian products each", first)
    assert re.fullmatch(r"exp3_2over30: sharpness .+ Hessian products each; tau_scan at 3 snapshots", second)
    assert {path.name for path in (folder / "stages/diagnostics/exp3/exp3_2over10").iterdir()} == {
        "sharpness.csv",
        "sharpness.json",
    }
    place = folder / "stages/diagnostics/exp3/exp3_2over30"
    assert load_table(place / "tau_scan.csv")["step"].tolist() == [0, 5, 10]
    assert load_json(place / "tau_scan.json")["settings"] == {"n_taus": 100, "tolerance": 1e-4, "every": 5}
    # The rows stand for the definitions of what the training recorded.
    table = load_table(folder / "stages/train/exp3/exp3_2over30/trajectory.csv")
    scan = load_table(place / "tau_scan.csv")
    assert scan["relative_progress_of_step"][0] == pytest.approx(table["relative_progress"][0], rel=1e-4)
    metrics = load_json(folder / "stages/metrics/exp3.json")
    assert metrics.keys() == {"steps", "loss", "sharpness"}
    assert metrics["steps"] == "10 10"
    assert metrics["loss"].split()[1] == f"{table['loss'].iloc[-1]:.3g}"
    assert metrics["sharpness"].split()[1] == f"{load_table(place / 'sharpness.csv')['sharpness'].iloc[-1]:.3g}"


@pytest.mark.usefixtures("small")
def test_a_value_that_falls_short_of_its_audit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run("train", "example1_2over39")
    audits = {0: 40.0, 1: 44.0, 3: 41.0}

    def short(_objective: Any, points: Iterable[tuple[int, Any]]) -> Iterator[dict[str, float]]:
        for step, *_ in points:
            audit = audits.get(step, float("nan"))
            yield {"step": step, "sharpness": 40.0, "products": 2, "audit_sharpness": audit}

    monkeypatch.setattr(diagnose, "member", lambda *_args: short)
    done = run("diagnose", "example1_2over39")
    assert done.exit_code == 0
    assert "Warning: the sharpness of example1_2over39 falls short of its audit" in done.stderr
    assert "at step 1, 3: lower rtol" in done.stderr


@pytest.mark.usefixtures("small")
def test_a_stage_tells_what_it_made(folder: Path) -> None:
    done = run("data")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "photo-patches: 100 examples of 3 × 32 × 32, 10 classes\n"
    assert {path.name for path in (folder / "stages/data").iterdir()} == {"dataset.safetensors", "provenance.json"}


@pytest.mark.parametrize("name", ["exp3_2over30", "example1_2over39"])
@pytest.mark.usefixtures("small")
def test_config_show_prints_what_determines_the_run(name: str, folder: Path) -> None:
    done = run("config", "show", name)
    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout) == load(folder / "params.yaml").run(name).settings


@pytest.mark.usefixtures("small")
def test_config_show_says_where_the_profile_has_its_way() -> None:
    """The profile of quick runs ends them early, which is to be seen where their settings are."""
    limited = "max_steps is 10: the active profile overrides the 30000 of the experiment\n"
    assert run("config", "show", "exp3_2over30", "--json").stderr == limited
    assert run("config", "show", "example1_2over39").stderr == ""  # a problem runs in full


@pytest.mark.usefixtures("small")
def test_config_show_as_json(folder: Path) -> None:
    done = run("config", "show", "exp3_2over30", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == load(folder / "params.yaml").run("exp3_2over30").settings


@pytest.mark.usefixtures("small")
def test_verify_as_json_prints_the_verdicts_that_it_writes(folder: Path) -> None:
    done = run("verify", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == load_json(folder / "stages/verify/claims.json")


@pytest.mark.usefixtures("folder")
def test_config_members_prints_the_committed_page() -> None:
    done = run("config", "members")
    assert (done.exit_code, done.stdout) == (0, (ROOT / "docs/members.md").read_text(encoding="utf-8"))


def test_config_schema_prints_the_committed_file() -> None:
    done = run("config", "schema")
    assert (done.exit_code, done.stdout) == (0, (ROOT / "params.schema.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("small")
def test_check_names_the_runs_that_claims_are_about_and_no_experiment_has(folder: Path) -> None:
    write_claims(folder, {}, {"source": "Exp 2", "of": ["exp2_2over400", "exp2_2over500"], "loss_falls": None})
    counts = "5 runs, 4 figures, 10 claims (not among the runs now: exp2_2over400, exp2_2over500)"
    assert run("config", "check").stdout == f"params.yaml is valid: {counts}\n"


@pytest.mark.usefixtures("small")
def test_check_counts_and_writes_what_code_is_behind_each_stage(folder: Path) -> None:
    assert run("config", "check").stdout == "params.yaml is valid: 5 runs, 4 figures, 10 claims\n"
    assert contents(folder) == {}
    assert run("check").stdout == "params.yaml is valid: 5 runs, 4 figures, 10 claims\n"
    assert contents(folder).keys() == {"stages/code.json"}
    digests = load_json(folder / "stages/code.json")
    assert [run for runs in digests["train"].values() for run in runs] == [*RUNS]
    assert digests["diagnose"]["exp3"]["exp3_2over30"].keys() == {"sharpness", "tau_scan"}
    assert digests["figure"].keys() == {"example1", "exp3", "exp5", "exp8"}
    assert {"data", "verify", "report", "track"} < digests.keys()


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


@pytest.mark.parametrize(("path", "command"), [pytest.param(*case, id=" ".join(case[0])) for case in commands(main)])
def test_every_command_has_help(path: tuple[str, ...], command: click.Command) -> None:
    done = run(*path, "--help")
    assert done.exit_code == 0
    assert command.help
    assert " ".join(command.help.split()) in " ".join(done.stdout.split())
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert str(parameter.name).upper() in command.help
        else:
            assert getattr(parameter, "help", None), parameter.name


# --- the Tab key ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "incomplete", "wanted"),
    [
        (["train"], "exp3", ["exp3", "exp3_2over10", "exp3_2over30"]),
        (["diagnose"], "exam", ["example1"]),
        (["track"], "exp8", ["exp8"]),
        (["config", "show"], "exp3_", ["exp3_2over10", "exp3_2over30"]),
        (["compare", "exp3_2over10"], "exp3_", ["exp3_2over30"]),
        (["figure"], "ex", ["example1", "exp3", "exp5", "exp8"]),
        (["figure"], "nothing", []),
        ([], "doc", ["doctor"]),
    ],
)
@pytest.mark.usefixtures("small")
def test_experiments_and_recorded_runs_are_completed(
    typed: list[str], incomplete: str, wanted: list[str], folder: Path
) -> None:
    for name in ("exp3_2over10", "exp3_2over30"):
        (folder / "stages/train/exp3" / name).mkdir(parents=True)
    shell = ShellComplete(main, {}, "eosrepro", "_EOSREPRO_COMPLETE")
    assert [item.value for item in shell.get_completions(typed, incomplete)] == wanted


@pytest.mark.parametrize("text", [None, "profile: [", "", "experiments: 3", "figures: {a: {}}", "a: &a [*a]", "\x00"])
def test_a_file_that_cannot_be_read_completes_to_nothing(text: str | None, folder: Path) -> None:
    if text is not None:
        (folder / "params.yaml").write_text(text)
    shell = ShellComplete(main, {}, "eosrepro", "_EOSREPRO_COMPLETE")
    assert shell.get_completions(["train"], "") == []


@pytest.mark.usefixtures("small")
def test_the_tab_key_does_not_wait_for_torch() -> None:
    program = (
        "import sys, atexit; atexit.register(lambda: print({'torch', 'pandas', 'pydantic'} & set(sys.modules)));"
        "from eosrepro.cli import main; main(prog_name='eosrepro')"
    )
    asked = {"_EOSREPRO_COMPLETE": "bash_complete", "COMP_WORDS": "eosrepro train exp3", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment() | asked)
    assert done.stdout.splitlines() == ["plain,exp3", "set()"]
    assert done.stderr == ""


# --- streams of any encoding ------------------------------------------------------------------------------------------

PRINTING = ("list", "config show example1", "train example1", "diagnose example1", "figure example1", "verify",
            "report", "gc", "--help", "train --help")  # fmt: skip
PRINTING_DATA = ("list --json", "verify --json", "config show exp3_2over30 --json", "config schema", "doctor --json")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_prints_in_any_encoding(encoding: str, folder: Path, small: dict[str, Any]) -> None:
    Repo.init(str(folder), no_scm=True).close()
    small["figures"]["example1"]["title"] = small["mlflow"]["paper"] = "Größe 😀 η"
    small["experiments"]["example1"] |= {"vary": {}, "step_size": "2/39"}
    leaves = {"claim": "Größe 😀 η", "quantity": "theta_1", "statistic": "first_outside", "level": 0.5}
    write_claims(folder, {"leaves": leaves})
    write_params(folder, small)
    runner = CliRunner(charset=encoding)
    for command in (*PRINTING, *PRINTING_DATA):
        done = runner.invoke(main, command.split())
        assert isinstance(done.exception, SystemExit | None), (command, done.exception)
        printed = done.stdout_bytes.decode(
            "utf-8" if encoding == "ascii" else encoding
        )  # Click takes one for the other
        assert printed, command
        if command in PRINTING_DATA:
            assert json.loads(printed), command
        if command == "config show example1":
            assert yaml.safe_load(printed) == load(folder / "params.yaml").run("example1").settings
        if command == "list":
            assert ("η = 2/39" if encoding == "utf-8" else r"\u03b7 = 2/39") in printed
        if command == "verify --json":
            assert json.loads(printed)["example1_leaves"]["claim"] == "Größe 😀 η"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_process_in_such_a_locale_says_its_step_size(locale: dict[str, str]) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "eosrepro", "train", "example1_2over39"],
        capture_output=True, text=True, check=False, env=environment() | {"MLFLOW_TRACKING_URI": CLOSED_PORT} | locale,
    )  # fmt: skip
    assert (done.returncode, done.stdout.startswith("example1_2over39: ended by max_steps")) == (0, True), done.stderr
    assert r"2/\u03b7 39" in done.stderr


# --- little is declared -----------------------------------------------------------------------------------------------


def test_stages_make_what_dvc_looks_for_where_nothing_is_declared(folder: Path, small: dict[str, Any]) -> None:
    """The rest of it, a `dvc repro`, is in tests/pipeline."""
    small["experiments"]["example1"]["diagnose"] = {}
    write_params(folder, alone(small, "example1") | {"diagnose": {}})
    for command in ("check", "train example1", "diagnose example1", "verify", "report"):
        assert run(*command.split()).exit_code == 0, command
    assert (folder / f"stages/diagnostics/example1/{PROBLEM}").is_dir()
    assert (folder / "stages/metrics/example1.json").is_file()
    assert (folder / "figures").is_dir()


def test_a_diagnostic_that_finds_a_snapshot_at_the_start_alone_is_told(folder: Path, small: dict[str, Any]) -> None:
    small["experiments"]["exp3"]["diagnose"]["tau_scan"]["every"] = 7
    write_params(folder, small)
    for command in ("data", "train exp3_2over30"):
        assert run(*command.split()).exit_code == 0
    done = run("diagnose", "exp3_2over30")
    assert done.exit_code == 0
    assert done.stdout.endswith("; tau_scan at 1 snapshots\n")
    said = "Warning: tau_scan of exp3_2over30 is found at iteration 0 alone: of its snapshots, one in 5 iterations"
    assert said in done.stderr
    small["experiments"]["exp3"]["diagnose"]["tau_scan"]["every"] = 5
    write_params(folder, small)
    assert "Warning: tau_scan" not in run("diagnose", "exp3_2over30").stderr


def test_an_array_beyond_all_addresses_is_one_line(folder: Path, small: dict[str, Any]) -> None:
    for number in (10**12, 10**18, 2**63 - 8):
        small["profiles"]["quick"]["data"]["n_examples"] = number
        write_params(folder, small)
        said = message(run("data"), exit_code=1)
        assert said.startswith("Error: out of memory (")
        assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["my%20project ünï", "a 'q\"u#[x]*?$HOME;&{b}", "new\nline"])
def test_stages_run_in_a_folder_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, Any]
) -> None:
    place = tmp_path / name
    write_project(place)
    Repo.init(str(place), no_scm=True).close()
    write_params(place, small)
    monkeypatch.chdir(place)
    commands = (
        "data",
        "train exp3_2over30",
        "diagnose exp3_2over30",
        "figure exp5",
        "verify",
        "report",
        "list",
    )
    assert [command for command in commands if run(*command.split()).exit_code] == []


def test_version() -> None:
    assert run("--version").stdout.startswith("eosrepro, version ")


@pytest.mark.usefixtures("small")
def test_looking_at_params_yaml_does_not_wait_for_mlflow() -> None:
    program = (
        "import sys; from eosrepro.cli import main; main(['config', 'check'], standalone_mode=False);"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"

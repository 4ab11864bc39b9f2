"""The command line: what a person sees, and that a mistake costs nothing that is recorded."""

from __future__ import annotations

import json
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
from eosrepro.config.load import load
from eosrepro.records.files import load_json, load_table
from eosrepro.records.runs import load_record
from eosrepro.stages import build, track, workers
from eosrepro.views.mlflow import live, server
from eosrepro.views.mlflow.connection import NO_FOLDER, WarnAndContinue, store_uri
from eosrepro.views.mlflow.live import LiveRun
from eosrepro.views.mlflow.live import open_run as open_run_of_stage
from tests.project import ROOT, all_params, environment, small_params, write_params, write_project
from tests.test_config import BROKEN, edited

CLOSED_PORT = "http://127.0.0.1:9"  # an MLflow that is away


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with the published curves and no params.yaml."""
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED_PORT)
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
    run = Path("tanh/unstable/exp3_2over30")
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
    assert all(line.startswith("params.yaml") for line in said.removeprefix("Error: ").splitlines())
    assert [fragment for fragment in fragments if fragment not in said] == []
    assert recorded() == before


@pytest.mark.parametrize(
    "command",
    [
        "data",
        "diagnose exp3_2over30",
        "measure exp5",
        "plot exp3",
        "verify",
        "sync",
        "sync exp3_2over30",
        "list",
        "list --json",
        "compare exp3_2over30 exp2_2over300",
        "config show exp3_2over30",
        "config show exp3_2over30 --json",
        "config check",
        "config check --stamp stages/valid",
    ],
)
def test_every_command_reads_all_of_params_yaml_first(
    command: str, folder: Path, recorded: Callable[[], dict[str, bytes]]
) -> None:
    before = recorded()
    (folder / "params.yaml").write_text(edited("threads: 2", "threads: 0"), encoding="utf-8")
    assert message(run(*command.split()), exit_code=2) == (
        "Error: params.yaml: compute.threads: found 0, should be greater than 0\n"
    )
    assert recorded() == before


def test_a_process_of_its_own_says_the_same(folder: Path, recorded: Callable[[], dict[str, bytes]]) -> None:
    before = recorded()
    (folder / "params.yaml").write_text(edited("threads: 2", "threads: 0"), encoding="utf-8")
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
        ("train exp3_2ovr30", "no run 'exp3_2ovr30'; did you mean 'exp3_2over30'?"),
        ("diagnose example1_39", "no run 'example1_39'; did you mean 'example1_2over39'?"),
        ("config show exp2_2over30", "no run 'exp2_2over30'; did you mean"),
        ("sync exp3_30", "no run 'exp3_30'; did you mean 'exp3_2over30'?"),
        ("measure exp8_2ver50", "no measurement 'exp8_2ver50'; did you mean 'exp8_2over50'?"),
        ("measure exp5 --jobs 0", "--jobs"),
        ("plot exmple1", "no figure 'exmple1'; did you mean 'example1'?"),
        ("trian exp3_2over30", "no command 'trian'; did you mean 'train'?"),
        ("config chek", "no command 'chek'; did you mean 'check'?"),
        ("train", "name one RUN, or say --toys"),
        ("diagnose --toys exp3_2over30", "name one RUN, or say --toys"),
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
        ("diagnose example1_2over39", "stages/train/toys/example1/example1_2over39/snapshots holds no snapshots"),
        ("plot exp3", "run.json does not exist: run `dvc repro`"),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_stage_before_its_turn_says_what_is_missing(command: str, missing: str) -> None:
    said = message(run(*command.split()), exit_code=1)
    assert missing in said
    assert said.count("\n") == 1


def test_claims_about_runs_that_do_not_exist_are_not_applicable(folder: Path, small: dict[str, Any]) -> None:
    done = run("verify")
    assert done.exit_code == 0
    verdicts = load_json(folder / "stages/verify/claims.json")
    assert verdicts.keys() == small["claims"].keys()
    assert {verdict["verdict"] for verdict in verdicts.values()} == {"not applicable"}
    toy = verdicts["example1_2over39_leaves"]
    assert toy["reason"] == "example1_2over39 has not been run: `dvc repro` runs it"
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
    snapshots = folder / "stages/train/tanh/unstable/exp3_2over30/snapshots"
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


def test_sync_succeeds_when_mlflow_has_everything_and_not_before(
    folder: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(WarnAndContinue, "_warned", set())
    assert run("train", "example1_2over39").exit_code == 0
    assert run("diagnose", "example1_2over39").exit_code == 0
    error = "Error: MLflow does not have everything: see the warnings above\n"
    WarnAndContinue._warned.clear()  # a new process knows of no earlier warning
    said = message(run("sync"), exit_code=1)
    assert said.startswith(f"Warning: MLflow at {CLOSED_PORT} cannot be used (")
    assert said.endswith(error)

    request.getfixturevalue("store_of_the_project")
    before = contents(folder)
    for arguments in ([], ["example1_2over39"], []):
        done = run("sync", *arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == "MLflow is up to date with the recorded files\n"
    assert contents(folder) == before

    small["toys"]["example1_2over39"]["start"] = [0.2, 0.1]
    write_params(folder, small)
    said = message(run("sync"), exit_code=1)
    other = "start [0.1, 0.1], now [0.2, 0.1]"
    assert said == f"Warning: example1_2over39 was trained with {other}: run `dvc repro`\n{error}"
    assert contents(folder) == before


@pytest.mark.usefixtures("small", "store_of_the_project")
def test_sync_of_what_was_not_run(folder: Path) -> None:
    assert run("sync").exit_code == 0
    assert "stages/train/toys/example1/example1_2over39/run.json does not exist: run `dvc repro`" in message(
        run("sync", "example1_2over39"), exit_code=1
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
def test_sync_asks_an_mlflow_that_is_away_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("train", "example1_2over39").exit_code == 0
    monkeypatch.setattr(track, "sync_run", lambda *_args, **_options: pytest.fail("each run would wait for it"))
    message(run("sync"), exit_code=1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_sync_leaves_its_stamp_only_where_mlflow_has_everything(
    folder: Path, request: pytest.FixtureRequest, small: dict[str, Any]
) -> None:
    stamp = folder / "stages/tracked"
    stamp.parent.mkdir()
    stamp.write_text("of an earlier sync")
    message(run("sync", "--stamp", "stages/tracked"), exit_code=1)
    assert not stamp.exists()
    request.getfixturevalue("store_of_the_project")
    assert run("sync", "--stamp", "stages/tracked").exit_code == 0
    assert stamp.read_text() == "MLflow is up to date with the recorded files\n"
    assert small


# --- what works -------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_is_a_result(folder: Path, small: dict[str, Any]) -> None:
    small["toys"]["example1_2over39"]["stop"]["max_steps"] = 20_000
    write_params(folder, small)
    done = run("train", "example1_2over39")
    assert done.exit_code == 0, done.stderr
    assert "example1_2over39: ended by diverged after" in done.stdout
    record = load_record(folder / "stages/train/toys/example1/example1_2over39")
    assert record.summary["reason"] == "diverged"
    assert record.trajectory["step"].iloc[-1] == record.summary["steps"] < 20_000
    assert record.trajectory["loss"].iloc[-1] > 1e100


def test_a_sharpness_of_an_earlier_training_is_not_taken_for_this_one(folder: Path, small: dict[str, Any]) -> None:
    name = "example1_2over39"
    bound = {"claim": "It is 40", "source": "Example 1", "run": name, "quantity": "sharpness", "statistic": "final"}
    small["claims"] |= {"sharpness_of_example1": bound | {"bound": {"min": 39, "max": 41}}}
    write_params(folder, small)

    def verdict() -> Any:
        assert run("verify").exit_code == 0
        return load_json(folder / "stages/verify/claims.json")["sharpness_of_example1"]

    run("train", name)
    assert verdict()["reason"] == f"sharpness of {name} has not been measured since it was trained: " + (
        f"run `eosrepro diagnose {name}`"
    )
    run("diagnose", name)
    assert verdict()["verdict"] == "holds"
    small["toys"][name]["stop"]["max_steps"] = 7
    write_params(folder, small)
    run("train", name)
    assert verdict()["verdict"] == "not applicable"
    assert "has not been measured since it was trained" in verdict()["reason"]
    run("diagnose", name)
    assert verdict()["verdict"] == "holds"


def test_published_curves_stand_beside_runs_of_their_step_size_alone(folder: Path) -> None:
    params = all_params()
    run_ = params["experiments"]["exp3_2over60"]
    run_ |= {"model": run_["model"] | {"width": 3}, "stop": {"max_steps": 3}}
    params["profiles"]["quick"] |= {"published": True, "data": {"name": "digits", "n_examples": 20}}

    def rows() -> list[list[Any]]:
        write_params(folder, params)
        assert [run(*command.split()).exit_code for command in ("data", "train exp3_2over60", "verify")] == [0, 0, 0]
        made = load_table(folder / "stages/verify/runs.csv")
        return made[["run", "source", "sharpness passes 2/η at"]].fillna("").to_numpy().tolist()

    assert rows() == [["exp3_2over60", "ours", ""], ["exp3_2over60", "published", 159]]
    run_["step_size"] = "2/45"
    write_params(folder, params)
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
    monkeypatch.setenv("DVC_STAGE", "train@exp3_2over30")
    done = run("train", "exp3_2over30")
    assert (done.exit_code, opened) == (0, [])
    assert "MLflow" not in done.stderr
    monkeypatch.setattr(track, "SHORT", 0.0)
    run("train", "exp3_2over30")
    assert opened == ["exp3_2over30"]
    monkeypatch.setattr(track, "SHORT", 10.0)
    monkeypatch.delenv("DVC_STAGE")
    run("train", "exp3_2over30")
    assert opened == ["exp3_2over30"] * 2
    assert len(load_table(folder / "stages/train/tanh/unstable/exp3_2over30/trajectory.csv")) == 11


@pytest.mark.usefixtures("small")
def test_a_measurement_is_made_on_the_snapshots_that_it_names(folder: Path) -> None:
    run("data")
    for name in ("exp3_2over30", "exp8_2over50"):
        run("train", name)
    done = run("measure", "exp5")
    assert (done.exit_code, done.stdout) == (0, "exp5: tau_scan of exp3_2over30 at 3 snapshots\n")
    place = folder / "stages/diagnostics/tanh/unstable/exp3_2over30"
    assert load_table(place / "tau_scan.csv")["step"].tolist() == [0, 5, 10]
    assert load_json(place / "tau_scan.json")["settings"] == {"n_taus": 100, "tolerance": 1e-4, "every": 5}
    assert run("measure", "exp8_2over50").exit_code == 0
    # The rows stand for the definitions of what the training recorded.
    table = load_table(folder / "stages/train/tanh/unstable/exp3_2over30/trajectory.csv")
    scan = load_table(place / "tau_scan.csv")
    assert scan["relative_progress_of_step"][0] == pytest.approx(table["relative_progress"][0], rel=1e-4)


@pytest.mark.usefixtures("small")
def test_a_measurement_of_a_run_that_was_not_trained_says_what_to_do() -> None:
    run("data")
    assert "run `eosrepro train` for this experiment first" in message(run("measure", "exp5"), exit_code=1)


@pytest.mark.usefixtures("small")
def test_a_value_that_falls_short_of_its_audit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run("train", "example1_2over39")
    audits = {0: 40.0, 1: 44.0, 3: 41.0}

    def short(_objective: Any, points: Iterable[tuple[int, Any]]) -> Iterator[dict[str, float]]:
        for step, _ in points:
            audit = audits.get(step, float("nan"))
            yield {"step": step, "sharpness": 40.0, "products": 2, "audit_sharpness": audit}

    monkeypatch.setattr(workers, "member", lambda *_args: short)
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
    assert yaml.safe_load(done.stdout) == load(folder / "params.yaml").resolved(name)


@pytest.mark.usefixtures("small")
def test_config_show_as_json(folder: Path) -> None:
    done = run("config", "show", "exp3_2over30", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == load(folder / "params.yaml").resolved("exp3_2over30")


@pytest.mark.usefixtures("small")
def test_verify_as_json_prints_the_verdicts_that_it_writes(folder: Path) -> None:
    done = run("verify", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == load_json(folder / "stages/verify/claims.json")


@pytest.mark.usefixtures("folder")
def test_config_schema_prints_the_committed_file() -> None:
    done = run("config", "schema")
    assert (done.exit_code, done.stdout) == (0, (ROOT / "params.schema.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("small")
def test_config_check_counts_and_writes_its_stamp_alone(folder: Path) -> None:
    assert run("config", "check").stdout == "params.yaml is valid: 5 runs, 4 figures, 26 claims\n"
    assert contents(folder) == {}
    assert run("config", "check", "--stamp", "stages/valid").exit_code == 0
    # The same content whatever params.yaml says: DVC runs nothing anew because of it.
    assert contents(folder) == {"stages/valid": b"params.yaml is valid\n"}


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
        (["train"], "exp3", ["exp3_2over10", "exp3_2over30"]),
        (["diagnose"], "exam", ["example1_2over39"]),
        (["sync"], "exp8", ["exp8_2over50"]),
        (["config", "show"], "exp2", ["exp2_2over300"]),
        (["compare", "exp3_2over10"], "exp3", ["exp3_2over30"]),
        (["measure"], "", ["exp5", "exp8_2over50"]),
        (["plot"], "ex", ["example1", "exp3", "exp5", "exp8"]),
        (["plot"], "nothing", []),
        ([], "doc", ["doctor"]),
    ],
)
@pytest.mark.usefixtures("small")
def test_names_are_completed(typed: list[str], incomplete: str, wanted: list[str]) -> None:
    shell = ShellComplete(main, {}, "eosrepro", "_EOSREPRO_COMPLETE")
    assert [item.value for item in shell.get_completions(typed, incomplete)] == wanted


@pytest.mark.parametrize("text", [None, "profile: [", "", "experiments: 3", "toys: {a: {}}", "a: &a [*a]", "\x00"])
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
    assert done.stdout.splitlines() == ["plain,exp3_2over10", "plain,exp3_2over30", "set()"]
    assert done.stderr == ""


# --- streams of any encoding ------------------------------------------------------------------------------------------

PRINTING = ("list", "config show example1_2over39", "train example1_2over39", "diagnose example1_2over39",
            "plot example1", "verify", "report", "--help", "train --help")  # fmt: skip
PRINTING_DATA = ("list --json", "verify --json", "config show exp3_2over30 --json", "config schema", "doctor --json")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_prints_in_any_encoding(encoding: str, folder: Path, small: dict[str, Any]) -> None:
    write_project(folder / "copy")  # with the dvc.yaml that `list` reads
    shutil.copytree(folder / "copy", folder, dirs_exist_ok=True)
    Repo.init(str(folder), no_scm=True).close()
    small["figures"]["example1"]["title"] = small["mlflow"]["paper"] = "Größe 😀 η"
    small["claims"]["example1_2over39_leaves"]["claim"] = "Größe 😀 η"
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
        if command == "config show example1_2over39":
            assert yaml.safe_load(printed) == load(folder / "params.yaml").resolved("example1_2over39")
        if command == "list":
            assert ("η = 2/39" if encoding == "utf-8" else r"\u03b7 = 2/39") in printed
        if command == "verify --json":
            assert json.loads(printed)["example1_2over39_leaves"]["claim"] == "Größe 😀 η"


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
    write_params(folder, small | {"toys": {}, "figures": {}, "claims": {}})
    for command in ("config check --stamp stages/valid", "train --toys", "diagnose --toys", "verify", "report"):
        assert run(*command.split()).exit_code == 0, command
    made = {str(path.relative_to(folder)) for path in (folder / "stages").rglob("toys")}
    assert made == {"stages/train/toys", "stages/diagnostics/toys"}
    assert (folder / "figures").is_dir()


def test_a_measurement_at_the_start_alone_is_told(folder: Path, small: dict[str, Any]) -> None:
    small["measurements"]["exp5"]["every"] = 7
    write_params(folder, small)
    for command in ("data", "train exp3_2over30"):
        assert run(*command.split()).exit_code == 0
    done = run("measure", "exp5")
    assert done.exit_code == 0
    assert "exp5: tau_scan of exp3_2over30 at 1 snapshots\n" in done.stdout
    said = "Warning: tau_scan of exp3_2over30 is measured at iteration 0 alone: of its snapshots, one in 5 iterations"
    assert said in done.stderr
    small["measurements"]["exp5"]["every"] = 5
    write_params(folder, small)
    assert "Warning: exp5" not in run("measure", "exp5").stderr


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
        "measure exp5",
        "plot exp3",
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

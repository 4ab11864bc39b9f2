"""Each thing that stands in the way of a run is found, with what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.records import resuming
from eosrepro.records.dataset import DATA, load_dataset
from eosrepro.records.files import save_json
from eosrepro.records.places import train_folder
from eosrepro.stages import build, estimate
from eosrepro.stages import data as stage
from eosrepro.stages.data import make_data
from eosrepro.tools import doctor
from eosrepro.tools.doctor import Check
from eosrepro.views.mlflow import server
from eosrepro.views.mlflow.connection import MADE_ELSEWHERE, connect, store_uri
from tests.project import small_params, write_params, write_project

# Ten snapshots of a 3072-8-8-10 network: three of each run, and of exp2_2over300 the first.
SNAPSHOTS = "snapshots of runs to come (4): at most 38.8 kB"
assert 10 * 4 * (3072 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10) == 989_840


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its data, in which nothing has run yet."""
    folder = tmp_path_factory.mktemp("doctor")
    write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_data(load())
        Repo.init(no_scm=True).close()
    return folder


@pytest.fixture
def project(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to spoil, the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(healthy, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def checks() -> dict[str, Check]:
    return {check.name: check for check in doctor.examine()}


def with_params(folder: Path, **sections: Any) -> None:
    params = small_params()
    for section, keys in sections.items():
        params[section] |= keys
    write_params(folder, params)


def with_data(folder: Path, **data: Any) -> None:
    params = small_params()
    params["profiles"]["quick"]["data"] = data
    write_params(folder, params)


@pytest.mark.usefixtures("project")
def test_a_healthy_project_is_ok_and_is_left_as_it_is() -> None:
    before = sorted(Path().rglob("*.*"))
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {check["name"]: check["state"] for check in told} == dict.fromkeys(
        ["Python", "packages", "params.yaml", "device", "data", "disk", "MLflow", "DVC"], "ok"
    )
    found = {check["name"]: check["found"] for check in told}
    assert found["data"] == "stages/data holds photo-patches, N = 100"
    device = f"compute.device cpu: cpu, 1 thread of {os.cpu_count()} CPUs; eigensolves start in bfloat16"
    assert found["device"].startswith(device)
    assert SNAPSHOTS in found["disk"]
    assert sorted(path for path in Path().rglob("*.*") if ".dvc" not in path.parts) == [
        path for path in before if ".dvc" not in path.parts
    ]


def test_a_problem_ends_with_exit_code_1(project: Path) -> None:
    (project / "params.yaml").write_text("profile: [")
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    params, dvc = (line for line in done.stdout.splitlines() if line.startswith(" problem"))
    assert "params.yaml, line 1, column 11: not valid YAML" in params
    assert "DVC cannot read this project" in dvc


def test_python_and_packages_are_compared_with_what_pyproject_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.1")
    python = doctor._python()
    assert python.state == "problem"
    assert python.found.startswith("3.9.1, needs ")
    versions = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pandas":
            raise importlib.metadata.PackageNotFoundError
        return "2.0" if name == "torch" else versions(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    packages = doctor._packages()
    assert packages == Check("packages", "problem", "pandas is missing; torch is 2.0, needs torch>=2.6: `make setup`")


def test_a_package_without_which_nothing_can_be_checked() -> None:
    program = "import sys; sys.modules['torch'] = None; from eosrepro.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(": `make setup` installs what is missing\n")
    assert "torch" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("krylov", "fast", "words"),
    [
        ("sketch", True, "at a sketch"),
        ("auto", True, "in bfloat16"),
        ("auto", False, "at a sketch: this processor has no fast bfloat16"),
        ("bfloat16", True, "in bfloat16"),
        ("bfloat16", False, "in bfloat16, which this processor is slow at: set compute.krylov to auto"),
    ],
)
def test_where_eigensolves_start(
    krylov: str, fast: bool, words: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (doctor, build):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda _device: fast)
    with_params(project, compute={"krylov": krylov})
    assert doctor._device(load()).found.endswith(f"; eigensolves start {words}")


def test_device(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.torch.cuda, "is_available", lambda: False)
    with_params(project, compute={"device": "cuda"})
    assert doctor._device(load()).state == "problem"
    with_params(project, compute={"device": "auto", "threads": 1000})
    device = doctor._device(load())
    assert device.state == "warning"
    assert "auto: cpu, 1000 threads" in device.found

    monkeypatch.setattr(build.torch.cuda, "is_available", lambda: True)
    gpu = SimpleNamespace(name="a GPU", total_memory=80e9)
    monkeypatch.setattr(build.torch.cuda, "get_device_properties", lambda _number: gpu)
    with_params(project, compute={"device": "auto"})
    monkeypatch.setattr(doctor, "has_fast_bfloat16", lambda _device: True)
    assert "auto: cuda, 1 thread of" in doctor._device(load()).found
    assert "a GPU with 80 GB; " in doctor._device(load()).found


@pytest.mark.parametrize(
    ("data", "state", "wanted"),
    [
        ({"name": "photo-patches", "n_examples": 50, "seed": 0}, "ok", "`dvc repro` makes stages/data"),
        (
            {"name": "cifar10", "root": "nowhere", "n_examples": 5},
            "problem",
            "put cifar-10-python.tar.gz from https://",
        ),
        ({"name": "cifar10", "root": "nowhere", "n_examples": 5, "download": True}, "warning", "downloads it (170 MB)"),
        (
            {"name": "imagefolder", "root": "nowhere", "n_examples": 5, "label": "x"},
            "problem",
            "no folder nowhere: put",
        ),
        (
            {"name": "imagefolder", "root": "papers", "n_examples": 5, "label": "x"},
            "ok",
            "imagefolder is there",
        ),
    ],
)
def test_data_that_are_to_be_made(data: dict[str, Any], state: str, wanted: str, project: Path) -> None:
    with_data(project, **data)
    (with_others,) = doctor._data(load())
    assert with_others.state == ("warning" if state == "ok" else state)
    assert "made with data.n" in with_others.found
    shutil.rmtree("stages")
    (check,) = doctor._data(load())
    assert check.state == state
    assert wanted in check.found
    assert with_others.found.endswith(check.found)


@pytest.mark.parametrize(
    ("data", "preprocessing", "wanted"),
    [
        ({"seed": 1}, {}, "data.seed 0, now 1"),
        ({"n_examples": 50}, {}, "data.n_examples 100, now 50"),
        ({}, {"scale": "symmetric"}, "preprocessing.scale unit, now symmetric"),
        ({}, {"standardise": "per_channel"}, "preprocessing.standardise none, now per_channel"),
        ({"name": "digits"}, {}, "data.name photo-patches, now digits; data.choose not set, now random"),
    ],
)
def test_data_that_were_made_with_other_settings(
    data: dict[str, Any], preprocessing: dict[str, Any], wanted: str, project: Path
) -> None:
    params = small_params()
    profile = params["profiles"]["quick"]
    profile["data"] |= data
    profile["preprocessing"] |= preprocessing
    write_params(project, params)
    (check,) = doctor._data(load())
    assert check.state == "warning"
    held = f"stages/data holds photo-patches, N = 100, made with {wanted}: "
    assert check.found == f"{held}{profile['data']['name']} is there, and `dvc repro` makes stages/data of it"


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ({"root": "elsewhere"}, "data.root images, now elsewhere"),
        ({"label": "yours"}, "data.label mine, now yours"),
        ({"seed": 7}, "data.seed 0, now 7"),
    ],
)
def test_a_folder_of_images_that_is_not_the_recorded_one(
    setting: dict[str, Any], wanted: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "dataset", lambda _profile: load_dataset(DATA))
    (project / "images").mkdir()
    images = {"name": "imagefolder", "root": "images", "n_examples": 100, "label": "mine", "seed": 0}
    with_data(project, **images)
    make_data(load())
    assert next(doctor._data(load())) == Check("data", "ok", "stages/data holds photo-patches, N = 100")
    with_data(project, **images | setting)
    (check,) = doctor._data(load())
    assert check.state == ("problem" if "root" in setting else "warning")
    assert check.found.startswith(f"stages/data holds photo-patches, N = 100, made with {wanted}: ")


def test_data_that_do_not_say_what_they_were_made_with(project: Path) -> None:
    (project / "stages/data.json").unlink()
    (check,) = doctor._data(load())
    assert check == Check("data", "problem", "stages/data.json does not exist: run `dvc repro` to make it")


def test_data_that_are_damaged(project: Path) -> None:
    path = project / "stages/data/dataset.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    (check,) = doctor._data(load())
    assert check.state == "problem"
    assert check.found.endswith("is truncated or altered: delete it and run `dvc repro`")


def test_a_disk_on_which_the_snapshots_may_not_fit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=9_000))
    declared = load()
    _, disk = doctor._data(declared)
    assert disk.state == "warning"
    assert disk.found.startswith(f"9 kB free; {SNAPSHOTS}")
    assert disk.found.endswith(estimate.MORE_ROOM)
    for name, run in declared.runs.items():
        save_json(train_folder(run.experiment, name) / "summary.json", {})
    _, disk = doctor._data(declared)
    assert disk == Check("disk", "ok", "9 kB free")
    assert project.exists()


@pytest.mark.usefixtures("project")
def test_an_mlflow_server_that_is_away_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    check = doctor._mlflow(load())
    assert check.state == "problem"
    assert check.found.startswith("http://***@127.0.0.1:9 cannot be used (")
    assert "mend MLFLOW_TRACKING_URI" in check.found
    assert "secret" not in check.found
    assert "somebody" not in check.found


def test_a_store_of_another_folder_or_one_that_is_locked(
    project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, project)
    assert doctor._mlflow(load()).found.endswith("mlflow.db, no runs yet")
    with closing(sqlite3.connect(project / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(server, "LOCK_SECONDS", 0.01)
        check = doctor._mlflow(load())
        assert check.state == "problem"
        assert "database is locked" in check.found
        other.rollback()
    connect(store_uri()).create_experiment("eosrepro", "file:///of/another/folder/mlartifacts")
    assert doctor._mlflow(load()) == Check("MLflow", "problem", MADE_ELSEWHERE)


def lock_file(pid: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / ".dvc/tmp").mkdir(exist_ok=True)
        held = {"pid": pid, "cmd": "/some/where/bin/dvc repro"}
        (folder / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {"stages/data": held}, "read": {}}))

    return write


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_dvc_at_work(project: Path) -> None:
    lock_file(os.getpid())(project)
    assert doctor._dvc().found.startswith(f"process {os.getpid()} (`dvc repro`) is at work: wait for it")
    assert doctor._dvc().state == "warning"
    lock_file(dead_process())(project)
    assert doctor._dvc().state == "ok"
    shutil.rmtree(project / ".dvc")
    assert doctor._dvc().state == "problem"
    assert "run `dvc init`" in doctor._dvc().found


@pytest.mark.usefixtures("project")
def test_unfinished_work() -> None:
    with suppress(KeyboardInterrupt), resuming.unfinished(Path("stages/train/a/b"), "key"):
        assert checks()["running"] == Check("running", "ok", "train.a.b")
        raise KeyboardInterrupt
    check = checks()["unfinished"]
    assert check.state == "warning"
    assert check.found == ("train.a.b: nothing is kept yet, `rm -r stages/unfinished/train.a.b` gives it up")

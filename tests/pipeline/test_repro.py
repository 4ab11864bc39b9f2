"""The real `dvc repro` on a small project: what it makes, what it makes again, and what it leaves alone.

One full run is shared; what changes the project changes a copy of it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from eosrepro.records.files import load_checkpoint
from tests.project import FIGURES, environment, small_params, write_params, write_project

Done = subprocess.CompletedProcess[str]

NETS = {"exp2_2over300": "tanh/stable", "exp3_2over30": "tanh/unstable", "exp8_2over50": "sgd/relu"}
MEASURED = {"exp5": "tanh/unstable/exp3_2over30/tau_scan", "exp8_2over50": "sgd/relu/exp8_2over50/expected_progress"}
TOYS = {"example1_2over39": "toys/example1"}
STAGES = [
    "check",
    "data",
    *(f"train@{run}" for run in NETS),
    *(f"diagnose@{run}" for run in NETS),
    *(f"measure@{name}" for name in MEASURED),
    "train_toys",
    "diagnose_toys",
    *(f"figure@{name}" for name in FIGURES),
    "verify",
    "report",
    "track",
]
GIT = ("git", "-c", "user.name=tester", "-c", "user.email=tester@localhost")
EXP3 = "experiments.exp3_2over30"
# A stage ends with `dvc repro` also where DVC's shell stays between the two, as /bin/sh does.
OFTEN = environment() | {"EOSREPRO_CHECKPOINT_SECONDS": "0.5", "SHELL": "/bin/sh"}


def params() -> dict[str, Any]:
    """Those of the small project, with one unstable run left out."""
    small = small_params()
    del small["experiments"]["exp3_2over10"]
    small["claims"] = {name: claim for name, claim in small["claims"].items() if claim["run"] != "exp3_2over10"}
    return small


def run(folder: Path, *command: str) -> Done:
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def repro(folder: Path, *targets: str) -> set[str]:
    """`dvc repro`; the stages that ran or were taken from DVC's run cache."""
    done = run(folder, "dvc", "repro", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return stages_run(done)


def stages_run(done: Done) -> set[str]:
    return set(re.findall(r"^Running stage '([^']+)'", done.stdout, re.MULTILINE))


def outputs(folder: Path) -> dict[str, bytes]:
    files = [path for top in ("stages", "figures") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A project on which `dvc repro` has run once, and what that said. Not to be changed."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    write_params(folder, params())
    assert run(folder, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    return folder, run(folder, "dvc", "repro")


@pytest.fixture
def project(reproduced: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of it that may be changed, without its MLflow store, which knows where it was made."""
    left_out = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    return Path(shutil.copytree(reproduced[0], tmp_path / "copy", symlinks=True, ignore=left_out))


@pytest.fixture
def change(project: Path) -> Callable[[str, Any], None]:
    """Sets a key of the project's params.yaml."""

    def set_to(setting: str, value: Any) -> None:
        changed = params()
        *parents, last = setting.split(".")
        entry = changed
        for key in parents:
            entry = entry[key]
        assert entry[last] != value
        entry[last] = value
        write_params(project, changed)

    return set_to


# --- one run ----------------------------------------------------------------------------------------------------------


def test_everything_runs_in_order_and_makes_what_it_declares(reproduced: tuple[Path, Done]) -> None:
    folder, done = reproduced
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stages_run(done)) == sorted(STAGES)
    verified = ("claims.json", "claims.md", "runs.csv", "runs.md", "summary.json")
    expected = {"stages/valid", "stages/report.html", "stages/tracked", *(f"stages/verify/{name}" for name in verified)}
    expected |= {f"stages/{name}" for name in ("data/dataset.safetensors", "data/provenance.json", "data.json")}
    for name, place in (NETS | TOYS).items():
        expected |= {f"stages/train/{place}/{name}/{file}" for file in ("trajectory.csv", "summary.json", "run.json")}
        measured = ("sharpness.csv", "sharpness.json", "summary.json")
        expected |= {f"stages/diagnostics/{place}/{name}/{file}" for file in measured}
    expected |= {f"stages/diagnostics/{table}{suffix}" for table in MEASURED.values() for suffix in (".csv", ".json")}
    for figure in FIGURES:
        expected |= {f"figures/{figure}/{file}" for file in (f"{figure}.png", f"{figure}.svg", "table.csv")}
    made = outputs(folder)
    assert {name for name in made if "/snapshots/" not in name} == expected
    assert {Path(name).stem for name in made if "exp3_2over30/snapshots" in name} == {"0000000", "0000005", "0000010"}
    assert all(made.values())


def test_a_second_repro_does_nothing(reproduced: tuple[Path, Done]) -> None:
    folder, _ = reproduced
    before = outputs(folder)
    done = run(folder, "dvc", "repro")
    assert (done.returncode, stages_run(done)) == (0, set())
    assert "up to date" in done.stdout
    assert changed(before, outputs(folder)) == set()


def test_dvc_shows_metrics_and_plots(reproduced: tuple[Path, Done], tmp_path: Path) -> None:
    folder, _ = reproduced
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    summary = metrics["stages/train/tanh/unstable/exp3_2over30/summary.json"]["data"]
    assert (summary["reason"], summary["steps"]) == ("max_steps", 10)
    assert sum(metrics["stages/verify/summary.json"]["data"].values()) == len(params()["claims"])
    assert len(metrics) == 2 * len(NETS) + 1
    done = run(folder, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "plots/index.html").read_text(encoding="utf-8")
    assert "exp3_2over30/trajectory.csv" in page
    assert "exp3_2over30/sharpness.csv" in page


def test_mlflow_has_one_run_an_experiment(reproduced: tuple[Path, Done]) -> None:
    client = MlflowClient(f"sqlite:///{reproduced[0] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eosrepro")
    assert experiment is not None
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(NETS | TOYS)
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)
    logged = runs["exp3_2over30"].data
    names = {"train/loss", "curvature/sharpness", "train/relative_progress", "diagnostics/directional_smoothness_mean"}
    assert names <= logged.metrics.keys()
    assert "| n.a. | Iteration of the onset (first RP > -0.5) |" in logged.tags["mlflow.note.content"]
    artifacts = client.list_artifacts(runs["exp3_2over30"].info.run_id, "figures/exp3")
    assert {Path(artifact.path).name for artifact in artifacts} == {"exp3.png", "exp3.svg", "table.csv"}


def test_a_figure_of_toys_needs_no_data(reproduced: tuple[Path, Done]) -> None:
    toys = run(reproduced[0], "dvc", "repro", "--dry", "--force", "figure@example1")
    assert stages_run(toys) == {"check", "train_toys", "diagnose_toys", "figure@example1"}
    networks = run(reproduced[0], "dvc", "repro", "--dry", "--force", "figure@exp3")
    assert "data" in stages_run(networks)


def test_every_run_says_what_it_was_trained_on(reproduced: tuple[Path, Done]) -> None:
    folder, _ = reproduced
    paths = folder.glob("stages/train/**/run.json")
    origins = {path.parent.name: json.loads(path.read_text("utf-8")) for path in paths}
    data = {name: origin["data"] for name, origin in origins.items()}
    assert data == dict.fromkeys(NETS, "photo-patches, N = 100") | dict.fromkeys(TOYS, "")
    assert len({origin["fingerprint"] for origin in origins.values()}) == len(origins)
    assert "photo-patches, N = 100" in (folder / "figures/exp3/exp3.svg").read_text("utf-8")
    assert "photo-patches" not in (folder / "figures/example1/example1.svg").read_text("utf-8")


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_mistake_in_params_yaml_costs_nothing_that_is_recorded(
    project: Path, change: Callable[[str, Any], None]
) -> None:
    before = outputs(project)
    change(f"{EXP3}.step_size", "two/30")
    done = run(project, "dvc", "repro")
    assert done.returncode != 0
    assert f"Error: params.yaml: {EXP3}.step_size: found 'two/30'" in done.stderr
    assert "Traceback" not in done.stderr
    assert stages_run(done) == {"check"}
    assert changed(before, outputs(project)) <= {"stages/valid"}
    write_params(project, params())
    repro(project)
    assert changed(before, outputs(project)) == set()


@pytest.mark.slow
def test_a_changed_step_size_runs_one_training_and_what_hangs_on_it(
    project: Path, change: Callable[[str, Any], None]
) -> None:
    before = outputs(project)
    change(f"{EXP3}.step_size", "2/45")
    ran = repro(project)
    its_own = {"train@exp3_2over30", "diagnose@exp3_2over30", "measure@exp5", "figure@exp3", "figure@exp5"}
    assert ran == {"check", "verify", "report", "track"} | its_own
    of_all = ("stages/verify/", "stages/report.html")
    touched = {name for name in changed(before, outputs(project)) if not name.startswith(of_all)}
    assert all("exp3_2over30" in name or name.startswith(("figures/exp3/", "figures/exp5/")) for name in touched)
    assert "stages/train/tanh/unstable/exp3_2over30/trajectory.csv" in touched


@pytest.mark.slow
def test_a_changed_sharpness_setting_runs_no_training(project: Path, change: Callable[[str, Any], None]) -> None:
    change("sharpness.rtol", 1e-4)
    ran = repro(project)
    assert {name for name in ran if name.startswith(("train", "data"))} == set()
    assert {f"diagnose@{run}" for run in NETS} <= ran


@pytest.mark.slow
def test_a_setting_that_is_taken_back_restores_the_results_without_running(
    project: Path, change: Callable[[str, Any], None]
) -> None:
    before = outputs(project)
    change(f"{EXP3}.step_size", "2/45")
    repro(project)
    write_params(project, params())
    done = run(project, "dvc", "repro")
    assert "train@exp3_2over30" not in stages_run(done)
    assert "is cached - skipping run" in done.stdout
    assert changed(before, outputs(project)) == set()


@pytest.mark.slow
def test_one_figure_needs_its_own_runs_alone(project: Path) -> None:
    before = outputs(project)
    shutil.rmtree(project / ".dvc/cache")
    for name in ("stages", "figures", "dvc.lock"):
        path = project / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    ran = repro(project, "figure@exp3")
    assert ran == {"check", "data", "train@exp3_2over30", "diagnose@exp3_2over30", "measure@exp5", "figure@exp3"}
    # Made anew from nothing, everything is the same to the byte.
    after = outputs(project)
    assert {name for name in after if before[name] != after[name]} == set()


@pytest.mark.slow
def test_without_the_tracking_server_only_the_last_stage_fails(
    project: Path, change: Callable[[str, Any], None]
) -> None:
    before = outputs(project)
    change(f"{EXP3}.seed", 99)
    env = environment() | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(["dvc", "repro"], cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Warning: MLflow" in done.stderr
    assert "Error: MLflow does not have everything" in done.stderr
    assert "failed to reproduce 'track'" in done.stderr
    assert "figures/exp3/exp3.png" in changed(before, outputs(project))
    # It is back: nothing is computed again, and MLflow catches up.
    assert repro(project) == {"track"}


SECTIONS = {
    "experiments": "exp3_2over30",
    "toys": "example1_2over39",
    "measurements": "exp5",
    "figures": "example1 exp3",
    "claims": "exp3_2over30_loss_falls example1_2over39_leaves",
}


@pytest.mark.parametrize(
    "empty", [[*SECTIONS], *(pytest.param([each], marks=pytest.mark.slow) for each in SECTIONS)], ids=" ".join
)
def test_any_section_may_be_empty(empty: list[str], tmp_path: Path) -> None:
    write_project(tmp_path)
    little = params()
    for section, names in SECTIONS.items():
        little[section] = {name: little[section][name] for name in names.split() if section not in empty}
    runs = little["experiments"] | little["toys"]
    for section in ("figures", "measurements", "claims"):
        declared = little[section].items()
        little[section] = {
            name: each for name, each in declared if {*each.get("runs", [each.get("run")])} <= runs.keys()
        }
    write_params(tmp_path, little)
    assert run(tmp_path, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    ran = repro(tmp_path)
    assert {"verify", "report", "track", "train_toys", "diagnose_toys"} <= ran
    assert {name for name in ran if "@" in name} == {
        *(f"{work}@{name}" for work in ("train", "diagnose") for name in little["experiments"]),
        *(f"measure@{name}" for name in little["measurements"]),
        *(f"figure@{name}" for name in little["figures"]),
    }
    assert repro(tmp_path) == set()


@pytest.mark.slow
def test_a_killed_repro_goes_on_from_the_last_checkpoint(project: Path, change: Callable[[str, Any], None]) -> None:
    change("profiles.quick.max_steps", 15_000)
    stage = "train@exp3_2over30"
    reached = 0
    for victim in ("dvc", "stage"):
        with subprocess.Popen(
            ["dvc", "repro", "-s", stage], cwd=project, env=OFTEN, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        ) as killed:  # fmt: skip
            checkpoint = wait_for_a_checkpoint(project, later_than=time.time())
            # The stage holds the lock beside its checkpoints; /proc/locks says which process that is.
            inode = str((checkpoint.parents[1] / "lock").stat().st_ino)
            locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
            (worker,) = (int(fields[4]) for fields in locks if fields[5].endswith(f":{inode}"))
            os.kill(killed.pid if victim == "dvc" else worker, signal.SIGKILL)
            said = killed.communicate()[1]  # to the end of the pipe, which a stage that lives on would hold open
        assert going_on_from(said) == reached
        reached = load_checkpoint(checkpoint)["step"]
    assert not (project / "stages/train/tanh/unstable/exp3_2over30/summary.json").exists()

    resumed = run(project, "dvc", "repro", "-s", stage)
    assert resumed.returncode == 0, resumed.stderr
    assert going_on_from(resumed.stderr) == reached > 0
    assert not list((project / "stages/unfinished").iterdir())
    after = outputs(project)
    again = run(project, "dvc", "repro", "-s", "--force", stage)
    assert going_on_from(again.stderr) == 0
    assert changed(after, outputs(project)) == set()


@pytest.mark.slow
def test_two_at_once_and_ctrl_c_lose_nothing(project: Path, change: Callable[[str, Any], None]) -> None:
    change("profiles.quick.max_steps", 20_000)
    stage = "train@exp3_2over30"
    with subprocess.Popen(
        ["dvc", "repro", "-s", stage], cwd=project, env=OFTEN, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as first:  # fmt: skip
        end = time.monotonic() + 60
        while not list((project / "stages/unfinished").glob("train*/*/snapshots")):
            assert time.monotonic() < end
            time.sleep(0.05)
        second = run(project, "dvc", "repro", "-s", stage)
        assert second.returncode != 0
        assert "Traceback" not in second.stderr
        assert "is busy" in second.stderr or "lock" in second.stderr

        os.killpg(first.pid, signal.SIGINT)  # as a terminal does
        said = first.communicate()[1]
    assert first.returncode != 0
    assert "Interrupted. The same command goes on from its last checkpoint" in said
    resumed = run(project, "dvc", "repro", "-s", stage)
    assert resumed.returncode == 0, resumed.stderr
    assert going_on_from(resumed.stderr) > 0


def going_on_from(said: str) -> int:
    found = re.search(r"Going on from iteration (\d+)", said)
    return int(found[1]) if found else 0


def wait_for_a_checkpoint(project: Path, *, later_than: float, seconds: float = 60) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (project / "stages/unfinished").glob("train*/*/checkpoint"):
            if path.stat().st_mtime > later_than:
                return path
        time.sleep(0.05)
    raise AssertionError("no checkpoint was made")


def put_under_git(project: Path) -> None:
    """Commit all that is not ignored, dvc.lock among it."""
    (project / ".dvc/config").write_text("", encoding="utf-8")  # away with no_scm
    for command in [("git", "init", "--quiet"), ("git", "add", "--all"), (*GIT, "commit", "--quiet", "-m", "all")]:
        done = run(project, *command)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_runs_of_a_clone_come_to_its_mlflow(project: Path, tmp_path: Path) -> None:
    clone, remote, home = tmp_path / "clone", tmp_path / "remote", tmp_path / "cache of the clone"
    put_under_git(project)
    for folder, *command in [
        (project, "dvc", "remote", "add", "--default", "local", str(remote)),
        (project, "dvc", "push", "--run-cache", "--quiet"),
        (project, *GIT, "commit", "--quiet", "--all", "-m", "a remote"),
        (tmp_path, "git", "clone", "--quiet", str(project), str(clone)),
        (clone, "dvc", "cache", "dir", "--local", str(home)),
        (clone, "dvc", "pull", "--run-cache", "--quiet"),
    ]:
        done = run(folder, *command)
        assert done.returncode == 0, done.stderr
    pulled = outputs(clone)
    assert pulled.keys() == outputs(project).keys() - {"stages/tracked"}
    assert not (clone / "mlflow.db").exists()

    assert repro(clone) == {"track"}
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eosrepro")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {each.info.run_name for each in runs} == set(NETS | TOYS)
    assert repro(clone) == set()
    assert changed(pulled, outputs(clone)) == {"stages/tracked"}
    assert run(clone, "git", "diff", "--name-only", "dvc.lock", "dvc.yaml", "params.yaml").stdout == ""


@pytest.mark.slow
def test_dvc_exp_run_varies_an_experiment_from_the_command_line(project: Path) -> None:
    put_under_git(project)
    done = run(project, "dvc", "exp", "run", "--name", "wider-step", "-S", f"{EXP3}.step_size=2/45")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train@exp3_2over30" in stages_run(done)
    assert "train@exp2_2over300" not in stages_run(done)
    shown = run(project, "dvc", "exp", "show", "--csv")
    rows = {row["Experiment"]: row for row in csv.DictReader(io.StringIO(shown.stdout))}
    assert rows["wider-step"][f"{EXP3}.step_size"] == "2/45"
    mistyped = run(project, "dvc", "exp", "run", "-S", f"{EXP3}.stepsize=2/45")
    assert mistyped.returncode != 0

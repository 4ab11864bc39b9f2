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
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from eosrepro.records.files import load_checkpoint
from tests.project import environment, small_params, write_params, write_part

Done = subprocess.CompletedProcess[str]

EXPERIMENTS = {"exp3": ["exp3_2over10", "exp3_2over30"], "example1": ["example1_2over39"]}
RUNS = {run for runs in EXPERIMENTS.values() for run in runs}
SCANNED = "exp3_2over30"
FIGURES = ["example1", "exp3", "exp5"]
STAGES = {
    *("check", "data", "verify", "report", "track"),
    *(f"{work}@{name}" for work in ("train", "diagnose") for name in EXPERIMENTS),
    *(f"figure@{name}" for name in FIGURES),
}
OF_EXP3 = {"check", "train@exp3", "diagnose@exp3", "figure@exp3"}
GIT = ("git", "-c", "user.name=tester", "-c", "user.email=tester@localhost")
VARY = "experiments.exp3.vary.step_size"
# A stage ends with `dvc repro` also where DVC's shell stays between the two, as /bin/sh does.
OFTEN = environment() | {"EOSREPRO_CHECKPOINT_SECONDS": "0.5", "SHELL": "/bin/sh"}


def run(folder: Path, *command: str, **variables: str) -> Done:
    env = environment() | variables
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def repro(folder: Path, *targets: str) -> set[str]:
    """`dvc repro`; the stages that ran or were taken from DVC's run cache."""
    done = run(folder, "dvc", "repro", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return stages_run(done)


def stages_run(done: Done) -> set[str]:
    return set(re.findall(r"^Running stage '([^']+)'", done.stdout, re.MULTILINE))


def outputs(folder: Path) -> dict[str, bytes]:
    """All that stages put out: not the store, where they find what is finished."""
    files = [path for top in ("stages", "figures") for path in (folder / top).rglob("*") if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith("stages/store/")}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def stored(folder: Path) -> set[str]:
    """What is finished: <fingerprint> of runs, <fingerprint>.<diagnostic>.<digest> of what was found on them."""
    return {path.name for path in (folder / "stages/store").iterdir()}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A project on which `dvc repro` has run once, and what that said. Not to be changed."""
    folder = tmp_path_factory.mktemp("project")
    write_part(folder, *EXPERIMENTS)
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
    params = small_params()
    params["experiments"] = {name: params["experiments"][name] for name in EXPERIMENTS}
    params["figures"] = {name: params["figures"][name] for name in FIGURES}

    def set_to(setting: str, value: Any) -> None:
        *parents, last = setting.split(".")
        entry = params
        for key in parents:
            entry = entry[key]
        assert entry[last] != value
        entry[last] = value
        write_params(project, params)

    return set_to


# --- one run ----------------------------------------------------------------------------------------------------------


def test_everything_runs_and_makes_what_it_declares(reproduced: tuple[Path, Done]) -> None:
    folder, done = reproduced
    assert done.returncode == 0, done.stdout + done.stderr
    assert stages_run(done) == STAGES
    verified = ("claims.json", "claims.md", "runs.csv", "runs.md", "summary.json")
    expected = {f"stages/{name}" for name in ("code.json", "report.html", "tracked", "data.json")}
    expected |= {f"stages/data/{name}" for name in ("dataset.safetensors", "provenance.json")}
    expected |= {f"stages/verify/{name}" for name in verified}
    for name, runs in EXPERIMENTS.items():
        expected.add(f"stages/metrics/{name}.json")
        for of in runs:
            trained = ("trajectory.csv", "summary.json", "run.json")
            found = ["sharpness", *(["tau_scan"] if of == SCANNED else [])]
            expected |= {f"stages/train/{name}/{of}/{file}" for file in trained}
            expected |= {
                f"stages/diagnostics/{name}/{of}/{each}{suffix}" for each in found for suffix in (".csv", ".json")
            }
    for figure in FIGURES:
        expected |= {f"figures/{figure}/{file}" for file in (f"{figure}.png", f"{figure}.svg", "table.csv")}
    made = outputs(folder)
    assert {name for name in made if "/snapshots/" not in name} == expected
    assert {Path(name).stem for name in made if f"{SCANNED}/snapshots" in name} == {"0000000", "0000005", "0000010"}
    assert all(made.values())


def test_every_run_says_what_it_was_trained_on(reproduced: tuple[Path, Done]) -> None:
    folder, _ = reproduced
    paths = folder.glob("stages/train/*/*/run.json")
    origins = {path.parent.name: json.loads(path.read_text("utf-8")) for path in paths}
    data = {name: origin["data"] for name, origin in origins.items()}
    assert data == dict.fromkeys(EXPERIMENTS["exp3"], "photo-patches, N = 100") | {"example1_2over39": ""}
    assert len({origin["fingerprint"] for origin in origins.values()}) == len(origins)
    assert "photo-patches, N = 100" in (folder / "figures/exp3/exp3.svg").read_text("utf-8")
    assert "photo-patches" not in (folder / "figures/example1/example1.svg").read_text("utf-8")


def test_a_second_repro_checks_and_does_nothing_more(reproduced: tuple[Path, Done]) -> None:
    folder, _ = reproduced
    before = outputs(folder)
    assert repro(folder) == {"check"}
    assert changed(before, outputs(folder)) == set()


def test_dvc_shows_a_line_an_experiment_and_all_figures(reproduced: tuple[Path, Done], tmp_path: Path) -> None:
    folder, _ = reproduced
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert metrics.keys() == {*(f"stages/metrics/{name}.json" for name in EXPERIMENTS), "stages/verify/summary.json"}
    assert metrics["stages/metrics/exp3.json"]["data"]["steps"] == "10 10"
    verdicts = json.loads((folder / "stages/verify/claims.json").read_text("utf-8"))
    assert sum(metrics["stages/verify/summary.json"]["data"].values()) == len(verdicts) > 0
    done = run(folder, "dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "plots/index.html").read_text(encoding="utf-8")
    assert all(f"{name}.png" in page for name in FIGURES)


def test_mlflow_has_one_run_a_run(reproduced: tuple[Path, Done]) -> None:
    client = MlflowClient(f"sqlite:///{reproduced[0] / 'mlflow.db'}")
    runs = mlflow_runs(reproduced[0])
    assert runs.keys() == RUNS
    logged = runs[SCANNED].data
    names = {"train/loss", "curvature/sharpness", "train/relative_progress", "diagnostics/directional_smoothness_mean"}
    assert names <= logged.metrics.keys()
    assert "| The loss falls from 2.30 (final loss) |" in logged.tags["mlflow.note.content"]
    artifacts = client.list_artifacts(runs[SCANNED].info.run_id, "figures/exp3")
    assert {Path(artifact.path).name for artifact in artifacts} == {"exp3.png", "exp3.svg", "table.csv"}


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """By name, each once."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eosrepro")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {str(each.info.run_name): each for each in found}
    assert len(found) == len(runs)
    return runs


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_mistake_in_params_yaml_costs_nothing_that_is_recorded(
    project: Path, change: Callable[[str, Any], None]
) -> None:
    before = outputs(project)
    change(VARY, ["2/10", "two/30"])
    done = run(project, "dvc", "repro")
    assert done.returncode != 0
    assert f"Error: params.yaml: {VARY}: found 'two/30'" in done.stderr
    assert "Traceback" not in done.stderr
    assert stages_run(done) == {"check"}
    assert changed(before, outputs(project)) <= {"stages/code.json"}


@pytest.mark.slow
def test_a_run_more_trains_that_run_alone_and_taken_back_nothing(project: Path) -> None:
    """`dvc exp run -S` on a leaf of `vary`."""
    put_under_git(project)
    before, had = outputs(project), stored(project)
    done = run(project, "dvc", "exp", "run", "--name", "third", "-S", f"{VARY}=[2/10,2/30,2/45]", "figure@exp3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stages_run(done) == OF_EXP3
    trained, found = sorted(stored(project) - had, key=len)
    assert found.startswith(f"{trained}.sharpness.")
    assert had < stored(project)
    after = outputs(project)
    others = {name for name in before if name.startswith(("stages/train/exp3/", "stages/diagnostics/exp3/"))}
    assert others & changed(before, after) == set()
    assert "stages/train/exp3/exp3_2over45/trajectory.csv" in after
    assert "η = 2/45" in after["figures/exp3/exp3.svg"].decode()
    shown = run(project, "dvc", "exp", "show", "--csv")
    rows = {row["Experiment"]: row for row in csv.DictReader(io.StringIO(shown.stdout))}
    assert "2/45" in rows["third"][VARY]
    assert rows["third"]["stages/metrics/exp3.json:steps"] == "10 10 10"

    assert run(project, "git", "checkout", "--quiet", "params.yaml", "dvc.lock").returncode == 0
    back = run(project, "dvc", "repro", "figure@exp3")
    assert stages_run(back) == {"check"} or "is cached - skipping run" in back.stdout
    assert changed(before, outputs(project)) == set()
    assert run(project, "dvc", "exp", "run", "-S", "experiments.exp3.vary.stepsize=[2/45]").returncode != 0


@pytest.mark.slow
def test_a_changed_diagnostic_trains_nothing(project: Path, change: Callable[[str, Any], None]) -> None:
    before, had = outputs(project), stored(project)
    change("experiments.exp3.diagnose.tau_scan.tolerance", 1e-5)
    assert repro(project, "diagnose@exp3") == {"check", "train@exp3", "diagnose@exp3"}
    (found,) = stored(project) - had
    assert ".tau_scan." in found
    scan = f"stages/diagnostics/exp3/{SCANNED}/tau_scan"
    assert changed(before, outputs(project)) <= {f"{scan}.csv", f"{scan}.json"}


@pytest.mark.slow
def test_one_figure_needs_its_own_runs_alone_and_is_the_same_from_nothing(project: Path) -> None:
    before = outputs(project)
    for name in (".dvc/cache", "stages", "figures"):
        shutil.rmtree(project / name)
    (project / "dvc.lock").unlink()
    assert repro(project, "figure@exp3") == {"data", *OF_EXP3}
    after = outputs(project)
    assert {name for name in after if before[name] != after[name]} == set()


@pytest.mark.slow
def test_without_the_tracking_server_only_the_last_stage_fails(project: Path) -> None:
    (project / "stages/tracked").unlink()
    done = run(project, "dvc", "repro", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode != 0
    assert "Warning: MLflow" in done.stderr
    assert "Error: MLflow does not have everything" in done.stderr
    assert "failed to reproduce 'track'" in done.stderr
    # It is back: nothing is computed again, and MLflow catches up.
    assert repro(project) == {"check", "track"}
    assert mlflow_runs(project).keys() == RUNS


@pytest.mark.slow
def test_any_section_may_be_empty(tmp_path: Path) -> None:
    params = write_part(tmp_path)
    (tmp_path / params["paper"] / "claims.yaml").unlink()
    assert run(tmp_path, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    assert repro(tmp_path) == {"check", "data", "verify", "report", "track"}
    assert repro(tmp_path) == {"check"}


@pytest.mark.slow
def test_a_killed_repro_goes_on_from_the_last_checkpoint(project: Path, change: Callable[[str, Any], None]) -> None:
    change(VARY, ["2/30"])
    change("profiles.quick.max_steps", 15_000)
    stage = ("dvc", "repro", "-s", "train@exp3")
    assert repro(project, "check", "data")
    reached = 0
    for victim in ("dvc", "stage"):
        with subprocess.Popen(
            stage, cwd=project, env=OFTEN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as killed:
            checkpoint = wait_for_a_checkpoint(project, later_than=time.time())
            # The stage holds the lock beside its checkpoints; /proc/locks says which process that is.
            inode = str((checkpoint.parents[1] / "lock").stat().st_ino)
            locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
            (worker,) = (int(fields[4]) for fields in locks if fields[5].endswith(f":{inode}"))
            os.kill(killed.pid if victim == "dvc" else worker, signal.SIGKILL)
            said = killed.communicate()[1]  # to the end of the pipe, which a stage that lives on would hold open
        assert going_on_from(said) == reached
        reached = load_checkpoint(checkpoint)["step"]
    assert not (project / f"stages/train/exp3/{SCANNED}/summary.json").exists()

    resumed = run(project, *stage)
    assert resumed.returncode == 0, resumed.stderr
    assert going_on_from(resumed.stderr) == reached > 0
    assert not list((project / "stages/unfinished").iterdir())
    after = outputs(project)
    shutil.rmtree(project / "stages/store")
    again = run(project, *stage, "--force")
    assert again.returncode == 0, again.stderr
    assert "train exp3_2over30: step 15000/15000" in again.stderr
    assert going_on_from(again.stderr) == 0
    assert changed(after, outputs(project)) == set()


@pytest.mark.slow
def test_two_at_once_and_ctrl_c_lose_nothing(project: Path, change: Callable[[str, Any], None]) -> None:
    change("profiles.quick.max_steps", 20_000)  # of two runs, in a process each where there are cores
    stage = ("dvc", "repro", "-s", "train@exp3")
    assert repro(project, "check", "data")
    with subprocess.Popen(
        stage, cwd=project, env=OFTEN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # not as behind &
    ) as first:  # fmt: skip
        wait_for_a_checkpoint(project, later_than=0)
        second = run(project, *stage)
        assert second.returncode != 0
        assert "Traceback" not in second.stderr
        assert "is busy" in second.stderr or "lock" in second.stderr

        os.killpg(first.pid, signal.SIGINT)  # as a terminal does
        said = first.communicate()[1]
    assert first.returncode != 0
    assert "Interrupted. The same command goes on from its last checkpoint" in said
    assert "Traceback" not in said
    resumed = run(project, *stage)
    assert resumed.returncode == 0, resumed.stderr
    assert going_on_from(resumed.stderr) > 0


def going_on_from(said: str) -> int:
    found = re.search(r"Going on from iteration (\d+)", said)
    return int(found[1]) if found else 0


def wait_for_a_checkpoint(project: Path, *, later_than: float, seconds: float = 120) -> Path:
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
    assert outputs(project).keys() - pulled.keys() == {"stages/tracked", "stages/code.json"}
    assert not (clone / "mlflow.db").exists()

    assert repro(clone) == {"check", "track"}
    assert mlflow_runs(clone).keys() == RUNS
    assert changed(pulled, outputs(clone)) == {"stages/tracked", "stages/code.json"}
    assert run(clone, "git", "diff", "--name-only", "dvc.lock", "dvc.yaml", "params.yaml").stdout == ""

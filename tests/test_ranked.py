"""The stages over ranks: the files of one process, whatever ends them, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eosrepro.records import store
from eosrepro.stages import ranked
from tests.project import ROOT, environment, write_params, write_project
from tests.test_cli import CLOSED_PORT, contents, message, run

GD = "exp3_2over30"
PROGRAM = (
    "from eosrepro.records import resuming; resuming.CHECKPOINT_SECONDS = 0.05; from eosrepro.cli import main; main()"
)
PROGRESS = (f"train {GD}", f"sharpness of {GD}", f"tau_scan of {GD}", "Going on")
INTERRUPTED = "Interrupted. The same command goes on from its last checkpoint, or anew where there is none yet\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: the small project with its data, whose examples are seven chunks; MLflow is away."""
    for name, value in {"MLFLOW_TRACKING_URI": CLOSED_PORT, "DVC_STAGE": "test", "EOSREPRO_JOBS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the ranks that are started
    return project(tmp_path / "one", monkeypatch)


def project(folder: Path, monkeypatch: pytest.MonkeyPatch, **profile: Any) -> Path:
    folder.mkdir()
    monkeypatch.chdir(folder)
    params = write_project(folder)
    params["compute"]["chunk_size"] = 15
    params["profiles"]["quick"] |= profile
    write_params(folder, params)
    assert run("data").exit_code == 0
    return folder


def made(folder: Path) -> dict[str, bytes]:
    """All that stages have made, but for times of files that the store remembers."""
    return {name: content for name, content in contents(folder).items() if not name.endswith(store.FILES)}


def start(folder: Path, command: str, ranks: int, *launcher: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(launcher or (sys.executable, "-c", PROGRAM)), *command.split()],
        cwd=folder,
        env=environment()
        | {"DVC_STAGE": "test", "PYTHONPATH": str(ROOT), "EOSREPRO_RANKS": str(ranks)}
        | {"EOSREPRO_CHECKPOINT_SECONDS": "0.05"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said, less its progress."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith(PROGRESS))


def others(first: int) -> list[int]:
    """The ranks that it has started."""
    tasks = Path(f"/proc/{first}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    until = time.monotonic() + 60
    while not (found := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def are_gone(processes: list[int]) -> bool:
    """Within ten seconds."""
    until = time.monotonic() + 10
    while left := [process for process in processes if Path(f"/proc/{process}").exists()]:
        if time.monotonic() > until:
            return not left
        time.sleep(0.05)
    return True


def test_a_training_of_two_ranks_makes_the_files_of_one_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", GD).exit_code == 0
    two = project(tmp_path / "two", monkeypatch)
    done = run("train", GD, "--ranks", "2")
    assert done.exit_code == 0, done.output
    assert f"stages/train/exp3/{GD}/trajectory.csv" in made(two)
    assert made(two) == made(folder)


def test_too_few_chunks_are_refused_before_a_process_is_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked._Team, "_start", lambda *_: pytest.fail("started"))
    before = contents(folder)
    monkeypatch.setenv("EOSREPRO_RANKS", "8")
    said = message(run("train", GD), exit_code=2)
    assert said.startswith("Error: 100 examples in chunks of 15 are 7 parts, which 8 ranks cannot share. Set ")
    assert contents(folder) == before


def test_neither_problems_nor_finished_runs_start_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("train", GD).exit_code == 0
    monkeypatch.setattr(ranked._Team, "_start", lambda *_: pytest.fail("started"))
    for runs in (GD, "example1"):
        assert run("train", runs, "--ranks", "2").exit_code == 0
    assert folder.exists()


def test_a_mistake_in_the_environment_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EOSREPRO_RANKS", "many")
    assert "'many' is not a valid integer range" in message(run("train", GD), exit_code=2)
    assert folder.exists()


# --- minutes ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.very_slow
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("experiment", ["exp3", "exp8"])
def test_stages_of_any_number_of_ranks_make_the_files_of_one_process(
    ranks: int, experiment: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("train", "diagnose"):
        assert run(stage, experiment).exit_code == 0
    shared = project(tmp_path / "shared", monkeypatch)
    monkeypatch.setenv("EOSREPRO_RANKS", str(ranks))
    for stage in ("train", "diagnose"):
        done = run(stage, experiment)
        assert done.exit_code == 0, done.output
    diagnostics = {"exp3": f"{GD}/tau_scan", "exp8": "exp8_2over50/expected_progress"}[experiment]
    assert f"stages/diagnostics/{experiment}/{diagnostics}.csv" in made(shared)
    assert made(shared) == made(folder)


LONG = {"max_steps": 500, "snapshot_every": 15}


@pytest.fixture
def long(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose training takes long enough to be interrupted."""
    assert folder
    return project(tmp_path / "long", monkeypatch, **LONG)


@pytest.mark.slow
@pytest.mark.very_slow
@pytest.mark.parametrize("whom", ["another", "first"])
def test_a_rank_that_is_killed_ends_all_and_one_process_goes_on(
    whom: str, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(long, f"train {GD}", 2)
    wait_for(lambda: [*long.glob("stages/unfinished/*/*/checkpoint")], process)
    all_ranks = [process.pid, *others(process.pid)]
    assert len(all_ranks) == 2
    started = time.monotonic()
    os.kill(all_ranks[whom == "another"], signal.SIGKILL)
    if whom == "another":
        assert ended(process, 1) == (
            "Error: rank 1 of 2 was killed by SIGKILL, most likely for want of memory. What is done is kept: the same "
            "command goes on from there, with any number of ranks\n"
        )
    else:
        process.communicate()
    assert are_gone(all_ranks[1:])
    assert time.monotonic() - started < 10
    done = run("train", GD)
    assert done.exit_code == 0, done.output
    assert "Going on from iteration" in done.stderr
    calm = project(tmp_path / "calm", monkeypatch, **LONG)
    assert run("train", GD).exit_code == 0
    assert made(calm) == made(long)


@pytest.mark.slow
@pytest.mark.very_slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_one_line_and_more_ranks_go_on(
    how: signal.Signals, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(long, f"train {GD}", 2)
    wait_for(lambda: [*long.glob("stages/unfinished/*/*/checkpoint")], process)
    all_ranks = others(process.pid)
    process.send_signal(how)
    assert ended(process, 1) == INTERRUPTED
    assert are_gone(all_ranks)
    again = start(long, f"train {GD}", 3)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert "Going on from iteration" in said
    calm = project(tmp_path / "calm", monkeypatch, **LONG)
    assert run("train", GD).exit_code == 0
    assert made(calm) == made(long)


@pytest.mark.slow
@pytest.mark.very_slow
def test_ranks_that_torchrun_starts_join(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = project(tmp_path / "shared", monkeypatch)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "eosrepro")
    for stage in ("train", "diagnose", "verify"):
        ended(start(shared, stage if stage == "verify" else f"{stage} {GD}", 1, *torchrun), 0)
    monkeypatch.chdir(folder)
    for command in (["train", GD], ["diagnose", GD], ["verify"]):
        assert run(*command).exit_code == 0
    assert made(shared) == made(folder)


@pytest.mark.slow
@pytest.mark.very_slow
def test_a_rank_with_other_code_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder
    monkeypatch.setattr(ranked, "_likeness", lambda *_: ["other"])
    said = message(run("train", GD, "--ranks", "2"), exit_code=1)
    assert said.startswith("Error: rank 1 of 2 ended: it has other code, data, libraries or another kind of processor ")


@pytest.mark.slow
@pytest.mark.very_slow
def test_a_first_rank_that_waits_for_one_that_is_dead_ends(long: Path) -> None:
    """As on a GPU, where nothing tells it."""
    program = (
        "import os, signal, sys, time; from eosrepro.config.load import load; from eosrepro.stages import ranked\n"
        "ranked.LAST_WORDS = 0.5\n"
        f"with ranked.shared_by(load().select('{GD}'), 3):\n"
        "    ranked._team.meet()\n"
        "    os.kill(ranked._team._processes[1].pid, signal.SIGKILL)\n"
        "    time.sleep(60)\n"
    )
    process = start(long, "", 1, sys.executable, "-c", program)
    assert ended(process, 1).startswith("Error: rank 2 of 3 was killed by SIGKILL, most likely for want of memory. ")

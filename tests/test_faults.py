"""What goes wrong around a stage, provoked for real: one clear message each, and nothing that was computed is lost.

The list with all outcomes is docs/faults.md. Others stand where the part is tested: damaged archives and images in
tests/data, MLflow in tests/test_tracking.py, two `dvc repro` at once and a killed one in tests/pipeline, mistakes in
params.yaml in tests/test_config.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eosrepro.records import store
from eosrepro.records.files import _checksum, load_json, save_json, sha256
from tests.project import ROOT, environment, small_params, write_params, write_project
from tests.test_cli import CLOSED_PORT, contents, message, run

GD = "exp3_2over30"
TRAIN, DIAGNOSTICS = f"stages/train/exp3/{GD}", f"stages/diagnostics/exp3/{GD}"
PROGRAM = (
    "from eosrepro.records import resuming; resuming.CHECKPOINT_SECONDS = 0.05; from eosrepro.cli import main; main()"
)
PROGRESS = (f"train {GD}", f"sharpness of {GD}", f"tau_scan of {GD}")
INTERRUPTED = "Interrupted. The same command goes on from its last checkpoint, or anew where there is none yet\n"
LONG = {"max_steps": 2500, "snapshot_every": 15}


def project(folder: Path, **profile: Any) -> Path:
    params = write_project(folder)
    params["profiles"]["quick"] |= profile
    if profile:  # where there are many snapshots, one diagnostic is enough
        params["experiments"]["exp3"]["diagnose"]["tau_scan"]["every"] = 750
        params["compute"]["reduce_inputs"] = False  # its snapshots are to fill a small disk
    write_params(folder, params)
    return folder


def around() -> dict[str, str]:
    return environment() | {"DVC_STAGE": "test", "PYTHONPATH": str(ROOT)}


def start(
    folder: Path, *arguments: str, before: Sequence[str] = (), start_new_session: bool = False
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=around(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def failure(process: subprocess.Popen[str]) -> str:
    """The message of a process that failed with one, without lines of progress."""
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith(PROGRESS))


def success(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate()
    assert process.returncode == 0, err
    return err


def wait_for(happened: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    while process.poll() is None:
        if found := happened():
            return found
        time.sleep(0.01)
    raise AssertionError(f"it ended before: {process.communicate()}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run takes seconds, trained. Not to be changed."""
    folder = project(tmp_path_factory.mktemp("trained") / "project", **LONG)
    success(start(folder, "data"))
    success(start(folder, "train", GD))
    return folder


@pytest.fixture
def long_run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("store")))


# --- a disk, a folder, a signal, memory -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_ends_a_training_that_goes_on_when_there_is_room(trained: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    small = project(tmp_path / "small", **LONG)
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=10m none {tmp_path}/disk || exit 99
        cp -R {small}/. {tmp_path}/disk && cd {tmp_path}/disk || exit 98
        eos() {{ "{sys.executable}" -c '{PROGRAM}' "$@" ; }}
        eos data && eos train {GD} ; echo "first: $?" >&2
        mount -o remount,size=100m {tmp_path}/disk || exit 97
        eos train {GD} ; echo "second: $?" >&2
        cp -R stages {small}
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=around(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.split("first: 1\n")
    warned, said = [line for line in first.splitlines() if not line.startswith(PROGRESS)]
    assert warned.startswith(f"Warning: the snapshots of {GD} take up to ")
    assert said.startswith("Error: cannot write stages/unfinished/")
    assert "No space left on device" in said
    assert "Free some space and run the same command again" in said
    assert "Going on from iteration" in second
    assert second.endswith("second: 0\n")
    assert less_times(contents(small)) == less_times(contents(trained))


def less_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without those of files that the store remembers."""
    return {name: content for name, content in files.items() if not name.endswith(store.FILES)}


def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    success(start(folder, "data"))
    before = contents(folder)
    # Root may write everywhere, but for its capability to overrule what files say.
    as_others = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    for place in places:
        place.chmod(0o555)
    said = failure(start(folder, "train", GD, before=as_others))
    for place in places:
        place.chmod(0o755)
    assert said.startswith("Error: cannot write stages/unfinished/")
    assert said.endswith("Permission denied. Make it writable, or run as a user who may write there\n")
    assert contents(folder) == before


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_is_one_line_and_the_run_goes_on(how: signal.Signals, long_run: Path) -> None:
    process = start(long_run, "train", GD)
    wait_for(lambda: list(long_run.glob("stages/unfinished/*/*/checkpoint")), process)
    process.send_signal(how)
    assert failure(process) == INTERRUPTED
    assert "Going on from iteration" in success(start(long_run, "train", GD))


def test_ctrl_c_ends_all_processes_of_a_stage(long_run: Path) -> None:
    process = start(long_run, "diagnose", GD, "--jobs", "2", start_new_session=True)
    wait_for(lambda: list(long_run.glob("stages/unfinished/*/*/from_*")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert failure(process) == INTERRUPTED
    assert list(long_run.glob("stages/unfinished/*/*/from_*"))


def test_a_worker_that_is_killed_ends_the_stage_with_a_message(long_run: Path) -> None:
    process = start(long_run, "diagnose", GD, "--jobs", "2")
    worker, *_ = wait_for(lambda: workers(process.pid), process)
    os.kill(worker, signal.SIGKILL)  # as Linux does where memory is short
    said = failure(process)
    assert said.startswith("Error: one of the processes that share the work was killed")
    assert "take a smaller --jobs" in said
    success(start(long_run, "diagnose", GD, "--jobs", "2"))


@pytest.mark.slow
def test_a_stage_that_is_killed_takes_its_processes_along_and_its_runs_go_on(long_run: Path) -> None:
    process = start(long_run, "train", "exp3", "--jobs", "2")
    wait_for(lambda: len(workers(process.pid)) == 2, process)
    wait_for(lambda: list(long_run.glob(f"stages/unfinished/*{GD}/*/snapshots/0000300.safetensors")), process)
    process.kill()
    process.communicate(timeout=60)  # to the end of the pipe, which the others hold
    assert list(long_run.glob(f"stages/unfinished/*{GD}/*/checkpoint"))
    assert "Going on from iteration" in success(start(long_run, "train", GD))


def workers(process: int) -> list[int]:
    """The processes that share its work: they come from one that it began."""
    servers = [child for child in children(process) if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return [worker for server in servers for worker in children(server)]


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


def work_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """With MLflow away, and in one process."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", CLOSED_PORT)
    patch.setenv("DVC_STAGE", "test")
    patch.setenv("EOSREPRO_JOBS", "1")  # to start others takes seconds


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose run is trained and measured. Not to be changed."""
    folder = project(tmp_path_factory.mktemp("measured") / "project")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        for stage in (["data"], ["train", GD], ["train", "example1"], ["diagnose", GD]):
            assert run(*stage).exit_code == 0
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of it."""
    folder = Path(shutil.copytree(measured, tmp_path / "copy"))
    work_in(folder, monkeypatch)
    return folder


def test_a_model_too_large_for_this_machine_is_refused_before_it_is_made(folder: Path) -> None:
    before = contents(folder)
    params = small_params()
    params["experiments"]["exp3"]["model"] |= {"width": 200_000}
    write_params(folder, params)
    started = time.monotonic()
    said = message(run("train", GD), exit_code=1)
    assert time.monotonic() - started < 5
    assert said.startswith(f"Error: {GD} has 40,616,800,010 parameters, and to train it takes at least 1949.6 GB")
    assert said.endswith("Make the model, data.n_examples or compute.chunk_size smaller, or take a larger machine\n")
    assert contents(folder) == before


@pytest.mark.parametrize("width", [10**18, 10**10])
def test_a_model_too_large_to_count_is_one_line(width: int, folder: Path) -> None:
    params = small_params()
    params["experiments"]["exp3"]["model"] |= {"width": width}
    write_params(folder, params)
    said = message(run("train", GD), exit_code=1)
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    assert "smaller" in said


@pytest.mark.slow
def test_memory_that_runs_out_is_one_line(tmp_path: Path) -> None:
    folder = project(tmp_path)
    success(start(folder, "data"))
    params = small_params()
    params["experiments"]["exp3"]["model"]["width"] = 4000
    write_params(folder, params)
    limited = PROGRAM.replace(
        "from eosrepro.cli import main",
        "import resource, torch; from eosrepro.stages import train; from eosrepro.cli import main; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)",
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "train", GD],
        cwd=folder, env=around(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: out of memory (")
    assert done.stderr.count("\n") == 1


# --- files that are not what was written ------------------------------------------------------------------------------

TRUNCATE: Callable[[bytes], bytes] = lambda content: content[: len(content) // 2]  # noqa: E731
ALTER: Callable[[bytes], bytes] = lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]  # noqa: E731


@pytest.mark.parametrize("damage", [TRUNCATE, ALTER], ids=["truncated", "altered"])
@pytest.mark.parametrize(
    ("stage", "path"),
    [
        (f"train {GD}", "stages/data/dataset.safetensors"),
        (f"diagnose {GD}", f"{TRAIN}/snapshots/0000005.safetensors"),
        ("figure exp3", f"{TRAIN}/trajectory.csv"),
        ("verify", f"{TRAIN}/trajectory.csv"),
        ("figure exp3", f"{DIAGNOSTICS}/sharpness.csv"),
        (f"track {GD}", f"{DIAGNOSTICS}/sharpness.csv"),
    ],
)
def test_a_truncated_or_altered_file_is_named_and_not_used(
    stage: str, path: str, damage: Callable[[bytes], bytes], folder: Path
) -> None:
    shutil.rmtree(folder / "stages/store")
    (folder / path).write_bytes(damage((folder / path).read_bytes()))
    before = contents(folder)
    said = message(run(*stage.split()), exit_code=1)
    (line,) = [each for each in said.splitlines() if not each.startswith(PROGRESS)]
    assert line.startswith(f"Error: {path} is ")
    assert line.endswith("run `dvc repro`")
    assert {name: content for name, content in contents(folder).items() if "unfinished" not in name} == before


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("verify", f"{TRAIN}/summary.json"),
        ("figure exp3", f"{TRAIN}/run.json"),
        ("figure exp3", f"{DIAGNOSTICS}/sharpness.json"),
    ],
)
def test_facts_that_are_missing_are_named(stage: str, path: str, folder: Path) -> None:
    (folder / path).write_text("{}", encoding="utf-8")
    said = message(run(*stage.split()), exit_code=1)
    assert said.startswith(f"Error: {path} lacks ")


@pytest.mark.parametrize(
    ("command", "half"),
    [
        ("figure example1", "figures/example1/.table.csv.123.tmp"),
        ("verify", "stages/verify/.claims.md.123.tmp"),
        ("report", "stages/.report.html.123.tmp"),
    ],
)
def test_halves_of_files_that_a_kill_left_go_with_the_next_attempt(command: str, half: str, folder: Path) -> None:
    path = folder / half
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    done = run(*command.split())
    assert done.exit_code == 0, done.output
    assert not path.exists()


def test_verdicts_of_another_version_are_named(folder: Path) -> None:
    assert run("verify").exit_code == 0
    path = folder / "stages/verify/claims.json"
    verdicts = load_json(path)
    save_json(path, {name: {**verdict, "mood": "good"} for name, verdict in verdicts.items()})
    assert "run `eosrepro verify`" in message(run("report"), exit_code=1)


def test_nan_in_the_data_is_found_before_training(folder: Path) -> None:
    path = folder / "stages/data/dataset.safetensors"
    tensors = load_file(path)
    tensors["inputs"][17, 0, 3, 4] = torch.nan
    save_file(tensors, path, {"sha256": _checksum(tensors)})
    provenance = load_json(folder / "stages/data/provenance.json")
    save_json(folder / "stages/data/provenance.json", {**provenance, "sha256": sha256(path)})
    assert message(run("train", GD), exit_code=1) == (
        "Error: photo-patches: example 17 has inputs that are NaN or infinite\n"
    )

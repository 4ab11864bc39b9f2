"""`eosrepro farm` on this machine while its processes are killed: nothing is lost, and nothing differs by a byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from eosrepro.tools.messages import INTERRUPTED
from tests.pipeline.farming import (
    RUNS,
    at_work,
    checkpoints,
    dvc,
    end_of,
    going_on,
    outputs,
    processes,
    reproduced,
    start,
    wait_for,
    write_long,
)

pytestmark = [pytest.mark.slow, pytest.mark.very_slow]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on which `dvc repro` alone has run. Not to be changed."""
    folder = tmp_path_factory.mktemp("serial")
    write_long(folder)
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(serial: Path, tmp_path: Path) -> Path:
    """The same with the data alone."""
    folder = tmp_path / "project"
    left_out = shutil.ignore_patterns("mlflow.db*", "mlartifacts", "cache", "store", "train", "diagnostics", "figures")
    shutil.copytree(serial, folder, symlinks=True, ignore=left_out)
    shutil.copytree(serial / ".dvc/cache/files", folder / ".dvc/cache/files")
    (folder / "dvc.lock").unlink()
    assert dvc(folder, "repro", "data").returncode == 0
    return folder


def test_a_killed_worker_and_a_killed_run_go_on_elsewhere_and_dvc_repro_trains_nothing(
    project: Path, serial: Path
) -> None:
    with start(project, "-j", "2") as farm:
        wait_for(lambda: len(checkpoints(project)) == 2)
        worker = next(iter(at_work(project).values()))
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: worker not in at_work(project).values())
        wait_for(lambda: at_work(project))
        os.kill(next(iter(at_work(project))), signal.SIGKILL)
        code, said = end_of(farm)
    assert code == 0, said
    assert {*going_on(said).values()} - {0}, said
    assert "run 2/2  running 0  failed 0" in said
    assert reproduced(project) == outputs(serial)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "Ctrl-C"])
def test_a_farm_that_ends_takes_its_processes_along_and_the_next_goes_on(how: str, project: Path, serial: Path) -> None:
    with start(project, "-j", "2") as farm:
        wait_for(lambda: len(checkpoints(project)) == 2)
        if how == "Ctrl-C":
            os.killpg(farm.pid, signal.SIGINT)  # as a terminal does
        else:
            farm.send_signal(signal.Signals[how])
        code, said = end_of(farm)
    assert code == (-signal.SIGKILL if how == "SIGKILL" else 1)
    wait_for(lambda: not processes(project), seconds=10 if how == "SIGKILL" else 1)
    if how != "SIGKILL":
        assert said.splitlines()[-1] == INTERRUPTED
        assert "Traceback" not in said
        assert {path.name for path in project.glob("stages/store/.*")} == set()
    assert len(checkpoints(project)) == 2

    with start(project, "-j", "2") as second:
        code, said = end_of(second)
    assert code == 0, said
    assert going_on(said).keys() == {*RUNS}
    if how == "SIGKILL":
        assert reproduced(project) == outputs(serial)


def test_two_farms_at_once_compute_each_run_once(project: Path) -> None:
    with start(project, "-j", "2") as first, start(project, "-j", "2") as second:
        codes, said = zip(end_of(first), end_of(second), strict=True)
    assert codes == (0, 0), said
    waited = re.findall(r"^(\w+): another process works at .* it is waited for$", "".join(said), re.MULTILINE)
    assert {*waited} == {*RUNS}, said
    assert not any(map(going_on, said))
    assert len([path for path in (project / "stages/store").iterdir() if "." not in path.name]) == 2

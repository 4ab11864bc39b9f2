"""`eosrepro farm` on this machine while its processes are killed: nothing is lost, and nothing differs by a byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from eosrepro.tools.messages import INTERRUPTED
from tests.pipeline import farming

pytestmark = [pytest.mark.slow, pytest.mark.very_slow]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on which `dvc repro` alone has run. Not to be changed."""
    folder = tmp_path_factory.mktemp("serial")
    farming.write_long(folder)
    done = farming.dvc(folder, "repro")
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
    assert farming.dvc(folder, "repro", "data").returncode == 0
    return folder


def test_a_killed_worker_and_a_killed_run_go_on_elsewhere_and_dvc_repro_trains_nothing(
    project: Path, serial: Path
) -> None:
    with farming.start(project, "-j", "2") as farm:
        farming.wait_for(lambda: farming.are_under_way(project))
        worker = next(iter(farming.at_work(project).values()))
        os.kill(worker, signal.SIGKILL)
        farming.wait_for(lambda: worker not in farming.at_work(project).values())
        farming.wait_for(lambda: farming.at_work(project))
        os.kill(next(iter(farming.at_work(project))), signal.SIGKILL)
        code, said = farming.end_of(farm)
    assert code == 0, said
    assert {*farming.going_on(said).values()} - {0}, said
    assert "run 2/2  running 0  failed 0" in said
    assert farming.reproduced(project) == farming.outputs(serial)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "Ctrl-C"])
def test_a_farm_that_ends_takes_its_processes_along_and_the_next_goes_on(how: str, project: Path, serial: Path) -> None:
    with farming.start(project, "-j", "2") as farm:
        farming.wait_for(lambda: len(farming.checkpoints(project)) == 2)
        if how == "Ctrl-C":
            os.killpg(farm.pid, signal.SIGINT)  # as a terminal does
        else:
            farm.send_signal(signal.Signals[how])
        code, said = farming.end_of(farm)
    assert code == (-signal.SIGKILL if how == "SIGKILL" else 1)
    farming.wait_for(lambda: not farming.processes(project), seconds=10 if how == "SIGKILL" else 1)
    if how != "SIGKILL":
        assert said.splitlines()[-1] == INTERRUPTED
        assert "Traceback" not in said
        assert {path.name for path in project.glob("stages/store/.*")} == set()
    assert len(farming.checkpoints(project)) == 2

    with farming.start(project, "-j", "2") as second:
        code, said = farming.end_of(second)
    assert code == 0, said
    assert farming.going_on(said).keys() == {*farming.RUNS}
    if how == "SIGKILL":
        assert farming.reproduced(project) == farming.outputs(serial)


def test_two_farms_at_once_compute_each_run_once(project: Path) -> None:
    with farming.start(project, "-j", "2") as first, farming.start(project, "-j", "2") as second:
        codes, said = zip(farming.end_of(first), farming.end_of(second), strict=True)
    assert codes == (0, 0), said
    waited = re.findall(r"^(\w+): another process works at .* it is waited for$", "".join(said), re.MULTILINE)
    assert {*waited} == {*farming.RUNS}, said
    assert not any(map(farming.going_on, said))
    assert len([path for path in (project / "stages/store").iterdir() if "." not in path.name]) == 2

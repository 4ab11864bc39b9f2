"""A farm on a real Slurm: controller, two nodes and a job array of workers on the loopback interface.

`apt-get install slurm-wlm munge`, and root: where they are missing, it is skipped. Its daemons are its own, with
keys, ports and folders of their own; it ends those processes that it started, and no others.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.pipeline import farming

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
MISSING = [name for name in NEEDED if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.very_slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: `apt-get install slurm-wlm munge`"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
]

CONFIGURATION = """
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldPort={ports[0]}
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmUser=root
StateSaveLocation={folder}/state
SwitchType=switch/none
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
KillWait=5
SchedulerParameters=sched_interval=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 State=UNKNOWN
"""

WORKER = "dask worker --scheduler-file s.json --host 127.0.0.1 --nthreads 1 --memory-limit 0 --no-dashboard"

FOUND = "diagnose@exp3"  # the stage that needs all that is computed


class Slurm:
    """A running one."""

    def __init__(self, folder: Path) -> None:
        self.environment = farming.ENVIRONMENT | {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def do(self, folder: Path, *command: str) -> str:
        """What one of its commands prints."""
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def running(self, folder: Path) -> list[str]:
        """The elements of job arrays that run: `3_1`."""
        return self.do(folder, "squeue", "--noheader", "--states=RUNNING", "--format=%i").split()


@contextmanager
def daemon(folder: Path, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the block ends."""
    with (folder / f"{name}.out").open("wb") as said:
        environment = farming.ENVIRONMENT | {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A controller and two nodes of one CPU each."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(text, encoding="ascii")
    files = {name: f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    files["socket"] = f"--socket={folder}/munge.sock"
    with ExitStack() as stack:
        for name, *command in [
            ("munged", "munged", "--foreground", "--force", f"--key-file={key}", *files.values()),
            ("slurmctld", "slurmctld", "-D", "-f", f"{folder}/slurm.conf"),
            ("n1", "slurmd", "-D", "-N", "n1", "-f", f"{folder}/slurm.conf"),
            ("n2", "slurmd", "-D", "-N", "n2", "-f", f"{folder}/slurm.conf"),
        ]:
            stack.enter_context(daemon(folder, name, *command))
            if name == "munged":
                farming.wait_for((folder / "munge.sock").exists, seconds=20)
        made = Slurm(folder)
        idle = ("sinfo", "--noheader", "--states=idle", "--Node", "--format=%N")
        farming.wait_for(lambda: len(answer(made, folder, *idle).split()) == 2, seconds=60)
        yield made
        answer(made, folder, "scancel", "--user=root")
        farming.wait_for(lambda: not answer(made, folder, "squeue", "--noheader"), seconds=60)


def answer(slurm: Slurm, folder: Path, *command: str) -> str:
    """What a command prints; nothing where the controller is not up yet."""
    done = subprocess.run(command, cwd=folder, env=slurm.environment, capture_output=True, text=True, check=False)
    return done.stdout


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_a_job_array_whose_elements_are_cancelled_and_killed_computes_what_dvc_repro_would(
    slurm: Slurm, tmp_path: Path
) -> None:
    serial, project = tmp_path / "serial", tmp_path / "project"
    project.mkdir()
    farming.write_long(project)
    shutil.copytree(project, serial, symlinks=True)
    scheduler = ("dask", "scheduler", "--scheduler-file", "s.json", "--host", "127.0.0.1", "--port", "0")
    with daemon(project, "scheduler", *scheduler, "--no-dashboard"):
        farming.wait_for((project / "s.json").exists, seconds=60)
        slurm.do(
            project, "sbatch", "--array=1-4%2", "--requeue", "--output=%a.log", f"--wrap={WORKER} --death-timeout 60"
        )
        with farming.start(project, "--scheduler-file", "s.json") as farm:
            farming.wait_for(lambda: len(farming.checkpoints(project)) == 2 == len(farming.at_work(project)))
            first = slurm.running(project)
            assert [each.partition("_")[2] for each in sorted(first)] == ["1", "2"]
            slurm.do(project, "scancel", *first)

            second = farming.wait_for(
                lambda: not {*first} & {*(found := slurm.running(project))} and len(found) == 2 and found
            )
            assert [each.partition("_")[2] for each in sorted(second)] == ["3", "4"]
            worker = next(iter(farming.wait_for(lambda: farming.at_work(project)).values()))
            os.kill(worker, signal.SIGKILL)

            code, said = farming.end_of(farm)
        slurm.do(project, "scancel", *second)
    assert code == 0, said
    assert sum(farming.going_on(said).values()) > 0, said
    assert "run 2/2  running 0  failed 0" in said
    farming.wait_for(lambda: not farming.processes(project), seconds=30)

    assert farming.dvc(serial, "repro", FOUND).returncode == 0
    assert farming.reproduced(project, FOUND) == farming.outputs(serial)


def test_job_scripts_by_hand_compute_what_a_dry_farm_lists(slurm: Slurm, tmp_path: Path) -> None:
    farming.write_long(tmp_path)
    with farming.start(tmp_path, "--dry") as listed:
        (tmp_path / "runs.txt").write_text(listed.communicate()[0])
    eosrepro = f"{sys.executable} -c 'from eosrepro.cli import main; main()'"
    one = f'{eosrepro} work "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" runs.txt)"'
    slurm.do(tmp_path, "sbatch", "--array=1-2%2", "--requeue", "--output=%a.log", "--wait", f"--wrap={one}")
    assert [(tmp_path / f"{i}.log").read_text().splitlines()[-1] for i in (1, 2)] == [
        "exp3_2over10 is computed",
        "exp3_2over30 is computed",
    ]
    farming.reproduced(tmp_path, FOUND)

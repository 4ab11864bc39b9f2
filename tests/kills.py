"""Kill stages of the pipeline at random moments, start them again, and compare what they end with.

    python -m tests.kills --kills 200

Every command runs once in peace. Then, in a fresh copy, each is started again and again and killed by SIGKILL after a
random share of the time that it took, until it has been killed its share of the kills; and then it is left to end. The
files that it has made must be, byte for byte, those of the first time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click

from eosrepro import cli
from eosrepro.records import resuming
from eosrepro.stages import workers
from tests.project import ROOT, small_params, write_params

GD, SGD = "exp3_2over30", "exp8_2over50"
COMMANDS = (
    "data",
    f"train {SGD}",
    f"diagnose {SGD}",
    "measure exp8_2over50",
    f"train {GD}",
    f"diagnose {GD}",
    "measure exp5",
    "train --toys",
    "diagnose --toys",
    "plot exp8",
    "verify",
)
UNFINISHED = resuming.UNFINISHED
CHECKPOINT_SECONDS, BLOCK = 0.02, 5  # checkpoints follow each other as closely as kills do, and blocks are small


class Outcome(NamedTuple):
    """What came of it."""

    kills: int
    resumed: int  # starts that found unfinished work
    different: list[str]  # command: file that is not as in peace


def run(folder: Path, *, count: int, seed: int, commands: tuple[str, ...]) -> Outcome:
    """Kill `count` times, spread over the commands by `seed`."""
    calm, stormy = folder / "calm", folder / "stormy"
    for place in (calm, stormy):
        _prepare(place)
    chosen = random.Random(seed)
    shares = [count // len(commands)] * len(commands)
    for index in chosen.sample(range(len(commands)), count % len(commands)):
        shares[index] += 1
    killed, resumed, different = 0, 0, []
    for command, share in zip(commands, shares, strict=True):
        started = time.monotonic()
        _command(calm, command)
        took = time.monotonic() - started
        done = 0
        while done < share:
            resumed += _has_unfinished_work(stormy)
            done += _killed(stormy, command, chosen.uniform(0, 1) * took)
        killed += done
        resumed += _has_unfinished_work(stormy)
        _command(stormy, command)
        different += [f"{command}: {name}" for name in _different(calm, stormy)]
    return Outcome(killed, resumed, different)


def _prepare(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "reference").symlink_to(ROOT / "reference")
    params = small_params()
    params["profiles"]["quick"] |= {"max_steps": 2000, "max_epochs": 100, "snapshot_every": 40}
    write_params(place, params)


def _start(place: Path, command: str) -> int:
    """Start a command as a stage; the id of its process.

    It is forked from this process, which has imported PyTorch and not used it: a kill hits work, and not imports.
    """
    process = os.fork()
    if process:
        return process
    os.chdir(place)
    os.environ["DVC_STAGE"] = "kills"  # there short stages leave MLflow alone
    with (place / "said.txt").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    resuming.CHECKPOINT_SECONDS, workers.BLOCK = CHECKPOINT_SECONDS, BLOCK
    code = 1
    try:
        cli.main(command.split(), prog_name="eosrepro")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def _command(place: Path, command: str) -> None:
    _, status = os.waitpid(_start(place, command), 0)
    if status:
        raise RuntimeError(f"{command}: {(place / 'said.txt').read_text()}")


def _killed(place: Path, command: str, after: float) -> bool:
    """Whether it was killed, and had not ended before; then it starts from nothing, as DVC lets it."""
    process = _start(place, command)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    kind = {"train": "train", "diagnose": "diagnostics", "data": "data"}.get(command.split()[0])
    if kind and "--toys" not in command:
        shutil.rmtree(place / "stages" / kind / _run_folder(command), ignore_errors=True)
    return False


def _has_unfinished_work(place: Path) -> bool:
    return any(path.name == "checkpoint" or path.name.startswith("from_") for path in place.glob(f"{UNFINISHED}/*/*/*"))


def _run_folder(command: str) -> str:
    name = command.partition(" ")[2]
    return f"{small_params()['experiments'][name]['folder']}/{name}" if name else ""


def _different(calm: Path, stormy: Path) -> list[str]:
    left, right = _files(calm), _files(stormy)
    return [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]


def _files(place: Path) -> dict[str, bytes]:
    paths = [path for root in ("stages", "figures") for path in (place / root).rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths}


@click.command()
@click.option("--kills", "count", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--commands", default=len(COMMANDS), show_default=True, help="Only the first of them.")
def main(count: int, seed: int, commands: int) -> None:
    """Kill stages at random moments, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), count=count, seed=seed, commands=COMMANDS[:commands])
    click.echo(
        f"{outcome.kills} kills, {outcome.resumed} starts with unfinished work; differences: {outcome.different}"
    )
    sys.exit(bool(outcome.different))


if __name__ == "__main__":
    main()

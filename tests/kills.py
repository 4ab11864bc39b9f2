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
from eosrepro.records import resuming, store
from eosrepro.stages import diagnose
from tests.project import write_params, write_project

COMMANDS = (
    "data",
    "train exp8 --jobs 1",
    "diagnose exp8 --jobs 1",
    "train exp3 --jobs 1",
    "diagnose exp3 --jobs 1",
    "train example1",
    "diagnose example1",
    "figure exp8",
    "verify",
)
MADE_BY = {"train": "train", "diagnose": "diagnostics", "data": "data"}  # stage → its folder
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
        done, before = 0, _stored(stormy)
        while done < share:
            resumed += _has_unfinished_work(stormy)
            if _killed(stormy, command, chosen.uniform(0, 1) * took):
                done += 1
            else:
                _forget(stormy, command, before)
        killed += done
        resumed += _has_unfinished_work(stormy)
        _command(stormy, command)
        different += [f"{command}: {name}" for name in _different(calm, stormy)]
    return Outcome(killed, resumed, different)


def _prepare(place: Path) -> None:
    params = write_project(place)
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
    resuming.CHECKPOINT_SECONDS, diagnose.BLOCK = CHECKPOINT_SECONDS, BLOCK
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
    """Whether it was killed, and had not ended before."""
    process = _start(place, command)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def _forget(place: Path, command: str, stored: set[str]) -> None:
    """Remove what the command has made, so that it starts from nothing; `stored` was there before."""
    stage, *of = command.split()
    if stage in MADE_BY:
        shutil.rmtree(place / "stages" / MADE_BY[stage] / "".join(of[:1]), ignore_errors=True)
    for key in _stored(place) - stored:
        shutil.rmtree(place / store.STORE / key)


def _stored(place: Path) -> set[str]:
    return {path.name for path in (place / store.STORE).glob("*")}


def _has_unfinished_work(place: Path) -> bool:
    kept = [path.name for path in place.glob(f"{resuming.UNFINISHED}/*/*/*")]
    return any(name == "checkpoint" or name.startswith("from_") for name in kept)


def _different(calm: Path, stormy: Path) -> list[str]:
    left, right = _files(calm), _files(stormy)
    return [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]


def _files(place: Path) -> dict[str, bytes]:
    """All that was made, but for the times of files that the store remembers."""
    paths = [path for root in ("stages", "figures") for path in (place / root).rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths if path.name != store.FILES}


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

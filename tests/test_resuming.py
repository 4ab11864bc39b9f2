"""A stage that is interrupted, by an error or by SIGKILL, and started again makes what it would have made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import pytest

from eosrepro.config.load import load as load_config
from eosrepro.core.types import Row
from eosrepro.errors import StoreError
from eosrepro.records import resuming, store
from eosrepro.records.dataset import DATA, load_dataset
from eosrepro.records.files import load_checkpoint, save_checkpoint
from eosrepro.records.places import STAGES
from eosrepro.records.snapshots import load_snapshot
from eosrepro.stages import diagnose as stage
from eosrepro.stages.data import make_data
from eosrepro.stages.train import into_store
from tests.project import ROOT, alone, small_params, write_params

GD, SGD = "exp3_2over30", "exp8_2over50"
KEY = "made-by-this-test"
MADE = store.STORE / KEY


class StoppedError(Exception):
    """Where a test interrupts a stage."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: small runs, their data made, a checkpoint at every iterate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resuming, "CHECKPOINT_SECONDS", 0.0)
    write_params(tmp_path, alone(small_params(), "exp3", "exp8"))
    make_data(load_config())
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    params = alone(small_params(), "exp3", "exp8")
    edit(params)
    write_params(folder, params)


def train(name: str, *, until: int | None = None) -> list[int]:
    """Train a run, up to the row of iteration `until`; the iterations that were computed, and not read back."""
    computed: list[int] = []
    before = resuming.Training.keep

    def observe(row: Row) -> None:
        if row.step == until:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming.Training, "keep", lambda self, at: (computed.append(at.step), before(self, at))[1])
        into_store(load_config().run(name), load_dataset(DATA), KEY, observe=observe)
    return computed


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != store.FILES]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", [GD, SGD])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_files(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(name) == list(range(11))
    whole = files(MADE)
    shutil.rmtree(MADE)

    with pytest.raises(StoppedError):
        train(name, until=7)
    assert not MADE.exists()
    assert train(name) == [7, 8, 9, 10]
    assert "Going on from iteration 7" in capsys.readouterr().err

    assert files(MADE) == whole
    assert store.holds(KEY)
    assert not list((project / "stages/unfinished").iterdir())


def test_work_that_was_killed_after_its_result_was_kept_is_removed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "BLOCK", 1)
    declared = load_config().run(GD)
    run = replace(declared, diagnose={"sharpness": declared.diagnose["sharpness"]})
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_args, **_options: None)  # as if killed before
        for make in (lambda: train(GD), lambda: stage.into_store([run], {GD: MADE}, load_dataset(DATA), jobs=1)):
            with suppress(OSError):
                make()
    unfinished = project / "stages/unfinished"
    for place in ("train.exp3.exp3_2over30", "diagnostics.exp3.exp3_2over30.sharpness"):
        (unfinished / place / "lock").touch()
        assert list((unfinished / place).glob("*/*"))
    assert train(GD) == []
    stage.into_store([run], {GD: MADE}, load_dataset(DATA), jobs=1)
    assert not list(unfinished.iterdir())


@pytest.mark.parametrize(
    "edit",
    [
        lambda params: params["experiments"]["exp3"].update(vary={"step_size": {"2over30": "2/40"}}),
        lambda params: params["experiments"]["exp3"].update(seed=4),
        lambda params: params["experiments"]["exp3"]["model"].update(width=9),
        lambda params: params["compute"].update(dtype="float64"),
        lambda params: params["compute"].update(threads=2),
        lambda params: params["profiles"]["quick"].update(max_steps=9),
        lambda params: params["profiles"]["quick"].update(snapshot_every=7),
    ],
)
def test_a_changed_setting_starts_afresh(edit: Callable[[dict[str, Any]], None], project: Path) -> None:
    with pytest.raises(StoppedError):
        train(GD, until=7)
    change(project, edit)
    with pytest.raises(StoppedError):
        train(GD, until=5)
    assert len(list((project / "stages/unfinished").glob("*/*/checkpoint"))) == 1  # the stale one is gone
    assert train(GD)[0] == 5


@pytest.mark.usefixtures("project")
def test_changed_sources_start_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the training, which its key tells, and those that read and write checkpoints."""
    for module, name, edited in (
        (sys.modules[__name__], "KEY", "made-by-other-code"),
        (resuming, "digest_of", lambda _modules: "edited"),
    ):
        with pytest.raises(StoppedError):
            train(GD, until=7)
        monkeypatch.setattr(module, name, edited)
        assert train(GD)[0] == 0
        store.remove(KEY)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:40] + b"?" + data[41:], lambda _: b""])
@pytest.mark.parametrize("pattern", ["checkpoint", "snapshots/0000005.safetensors"])
def test_a_damaged_checkpoint_or_snapshot_is_said_and_not_gone_on_with(
    pattern: str, damage: Callable[[bytes], bytes], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoppedError):
        train(GD, until=7)
    (path,) = (project / "stages/unfinished").glob(f"*/*/{pattern}")
    path.write_bytes(damage(path.read_bytes()))
    assert train(GD)[0] == 0
    what = "truncated or altered" if pattern == "checkpoint" else "missing, truncated or altered"
    assert f"{path.relative_to(project)} is {what}" in capsys.readouterr().err


def test_a_state_that_cannot_be_read_safely_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"state": Fraction(1, 3)})
    with pytest.raises(StoreError, match="holds more than numbers, texts and tensors"):
        load_checkpoint(path)


def test_a_lock_is_taken_anew_where_it_was_removed_before_it_was_held(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process was done between our opening and our locking: we hold what no other will look at."""
    place = resuming.place_of(STAGES / "train/run")
    lock, opened = resuming.try_lock, []

    def late(file: IO[str]) -> bool:
        opened.append(file)
        if len(opened) == 1:
            (project / place / "lock").unlink()
        return lock(file)

    monkeypatch.setattr(resuming, "try_lock", late)
    with resuming.unfinished(STAGES / "train/run", "key"):
        assert len(opened) == 2
        assert (project / place / "lock").stat().st_ino == os.fstat(opened[1].fileno()).st_ino
    assert not place.exists()


@pytest.mark.usefixtures("project")
def test_a_result_has_one_process_at_a_time() -> None:
    result = STAGES / "train/some/run"
    with (
        resuming.unfinished(result, "key"),
        pytest.raises(StoreError, match=f"another process works at {result}"),
        resuming.unfinished(result, "another key"),
    ):
        pytest.fail("both are in")
    with resuming.unfinished(result, "key"):
        pass


def test_an_interrupted_measurement_goes_on_after_the_blocks_that_are_done(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "BLOCK", 1)
    train(GD)
    declared = load_config().run(GD)
    run = replace(declared, diagnose={"sharpness": declared.diagnose["sharpness"]})
    loads = monkeypatch_loads(monkeypatch)

    def diagnose() -> list[int]:
        loads.clear()
        stage.into_store([run], {GD: MADE}, load_dataset(DATA), jobs=1)
        return loads

    assert diagnose() == [0, 5, 10]
    (made,) = store.STORE.glob("*.sharpness.*")
    whole = files(made)
    shutil.rmtree(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "save_measured", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            diagnose()
    (second,) = (project / "stages/unfinished").glob("*/*/from_0000005")
    second.unlink()
    assert diagnose() == [5]
    assert files(made) == whole


def monkeypatch_loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The iterations whose snapshots are loaded from now on."""
    loads: list[int] = []
    load = load_snapshot
    monkeypatch.setattr(stage, "load_snapshot", lambda path: (loads.append(int(path.stem)), load(path))[1])
    return loads


@pytest.mark.parametrize(
    ("kills", "commands"), [(6, 2), pytest.param(12, 4, marks=[pytest.mark.slow, pytest.mark.very_slow])]
)
def test_kills_at_random_moments_leave_the_same_files(kills: int, commands: int) -> None:
    command = [sys.executable, "-m", "tests.kills", "--kills", str(kills), "--commands", str(commands), "--seed", "1"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.fullmatch(r"(\d+) kills, (\d+) starts with unfinished work; differences: \[\]\n", outcome.stdout)
    assert found, outcome.stdout + outcome.stderr
    assert int(found[1]) == kills
    assert int(found[2]) > 0 or kills < 12  # of few, all may come before the first checkpoint


def test_a_stage_ends_with_the_process_that_started_it() -> None:
    child = (
        "from eosrepro.stages.processes import die_with_parent; die_with_parent(); print('up', flush=True); "
        "import time; time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
        # The pipe to the child closes with the child alone: reading to its end waits for that.
        assert process.stdout.read() == ""

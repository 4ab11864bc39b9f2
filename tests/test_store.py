"""Data sets and snapshots on disk: they come back bit by bit, or an error says why not."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eosrepro.core.types import Dataset, Outcome, Position, Row
from eosrepro.data._preprocessing import preprocess
from eosrepro.data.photo_patches import photo_patches
from eosrepro.errors import StoreError
from eosrepro.records import store
from eosrepro.records.dataset import load_dataset, save_dataset
from eosrepro.records.files import load_json, save_json, save_text
from eosrepro.records.published import published
from eosrepro.records.runs import Measured, Origin, Record, load_record, save_measured, save_run
from eosrepro.records.snapshots import load_snapshot, load_snapshots, save_snapshot, snapshot_paths
from tests.records import PAPER


@pytest.fixture
def dataset() -> Dataset:
    raw = photo_patches(n_examples=20, seed=0)
    return preprocess(raw, scale="unit", standardise="per_feature", statistics="subset")


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The operating system refuses to let a file grow beyond `size` bytes: as near to a full disk as a test may go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_comes_back_bit_by_bit(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    loaded = load_dataset(tmp_path)

    assert torch.equal(loaded.inputs, dataset.inputs)
    assert torch.equal(loaded.targets, dataset.targets)
    assert (loaded.inputs.dtype, loaded.targets.dtype) == (torch.float32, torch.int64)
    assert (loaded.n_outputs, loaded.label) == (10, "photo-patches")
    assert {key: loaded.provenance[key] for key in dataset.provenance} == dataset.provenance


def test_equal_datasets_are_equal_files(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path / "one", dataset)
    save_dataset(tmp_path / "other", dataset)

    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert contents(tmp_path / "one").keys() == {"dataset.safetensors", "provenance.json"}


def test_a_loaded_dataset_can_be_changed_and_saved(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    loaded = load_dataset(tmp_path)
    save_dataset(tmp_path, dataclasses.replace(loaded, inputs=2 * loaded.inputs, label="twice"))
    again = load_dataset(tmp_path)

    assert torch.equal(again.inputs, 2 * dataset.inputs)
    assert again.label == again.provenance["label"] == "twice"


def test_one_altered_bit_is_noticed(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    path = tmp_path / "dataset.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"dataset\.safetensors is truncated or altered"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_truncated_dataset_is_noticed(tmp_path: Path, dataset: Dataset, keep: int) -> None:
    save_dataset(tmp_path, dataset)
    path = tmp_path / "dataset.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"dataset\.safetensors is truncated or altered"):
        load_dataset(tmp_path)


def test_tensors_of_another_kind_are_noticed(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    save_snapshot(tmp_path, Position(0, torch.zeros(3), None))
    (tmp_path / "0000000.safetensors").replace(tmp_path / "dataset.safetensors")
    with pytest.raises(StoreError, match="has changed since"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["dataset.safetensors", "provenance.json"])
def test_a_missing_file_is_named(tmp_path: Path, dataset: Dataset, name: str) -> None:
    save_dataset(tmp_path, dataset)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=f"{name} does not exist"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable JSON"),
        ('{"label": ', "not readable JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"label": "x", "n_outputs": 10}', "lacks sha256"),
    ],
    ids=["empty", "truncated", "list", "incomplete"],
)
def test_a_damaged_provenance_is_named(tmp_path: Path, dataset: Dataset, text: str, message: str) -> None:
    save_dataset(tmp_path, dataset)
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(StoreError, match=rf"provenance\.json.*{message}"):
        load_dataset(tmp_path)


def test_a_dataset_that_changes_between_its_two_files_is_not_loaded(tmp_path: Path, dataset: Dataset) -> None:
    """Killed after dataset.safetensors was written and before provenance.json: the old provenance does not fit."""
    save_dataset(tmp_path / "old", dataset)
    save_dataset(tmp_path / "new", dataclasses.replace(dataset, inputs=dataset.inputs + 1))
    (tmp_path / "new" / "dataset.safetensors").replace(tmp_path / "old" / "dataset.safetensors")
    with pytest.raises(StoreError, match="has changed since"):
        load_dataset(tmp_path / "old")


SETTINGS = {"name": "run", "problem": {"name": "product"}, "optimizer": {"name": "gd"}, "step_size": "2/40"}
ROW = Row(0, 1.0, nan, 1.0, 1.0, 0.5, 1.0, -0.9, 0.5, 60.0)


def trained(folder: Path, last: float, **settings: Any) -> None:
    """A run of two snapshots below `folder`, the second at `last`."""
    shutil.rmtree(folder.with_name("made"), ignore_errors=True)
    for step, value in enumerate((0.0, last)):
        save_snapshot(folder.with_name("made"), Position(step, torch.tensor([value]), None))
    origin = Origin(
        SETTINGS | settings, data="", data_sha256=None, counts="iterations", fingerprint="f", threshold_formula="2/η"
    )
    ended = Outcome("max_steps", 0, 1.0, nan)
    save_run(folder, [ROW], ended, origin, snapshots=folder.with_name("made"))


def test_a_sharpness_belongs_to_the_training_that_it_was_measured_on(tmp_path: Path) -> None:
    table = pd.DataFrame({"step": [0, 1], "sharpness": [3.0, 4.0], "products": [5, 5], "audit_sharpness": [3.0, nan]})

    def load() -> Record:
        return load_record(tmp_path / "run")

    trained(tmp_path / "run", 1.0)
    assert load().sharpness is None
    save_measured(tmp_path / "run/diagnostics", "sharpness", Measured(table, {"k": 1}), tmp_path / "run")
    loaded = load()
    assert loaded.sharpness is not None
    pd.testing.assert_frame_equal(loaded.sharpness, table)
    assert loaded.measured["sharpness"].settings == {"k": 1}

    trained(tmp_path / "run", 2.0)
    assert load().sharpness is None
    assert not load().measured

    trained(tmp_path / "run", 1.0)  # the same training again
    assert load().sharpness is not None
    shutil.rmtree(tmp_path / "run/snapshots")  # as a sweep does
    assert load().sharpness is not None


def test_published_curves_have_the_step_size_and_the_end_of_the_published_run() -> None:
    record = published(PAPER, "exp3_2over60")
    assert record is not None
    assert set(record.threshold_at([0, 1])) == {60}
    assert record.summary == {"reason": "accuracy", "steps": 1313}
    assert {"step", "loss", "relative_progress"} < {*record.trajectory}
    assert "sharpness" not in record.trajectory
    assert record.sharpness is not None
    assert record.sharpness["step"].is_monotonic_increasing
    linear = published(PAPER, "exp1_linear")
    assert linear is not None
    assert linear.summary["reason"] == "diverged"


def test_without_its_loss_the_length_of_a_published_run_is_open(tmp_path: Path) -> None:
    (tmp_path / "curves/mine").mkdir(parents=True)
    shutil.copy(PAPER / "curves/exp3_2over60/sharpness.csv", tmp_path / "curves/mine")
    save_json(tmp_path / "curves/runs.json", {"mine": {"step_size": "2/60", "ended_by": "accuracy"}})
    record = published(tmp_path, "mine")
    assert record is not None
    assert record.summary["reason"] == ""
    assert len(record.trajectory) == 0


def test_a_run_without_published_curves_has_no_published_record_and_one_that_is_not_described_is_refused(
    tmp_path: Path,
) -> None:
    assert published(PAPER, "exp9_2over50") is None
    (tmp_path / "curves/mine").mkdir(parents=True)
    shutil.copy(PAPER / "curves/exp3_2over60/loss.csv", tmp_path / "curves/mine")
    save_json(tmp_path / "curves/runs.json", {})
    with pytest.raises(StoreError, match=r"runs\.json does not say what step size mine had and what ended it"):
        published(tmp_path, "mine")


def test_every_published_run_is_described_with_the_step_size_in_its_name() -> None:
    described = load_json(PAPER / "curves/runs.json")
    assert described.keys() == {path.name for path in (PAPER / "curves").iterdir() if path.is_dir()}
    named = {name: match[1] for name in described if (match := re.search(r"2over(\d+)", name))}
    assert {name: described[name]["step_size"] for name in named} == {name: f"2/{end}" for name, end in named.items()}
    assert {entry["ended_by"] for entry in described.values()} == {"accuracy", "max_steps", "diverged"}


# --- what is finished -------------------------------------------------------------------------------------------------

ENTRY = {"run.json": "{}", "snapshots/0000000.safetensors": "θ"}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an entry of the store; the working directory is above it."""
    monkeypatch.chdir(tmp_path)
    add("key", ENTRY)
    return tmp_path / "stages/store/key"


def add(key: str, entry: Mapping[str, str]) -> None:
    with store.adding(key) as folder:
        for name, text in entry.items():
            save_text(folder / name, text)


def test_an_entry_is_there_and_whole(kept: Path) -> None:
    assert store.holds("key")
    assert not store.holds("another")
    assert store.entries() == ["key"]
    assert contents(kept).keys() == {*ENTRY, "files.json"}
    store.remove("key")
    assert (store.holds("key"), store.entries()) == (False, [])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda kept: (kept / "run.json").write_text("[]"), id="another text of this length"),
        pytest.param(lambda kept: (kept / "run.json").write_text("{"), id="truncated"),
        pytest.param(lambda kept: (kept / "snapshots/0000000.safetensors").unlink(), id="one file less"),
        pytest.param(lambda kept: (kept / "stray.csv").touch(), id="one file more"),
        pytest.param(lambda kept: (kept / "files.json").unlink(), id="without its list"),
        pytest.param(lambda kept: (kept / "files.json").write_text("{"), id="half of its list"),
    ],
)
def test_an_altered_entry_counts_for_nothing(damage: Callable[[Path], object], kept: Path) -> None:
    damage(kept)
    assert not store.holds("key")
    add("key", ENTRY)
    assert store.holds("key")
    assert contents(kept).keys() == {*ENTRY, "files.json"}


def test_a_file_that_is_altered_where_it_was_placed_is_altered_in_the_store(kept: Path) -> None:
    """They are one file under two names."""
    store.place("key", Path("placed"))
    Path("placed/run.json").write_text("[]")
    assert not store.holds("key")
    assert kept.exists()


def test_an_error_or_a_kill_before_the_end_leaves_nothing_or_the_entry_of_before(kept: Path) -> None:
    for key in ("key", "new"):
        with pytest.raises(ZeroDivisionError), store.adding(key) as folder:
            (folder / "run.json").write_text(str(1 / 0))
    assert [path.name for path in kept.parent.iterdir()] == ["key"]
    child = os.fork()
    if not child:
        with store.adding("key") as folder, store.adding("new") as new:
            for each in (folder, new):
                save_text(each / "run.json", "half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert store.holds("key")
    assert (kept / "run.json").read_text() == "{}"
    assert (store.holds("new"), store.entries()) == (False, ["key"])
    assert len(list(kept.parent.iterdir())) == 3
    for key in ("key", "new"):
        add(key, {"run.json": "{}"})
    assert {path.name for path in kept.parent.iterdir()} == {"key", "new"}  # the halves are gone


def test_an_entry_that_is_placed_replaces_all_that_was_there(kept: Path) -> None:
    target = Path("stages/train/a/b")
    target.mkdir(parents=True)
    (target / "old.csv").touch()
    (target.parent / ".b.123").mkdir()  # what a kill left
    store.place("key", target)
    assert contents(target) == {name: text.encode() for name, text in ENTRY.items()}
    assert [path.name for path in target.parent.iterdir()] == ["b"]
    assert (target / "run.json").samefile(kept / "run.json")  # and takes no more room
    assert store.holds("key")


def test_an_entry_may_be_placed_beside_other_files(kept: Path) -> None:
    target, found = Path("beside"), {"sharpness.csv": "new", "sharpness.json": "{}"}
    add("found", found)
    target.mkdir()
    (target / "other.csv").touch()
    (target / "sharpness.csv").write_text("old")
    store.place_files("found", target)
    assert contents(target) == {"other.csv": b"", **{name: text.encode() for name, text in found.items()}}
    assert kept.exists()


def test_an_entry_is_whole_without_its_snapshots_where_they_were_dropped(kept: Path) -> None:
    store.place("key", Path("placed"))
    store.drop_snapshots("key", Path("placed"))
    assert contents(Path("placed")) == {"run.json": b"{}"}
    assert not (kept / "snapshots").exists()
    assert store.holds("key")


def test_a_folder_that_cannot_be_placed_is_named(kept: Path) -> None:
    Path("stages/train").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot write stages/train/a"):
        store.place("key", Path("stages/train/a"))
    with pytest.raises(StoreError, match="cannot write stages/train/a"):
        store.place_files("key", Path("stages/train/a"))
    assert kept.exists()


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_snapshots_come_back_bit_by_bit_in_order_of_their_steps(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    thetas = {step: torch.randn(5, generator=generator, dtype=torch.float64) for step in (10_000, 0, 995, 20)}
    for step, theta in thetas.items():
        save_snapshot(tmp_path, Position(step, theta, None))
    loaded = list(load_snapshots(tmp_path))

    assert [snapshot.step for snapshot in loaded] == [0, 20, 995, 10_000]
    assert all(torch.equal(snapshot.theta, thetas[snapshot.step]) for snapshot in loaded)
    assert all(snapshot.theta.dtype == torch.float64 for snapshot in loaded)


def test_a_snapshot_of_a_view_holds_the_view_alone(tmp_path: Path) -> None:
    save_snapshot(tmp_path, Position(3, torch.arange(1000.0).reshape(500, 2)[:, 1].requires_grad_(), None))
    assert torch.equal(next(load_snapshots(tmp_path)).theta, torch.arange(1.0, 1000.0, 2.0))
    assert (tmp_path / "0000003.safetensors").stat().st_size < 2200


@pytest.mark.parametrize("keep", [0, 4, -1])
def test_a_truncated_snapshot_is_named_after_the_whole_ones_are_read(tmp_path: Path, keep: int) -> None:
    for step in (0, 5):
        save_snapshot(tmp_path, Position(step, torch.ones(100), None))
    path = tmp_path / "0000005.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    snapshots = load_snapshots(tmp_path)

    assert next(snapshots).step == 0
    with pytest.raises(StoreError, match=r"0000005\.safetensors is truncated or altered"):
        next(snapshots)


def test_any_altered_byte_of_a_snapshot_is_noticed(tmp_path: Path) -> None:
    save_snapshot(tmp_path, Position(0, torch.linspace(-1, 1, 10), None))
    path = tmp_path / "0000000.safetensors"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for altered in (whole[place] ^ 1, whole[place] ^ 0x80):
            path.write_bytes(whole[:place] + bytes([altered]) + whole[place + 1 :])
            with pytest.raises(StoreError, match=r"0000000\.safetensors is (truncated or altered|not a snapshot)"):
                load_snapshot(path)


def test_tensors_that_are_no_snapshot_are_named(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    with pytest.raises(StoreError, match=r"dataset\.safetensors is not a snapshot"):
        list(load_snapshots(tmp_path))


def test_a_folder_without_snapshots_says_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no snapshots: run `eosrepro train`"):
        next(load_snapshots(tmp_path))


def test_a_half_written_file_is_no_snapshot(tmp_path: Path) -> None:
    """What a killed process leaves behind has another name."""
    save_snapshot(tmp_path, Position(0, torch.ones(3), None))
    (tmp_path / ".0000005.safetensors.123.tmp").write_bytes(b"half")

    assert [path.name for path in snapshot_paths(tmp_path)] == ["0000000.safetensors"]


def test_a_full_disk_leaves_the_old_dataset_and_says_so(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dataset(tmp_path, dataset)
    before = contents(tmp_path)

    def half_then_full(_tensors: object, path: Path, _metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", half_then_full)
    with pytest.raises(StoreError, match=r"cannot write .*dataset\.safetensors: No space left on device"):
        save_dataset(tmp_path, dataclasses.replace(dataset, inputs=dataset.inputs + 1))

    assert contents(tmp_path) == before
    assert len(load_dataset(tmp_path)) == 20


def test_a_file_that_the_system_cuts_short_leaves_the_old_one(tmp_path: Path, dataset: Dataset) -> None:
    save_dataset(tmp_path, dataset)
    before = contents(tmp_path)
    with files_limited_to(4096), pytest.raises(StoreError, match=r"cannot write .*dataset\.safetensors"):
        save_dataset(tmp_path, dataclasses.replace(dataset, inputs=dataset.inputs + 1))

    assert contents(tmp_path) == before


def test_a_snapshot_on_a_full_disk_leaves_no_trace(tmp_path: Path) -> None:
    with files_limited_to(4096), pytest.raises(StoreError, match=r"cannot write .*0000005\.safetensors"):
        save_snapshot(tmp_path, Position(5, torch.ones(10_000), None))

    assert contents(tmp_path) == {}


def test_a_text_on_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    save_json(path, {"loss": 1.0})
    with files_limited_to(4096), pytest.raises(StoreError, match=r"cannot write .*summary\.json: File too large"):
        save_text(path, "x" * 10_000)

    assert json.loads(path.read_text()) == {"loss": 1.0}
    assert list(contents(tmp_path)) == ["summary.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=r"cannot write .*0000000\.safetensors"):
        save_snapshot(tmp_path / "stages" / "snapshots", Position(0, torch.ones(3), None))

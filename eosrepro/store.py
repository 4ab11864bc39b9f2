"""Every on-disk format of the project, read and written in this one place.

    stages/data/                             dataset.safetensors, provenance.json
    stages/train/<folder>/<run>/             trajectory.csv, summary.json, origin.json, snapshots/<step>.safetensors
    stages/diagnostics/<folder>/<run>/       sharpness.csv, sharpness.json, summary.json, and a .csv and .json of each
                                             other diagnostic
    reference/                               <curve>.csv, index.json
    stages/verify/                           claims.json, claims.md, runs.csv, runs.md, summary.json
    stages/report.html                       all of it as one page, see `report`
    figures/<figure>/                        <figure>.png, <figure>.svg, table.csv
    stages/unfinished/                       checkpoints, see `resuming`
    stages/compare/<run>_<run>/              what `compare` draws

Every file is written beside its place and moved there, so a reader never sees half of one. Tables are CSV with the
shortest decimal that reads back to the same float64. Nothing here holds a time, a host name or a run id, so equal runs
are equal files.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eosrepro.catalog import did_you_mean
from eosrepro.errors import StoreError
from eosrepro.types import Dataset, Outcome, Row, stability_threshold

STAGES = Path("stages")
FIGURES = Path("figures")
DATA = STAGES / "data"
VERIFY = STAGES / "verify"
REPORT = STAGES / "report.html"
REFERENCE = Path("reference")  # published curves, committed


NO_SPACE = ". Free some space and run the same command again; what was done is kept"
NO_PERMISSION = ". Make it writable, or run as a user who may write there"


class Snapshot(NamedTuple):
    """The parameters at one iteration of a run."""

    step: int
    theta: Tensor  # (P,)


class PublishedRun(NamedTuple):
    """What reference/index.json says of the run that a published curve is of."""

    step_size: Fraction
    ended_by: str  # as `types.Outcome.reason`


class Measured(NamedTuple):
    """What a diagnostic found along a run."""

    table: pd.DataFrame  # a row a snapshot: step and what the diagnostic yields
    settings: Mapping[str, Any]  # that it was measured with


@dataclasses.dataclass(frozen=True)
class Record:
    """All that is on disk about one run, for figures and claims."""

    name: str
    step_size: Fraction
    trajectory: pd.DataFrame  # one row an iteration, columns as `types.Row`
    measured: Mapping[str, Measured]  # by diagnostic, of those that were measured since it was trained
    summary: Mapping[str, Any]  # as `types.Outcome`
    origin: Mapping[str, Any]  # data: names the training data, "" for a toy; fingerprint: of all that made the run
    snapshots: Path  # for `load_snapshots`

    @property
    def ended(self) -> str:
        """Why, and at which iteration."""
        return f"{self.summary['reason']} at {self.summary['steps']:,}"

    @property
    def threshold(self) -> float:
        """2/η."""
        return stability_threshold(self.step_size)

    @property
    def sharpness(self) -> pd.DataFrame | None:
        """A row a snapshot: step, sharpness, residual, ...; None where it was not measured."""
        return self.measured["sharpness"].table if "sharpness" in self.measured else None


def train_folder(folder: str, name: str) -> Path:
    """Where `eosrepro train` writes the run `name`."""
    return STAGES / "train" / folder / name


def diagnostics_folder(folder: str, name: str) -> Path:
    """Where `eosrepro diagnose` writes what it measured on the run `name`."""
    return STAGES / "diagnostics" / folder / name


def load_record(name: str, folder: str, step_size: Fraction) -> Record:
    """Trajectory and measurements of a run.

    Raises:
        StoreError: the run has no trajectory on disk, or it cannot be read.
    """
    return load_record_from(
        name, step_size, trained=train_folder(folder, name), measured=diagnostics_folder(folder, name)
    )


def load_record_from(name: str, step_size: Fraction, *, trained: Path, measured: Path) -> Record:
    """As `load_record`, from the two folders themselves."""
    origin = _facts(trained / "origin.json", "data", "fingerprint")
    return Record(
        name=name,
        step_size=step_size,
        trajectory=_load_verified(trained / "trajectory.csv", origin),
        measured=_load_measured(measured, last_snapshot(trained / "snapshots")),
        summary=_facts(trained / "summary.json", "reason", "steps"),
        origin=origin,
        snapshots=trained / "snapshots",
    )


def _load_measured(folder: Path, of_snapshot: str | None) -> dict[str, Measured]:
    found = {}
    for table in sorted(folder.glob("*.csv")):
        origin = _facts(table.with_suffix(".json"), "last_snapshot", "settings")
        # A sweep keeps no snapshots: what was measured lies with the run that it was measured on.
        if of_snapshot in (origin["last_snapshot"], None):
            found[table.stem] = Measured(_load_verified(table, origin), origin["settings"])
    return found


def _facts(path: Path, *needed: str) -> dict[str, Any]:
    content = load_json(path)
    if missing := set(needed) - content.keys():
        raise StoreError(f"{path} lacks {', '.join(sorted(missing))}: delete it and run `dvc repro`")
    return content


def _load_verified(path: Path, origin: Mapping[str, Any]) -> pd.DataFrame:
    table = load_table(path)
    if sha256(path) != origin.get("table_sha256"):
        raise StoreError(f"{path} is truncated or altered: delete it and run `dvc repro`")
    return table


def published_run(file: str, folder: Path = REFERENCE) -> PublishedRun:
    """The run that the published curve <file>.csv is of, from index.json beside it.

    Raises:
        StoreError: it is not listed there.
    """
    index = load_json(folder / "index.json")
    if file not in index:
        raise StoreError(f"{folder / 'index.json'} does not list {file!r}{did_you_mean(file, list(index))}")
    return PublishedRun(Fraction(index[file]["step_size"]), index[file]["ended_by"])


def load_published(name: str, curves: Mapping[str, str], folder: Path = REFERENCE) -> Record:
    """Published curves of one run as if they had been recorded: quantity → <file>.csv in `folder`.

    Step size and end are those of the published run, from index.json beside the curves. Its length is the number of
    points of its loss: abscissae are good to a few iterations, but every iteration is a point.

    Raises:
        StoreError: a curve is not there, or the curves are of runs with different step sizes.
    """
    runs = {file: published_run(file, folder) for file in curves.values()}
    step_sizes = {run.step_size for run in runs.values()}
    if len(step_sizes) > 1:
        raise StoreError(f"the published curves of {name} have different step sizes: {', '.join(sorted(runs))}")
    series = {}
    for quantity, file in curves.items():
        curve = load_table(folder / f"{file}.csv").set_axis(["step", quantity], axis=1)
        series[quantity] = curve.assign(step=curve["step"].round().astype(int)).drop_duplicates(
            "step", ignore_index=True
        )
    # Without a loss nobody knows how long the run was, and `ended_by` is left open.
    summary = {"reason": "", "steps": max(int(curve["step"].max()) for curve in series.values())}
    if "loss" in curves:
        n_points = len(load_table(folder / f"{curves['loss']}.csv"))
        summary = {"reason": runs[curves["loss"]].ended_by, "steps": n_points - 1}
    measured = {"sharpness": Measured(series.pop("sharpness"), {})} if "sharpness" in series else {}
    trajectory = pd.DataFrame({"step": pd.Series(dtype=int)})
    for curve in series.values():
        trajectory = trajectory.merge(curve, on="step", how="outer")
    return Record(name, step_sizes.pop(), trajectory, measured, summary, {}, Path())


def save_trajectory(folder: Path, rows: Iterable[Row], outcome: Outcome, *, data: str, fingerprint: str) -> None:
    """Write trajectory.csv, summary.json and origin.json of one run; see `Record`."""
    save_table(folder / "trajectory.csv", pd.DataFrame([dataclasses.asdict(row) for row in rows]))
    save_json(folder / "summary.json", dataclasses.asdict(outcome))
    checksum = sha256(folder / "trajectory.csv")
    save_json(folder / "origin.json", {"data": data, "fingerprint": fingerprint, "table_sha256": checksum})


def save_measured(folder: Path, diagnostic: str, measured: Measured, snapshots: Path) -> None:
    """Write <diagnostic>.csv and <diagnostic>.json of one run, measured on `snapshots`."""
    path = folder / f"{diagnostic}.csv"
    save_table(path, measured.table)
    origin = {"last_snapshot": last_snapshot(snapshots), "settings": measured.settings, "table_sha256": sha256(path)}
    save_json(path.with_suffix(".json"), origin)


def save_sharpness(folder: Path, measured: Measured, snapshots: Path) -> None:
    """Write sharpness.csv, sharpness.json and summary.json of one run, measured on `snapshots`."""
    save_measured(folder, "sharpness", measured, snapshots)
    table = measured.table
    audited = table.dropna(subset="audit_sharpness")
    shortfall = 1 - audited["sharpness"] / audited["audit_sharpness"]
    summary = {
        "sharpness_first": float(table["sharpness"].iloc[0]),
        "sharpness_last": float(table["sharpness"].iloc[-1]),
        "sharpness_max": float(table["sharpness"].max()),
        "products_per_snapshot": float(table["products"].mean()),
        "largest_audit_shortfall": float(shortfall.max()),  # share by which a value fell below its audit
    }
    save_json(folder / "summary.json", summary)


def save_snapshot(folder: Path, step: int, theta: Tensor) -> None:
    """Write θ of one iteration as `<step>.safetensors` below `folder`."""
    _save_tensors(folder / snapshot_name(step), {"theta": theta})


def snapshot_name(step: int) -> str:
    """Name of the file of the snapshot at an iteration."""
    return f"{step:07d}.safetensors"


def load_snapshots(folder: Path) -> Iterator[Snapshot]:
    """The snapshots of a run, by iteration, one in memory at a time.

    Raises:
        StoreError: there are none, or one cannot be read.
    """
    return map(load_snapshot, snapshot_paths(folder))


def load_snapshot(path: Path) -> Snapshot:
    """One snapshot.

    Raises:
        StoreError: it cannot be read.
    """
    tensors = _load_tensors(path)
    if "theta" not in tensors:
        raise StoreError(f"{path} is not a snapshot: delete it and run `dvc repro`")
    return Snapshot(int(path.stem), tensors["theta"])


def snapshot_paths(folder: Path) -> list[Path]:
    """Files of the snapshots of a run, by iteration."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise StoreError(f"{folder} holds no snapshots: run `eosrepro train` for this experiment first")
    if strangers := [path for path in paths if not path.stem.isdecimal()]:
        raise StoreError(f"{strangers[0]} is not a snapshot: delete it and run `dvc repro`")
    return paths


def last_snapshot(folder: Path) -> str | None:
    """SHA-256 of the last snapshot, by which a training is known again; None where there are no snapshots."""
    paths = sorted(folder.glob("*.safetensors"))
    return sha256(paths[-1]) if paths else None


def save_dataset(folder: Path, dataset: Dataset) -> None:
    """Write dataset.safetensors and provenance.json; the checksum of the tensors goes into the provenance."""
    tensors = {"inputs": dataset.inputs, "targets": dataset.targets}
    path = folder / "dataset.safetensors"
    _save_tensors(path, tensors)
    facts = {"label": dataset.label, "n_examples": len(dataset), "n_classes": dataset.n_classes, "sha256": sha256(path)}
    # Facts first for the reader, and last so that none of an earlier file survives saving a data set that was loaded.
    save_json(folder / "provenance.json", {**facts, **dataset.provenance, **facts})


def load_dataset(folder: Path) -> Dataset:
    """Read what `save_dataset` wrote, and verify it.

    Raises:
        StoreError: a file is missing, or the files are not those that the data stage wrote.
    """
    provenance = load_json(folder / "provenance.json")
    if missing := {"sha256", "label", "n_classes"} - provenance.keys():
        raise StoreError(f"{folder / 'provenance.json'} lacks {', '.join(sorted(missing))}: run `eosrepro data` again")
    path = folder / "dataset.safetensors"
    tensors = _load_tensors(path)
    if sha256(path) != provenance["sha256"]:
        raise StoreError(f"{path} has changed since the data stage wrote it: run `eosrepro data` again")
    return Dataset(tensors["inputs"], tensors["targets"], provenance["n_classes"], provenance["label"], provenance)


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV."""
    with _replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def load_table(path: Path) -> pd.DataFrame:
    """Read a CSV table, float64 exact.

    Raises:
        StoreError: the file is missing or is not a table.
    """
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist: run `dvc repro` to make it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not a readable table ({error}): delete it and run `dvc repro`") from None


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with two-space indents; NaN and infinity become null, as strict JSON readers demand."""
    save_text(path, as_json(content) + "\n")


def as_json(content: Any, *, ascii_only: bool = False) -> str:
    """The same as text, for a reader in a pipe."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=ascii_only, allow_nan=False)


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file is missing or is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist: run `dvc repro` to make it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not readable JSON ({error}): delete it and run `dvc repro`") from None
    if not isinstance(content, dict):
        raise StoreError(f"{path} is not a JSON object: delete it and run `dvc repro`")
    return content


def save_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with _replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_bytes(path: Path, content: bytes) -> None:
    """Write a binary file."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def save_checkpoint(path: Path, content: Any) -> None:
    """Write numbers, texts and tensors, in lists, tuples and dicts, with their checksum in front."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    save_bytes(path, hashlib.sha256(payload).digest() + payload)


def load_checkpoint(path: Path) -> Any:
    """What `save_checkpoint` wrote, on the CPU; None where there is no such file.

    Raises:
        StoreError: it is truncated or altered.
    """
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, payload = written[:32], written[32:]
    if hashlib.sha256(payload).digest() != checksum:
        raise StoreError(f"{path} is truncated or altered")
    try:
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise StoreError(f"{path} holds more than numbers, texts and tensors") from None


def place_snapshots(source: Path, target: Path) -> None:
    """Put the snapshots of a run in place of those in `target`. They stay in `source` too, without a second copy."""
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in snapshot_paths(source):
            _link(path, target / path.name)
    except OSError as error:
        raise cannot_write(target, error) from None


def remove_leftovers(folder: Path, stem: str = "") -> None:
    """Delete halves of files <stem>... that a killed process left in a folder; no other may be writing them."""
    for leftover in folder.glob(f".{stem}*.tmp"):
        leftover.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        # One entry alone: safetensors writes several in random order, and equal tensors are to make equal files.
        save_file(plain, temporary, {"sha256": _checksum(plain)})


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            written = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist: run `dvc repro` to make it") from None
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} is truncated or altered ({error}): delete it and run `dvc repro`") from None
    if written != _checksum(tensors):
        raise StoreError(f"{path} is truncated or altered: delete it and run `dvc repro`")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def cannot_write(path: Path, error: OSError | SafetensorError) -> StoreError:
    """The message that a file cannot be written, with what to do about it."""
    reason = getattr(error, "strerror", None) or str(error)
    code = getattr(error, "errno", None)
    if code is None and (told := re.search(r"os error (\d+)", reason)):  # that is how safetensors tells it
        code = int(told[1])
    advice = {
        errno.ENOSPC: NO_SPACE, errno.EDQUOT: NO_SPACE, errno.EFBIG: NO_SPACE,
        errno.EACCES: NO_PERMISSION, errno.EPERM: NO_PERMISSION, errno.EROFS: NO_PERMISSION,
    }  # fmt: skip
    return StoreError(f"cannot write {path}: {reason}{advice.get(code or 0, '')}")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):  # where the folder could not be made, this would hide why
            temporary.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value

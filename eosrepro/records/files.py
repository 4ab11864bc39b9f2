"""Files that are written as a whole or not at all, and checksums that show whether they are still what was written.

Every file is written beside its place and moved there, so a reader never sees half of one. Tables are CSV with the
shortest decimal that reads back to the same float64. Nothing here holds a time, a host name or a run id, so equal runs
are equal files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from eosrepro.core.later import torch
from eosrepro.errors import StoreError
from eosrepro.records.later import pandas as pd

if TYPE_CHECKING:
    from torch import Tensor

NO_SPACE = ". Free some space and run the same command again; what was done is kept"
NO_PERMISSION = ". Make it writable, or run as a user who may write there"


def load_facts(path: Path, *needed: str) -> dict[str, Any]:
    content = load_json(path)
    if missing := set(needed) - content.keys():
        raise StoreError(f"{path} lacks {', '.join(sorted(missing))}: delete it and run `dvc repro`")
    return content


def load_verified_table(path: Path, checksum: str | None) -> pd.DataFrame:
    table = load_table(path)
    if sha256(path) != checksum:
        raise StoreError(f"{path} is truncated or altered: delete it and run `dvc repro`")
    return table


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


def remove_leftovers(folder: Path, stem: str = "") -> None:
    """Delete halves of files <stem>... that a killed process left in a folder; no other may be writing them."""
    for leftover in folder.glob(f".{stem}*.tmp"):
        leftover.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file  # it imports PyTorch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        # One entry alone: safetensors writes several in random order, and equal tensors are to make equal files.
        save_file(plain, temporary, {"sha256": _checksum(plain)})


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist: run `dvc repro` to make it") from None
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} is truncated or altered ({error}): delete it and run `dvc repro`") from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    return _load(path, "pt")


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The same for those who compute nothing: without PyTorch."""
    return _load(path, "np")


def _load(path: Path, framework: str) -> dict[str, Any]:
    with _reading(path), safe_open(path, framework=framework) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        written = (file.metadata() or {}).get("sha256")
    if written != _checksum(tensors):
        raise StoreError(f"{path} is truncated or altered: delete it and run `dvc repro`")
    return tensors


def shape_of(path: Path, name: str) -> list[int] | None:
    """Of a tensor of a file; None where the file has none of that name."""
    with _reading(path), safe_open(path, framework="pt") as file:
        shape: list[int] | None = file.get_slice(name).get_shape() if name in file.keys() else None  # noqa: SIM118
    return shape


def load_rows(path: Path, name: str, rows: range) -> Tensor:
    """These rows of a tensor of a file, whose checksum was verified; the others are never in memory."""
    found: Tensor | None = None
    for start in range(rows.start, rows.stop, size := max(1, len(rows) // 8)):
        # What has been read of a file counts as memory of the process for as long as it is open.
        with _reading(path), safe_open(path, framework="pt") as file:
            piece = file.get_slice(name)[start : min(start + size, rows.stop)]
        found = piece.new_empty((len(rows), *piece.shape[1:])) if found is None else found
        found[start - rows.start : start - rows.start + len(piece)] = piece
        del piece
    assert found is not None
    return found


def _checksum(tensors: Mapping[str, Tensor | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} torch.{dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.asarray(tensor).data)
    return digest.hexdigest()


def write_error(path: Path, error: OSError | SafetensorError) -> StoreError:
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
        raise write_error(path, error) from None
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

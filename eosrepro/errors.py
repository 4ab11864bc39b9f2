"""Errors that a person is meant to read: one message that says what is wrong, where, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

TRACEBACK = "EOSREPRO_TRACEBACK"  # =1: whoever looks for an error sees its traceback, and no message


class EosreproError(Exception):
    """A failure with a known cause: the command line prints the message, no traceback, and exits with `exit_code`."""

    exit_code = 1


class ConfigError(EosreproError):
    """params.yaml, or the command line, asks for something that is not possible."""

    exit_code = 2


class DataError(EosreproError):
    """A data source is missing, incomplete or altered."""


class StoreError(EosreproError):
    """A recorded file is missing, truncated, altered or cannot be written."""


def wants_traceback() -> bool:
    """Whether the person who looks for an error asks for all of it."""
    return os.environ.get(TRACEBACK, "0") not in ("", "0")


def place(file: str, line: int) -> str:
    """`members/models/mine.py, line 12`: seen from the working folder, where the file lies below it."""
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}, line {line}"


def in_brief(error: BaseException) -> str:
    """`NameError: name 'foo' is not defined`: its kind and the first line of what it says."""
    said = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# What to do where memory is short.
REDUCE_MEMORY = "Make the model, data.n_examples or compute.chunk_size smaller, or take a larger machine"


# What PyTorch, and NumPy of arrays beyond all addresses, say then.
NO_ROOM = ("can't allocate memory", "out of memory", "array is too big", "Storage size calculation overflowed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or PyTorch, on the CPU or on a GPU, found no room for an array."""
    said = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ValueError)) and any(words in said for words in NO_ROOM)
    )

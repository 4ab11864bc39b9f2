"""Errors that a person is meant to read: one message that says what is wrong, where, and what to do."""

from __future__ import annotations


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

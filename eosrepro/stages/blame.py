"""Bugs in members of others, told as one message that names the file and the line; ours keep their traceback."""

from __future__ import annotations

from collections.abc import Iterator

from eosrepro import catalog
from eosrepro.errors import TRACEBACK, ConfigError, EosreproError, in_brief, wants_traceback

HINT = f"{TRACEBACK}=1 shows the whole traceback"


def told(error: BaseException) -> EosreproError | None:
    """The error in one message, if a file of a member is on the way to it; None: it is to be raised as it is.

    It has to be asked in the process where the error came about: a traceback does not go from one to another.
    """
    if wants_traceback():
        return None
    if type(error) is ConfigError:  # it says what is wrong, and not where in the member
        where = next(filter(None, map(catalog.place_of, _causes(error))), None)
        return ConfigError(f"{error} ({where}; {HINT})") if where and where not in str(error) else None
    if isinstance(error, EosreproError) or not isinstance(error, Exception):
        return None
    where = catalog.place_of(error)
    return EosreproError(f"{where}: {in_brief(error)} ({HINT})") if where else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error

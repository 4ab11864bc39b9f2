"""The MLflow store of this project: where it is, and what stands in its way."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from eosrepro.errors import EosreproError
from eosrepro.views.mlflow.tags import shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


LOCK_SECONDS = 2.0  # one who writes to a SQLite store holds it for less
EXPERIMENT_TAG_LENGTH = 20_000
SQLITE_PATH_LENGTH = 500  # of 512: it has a journal beside it
REASON_LENGTH = 300  # of an error, where it is told in a line
KIND = "mlflow.experimentKind"

# Without it, some versions of the UI take the experiment for one on language models, with pages that have nothing to
# show. Others have a switch for that, and `workflowType` in an address sets it.
TRAINING = "custom_model_development"
EMPTY = "0"  # the experiment that every store has
DELETED = "deleted"
MADE_ELSEWHERE = "mlflow.db was made in another folder: delete it, then run `eosrepro track`"
NO_SERVER = (
    "start its server, mend MLFLOW_TRACKING_URI, or take that away: then the runs go to mlflow.db in the project"
)

NO_FOLDER = "MLflow wants a database: set MLFLOW_TRACKING_URI to sqlite:////absolute/path/mlflow.db, or take it away"
NO_FILE = "make it writable; if it is of another version of MLflow or damaged, move it away and run `eosrepro track`"
TOO_LONG = "move the project to a folder with a shorter path: SQLite takes 512 bytes"
NO_HOME = "set HOME to a folder, since MLflow needs one"

# MLflow's own defaults would hold up a stage for minutes where a server is away.
QUIET_AND_QUICK = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Store(NamedTuple):
    """A reachable MLflow store and the experiment in it."""

    client: MlflowClient
    experiment_id: str
    uri: str


def store_uri() -> str:
    """Where MLflow keeps its runs: `MLFLOW_TRACKING_URI`, else mlflow.db in the project. It may hold a password."""
    # With the driver, or MLflow makes the folder of the quoted path too.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite+pysqlite:///{quote(str(_project() / 'mlflow.db'))}"


def redacted(text: str) -> str:
    """A text without the user, password and query of the addresses in it, fit to be printed."""
    secrets = [*_credentials(), *(os.environ.get(f"MLFLOW_TRACKING_{kind}") for kind in ("PASSWORD", "TOKEN"))]
    for secret in filter(None, secrets):
        for spelt in (secret, unquote(secret)):
            text = re.sub(rf"(?<!\w){re.escape(spelt)}(?!\w)", "***", text)
    text = re.sub(r"://\S*@", "://***@", text)
    return re.sub(r"\?\S+", "?***", text)  # errors quote the query without its address


def _credentials() -> list[str | None]:
    try:
        parts = urlsplit(store_uri())
    except ValueError:
        return []
    return [parts.username, parts.password]


def _project() -> Path:
    # `dvc exp run --temp` and `dvc queue` run in a copy that is thrown away; DVC_ROOT is the project it was made from.
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(unquote(found[1])) if found else None


def readable_place(uri: str) -> str:
    """A store as a person knows it: the path of a file, an address without its secrets."""
    return str(sqlite_file(uri) or redacted(uri))


def trouble(uri: str, error: Exception) -> str:
    """Why a store cannot be used, and what to do."""
    if isinstance(error, EosreproError):
        return str(error)
    reason = shortened(" ".join(redacted(f"{type(error).__name__}: {error}").split()), REASON_LENGTH)
    return f"{readable_place(uri)} cannot be used ({reason}): {_remedy(uri, error)}"


def _remedy(uri: str, error: Exception) -> str:
    if "home directory" in str(error):
        return NO_HOME
    if file := sqlite_file(uri):
        return TOO_LONG if len(os.fsencode(file.absolute())) > SQLITE_PATH_LENGTH else NO_FILE
    is_folder = uri.startswith("file:") or ("://" not in uri and uri != "databricks")
    return NO_FOLDER if is_folder else NO_SERVER


def refuse_foreign(found: Experiment) -> None:
    """The experiment in mlflow.db has to be of this folder; in a store that the environment names it may be any."""
    place = str(found.artifact_location)
    if os.environ.get("MLFLOW_TRACKING_URI") or place == _artifacts():
        return
    if place.endswith("/mlartifacts"):
        raise EosreproError(MADE_ELSEWHERE)
    raise EosreproError(
        f"the experiment {found.name} in mlflow.db was not made by eosrepro, and keeps its files in {place}: rename it "
        "in the MLflow UI, or name another as mlflow.experiment in params.yaml, then run `eosrepro track`"
    )


def _artifacts() -> str:
    return (_project() / "mlartifacts").as_uri()


class WarnAndContinue:
    """Whatever MLflow and its database drivers raise ends the block, not the stage."""

    _warned: ClassVar[set[str]] = set()

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        uri = store_uri()
        if uri not in self._warned:
            self._warned.add(uri)
            of_store = "" if isinstance(error, EosreproError) else "MLflow at "
            line = f"Warning: {of_store}{trouble(uri, error)}"
            print(f"{line}; going on without it, `eosrepro track` catches up", file=sys.stderr)
        return True


def open_store(experiment: str) -> Store:
    uri = store_uri()
    own = None if os.environ.get("MLFLOW_TRACKING_URI") else _artifacts()
    # Several processes that create the tables of one SQLite file at once fail.
    with lock_store(uri):
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return Store(client, _create_experiment(client, experiment, own), uri)
        refuse_foreign(found)
        if found.lifecycle_stage == DELETED:
            client.restore_experiment(found.experiment_id)
            print(f"The experiment {experiment} was deleted in MLflow: it is restored", file=sys.stderr)
    return Store(client, found.experiment_id, uri)


def _create_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    try:
        return client.create_experiment(name, artifact_location, tags={KIND: TRAINING})
    except Exception:
        found = client.get_experiment_by_name(name)  # another process was first
        if found is None:
            raise
        return found.experiment_id


@cache
def connect(uri: str) -> MlflowClient:
    for key, value in QUIET_AND_QUICK.items():
        os.environ.setdefault(key, value)
    Path.home()  # without one, the import of MLflow would fail half way
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 1  # ten times to open a file that cannot be opened would take seven minutes
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for logger in ("mlflow", "urllib3"):
        logging.getLogger(logger).setLevel(logging.ERROR)  # they would report each try, beside our one line
    return MlflowClient(tracking_uri=uri)


@contextmanager
def lock_store(uri: str) -> Iterator[None]:
    """Hold the lock file beside a SQLite store; other stores look after themselves."""
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    path = database.with_name(f"{database.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

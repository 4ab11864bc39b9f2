"""The MLflow UI of this project, and whether its store can be used."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from eosrepro.errors import EosreproError
from eosrepro.views.mlflow.connection import (
    DELETED,
    EMPTY,
    LOCK_SECONDS,
    connect,
    lock_store,
    readable_place,
    redacted,
    refuse_foreign,
    sqlite_file,
    store_uri,
    trouble,
)


def serve(port: int, catch_up: Callable[[], object] = lambda: None) -> None:
    """Become the MLflow UI of `store_uri()` on the loopback interface; where the store is a server, say its address.

    Args:
        port: where the UI listens.
        catch_up: what to do before, once it is known that the store can be used.

    Raises:
        EosreproError: the port is taken, or the store cannot be used.
    """
    uri = store_uri()
    if uri.startswith(("http://", "https://")):
        catch_up()
        print(f"The runs are on an MLflow server: open {redacted(uri)}")
        return
    _check_free(port)
    try:
        with lock_store(uri):
            client = connect(uri)  # makes the tables where there are none yet
        client.search_experiments()
    except Exception as error:  # whatever MLflow and its database drivers raise
        raise EosreproError(trouble(uri, error)) from None
    catch_up()
    found = [each.experiment_id for each in client.search_experiments() if each.experiment_id != EMPTY]
    page = f"experiments/{found[0]}/runs" if len(found) == 1 else "experiments"
    # In the environment, since everybody can read the arguments of a process. One worker and no job runner start in
    # 10 s and 0.4 GB instead of 45 s and 1.6 GB.
    server = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    arguments = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    address = f"http://127.0.0.1:{port}/#/{page}?workflowType=machine_learning"
    print(f"MLflow UI: {address} in about 10 s; Ctrl-C ends it", flush=True)
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **server})


def check(experiment: str) -> str:
    """Where MLflow keeps the runs of this project, in words; nothing is written.

    Raises:
        EosreproError: the store is away, locked, of another folder or not readable, or the experiment is deleted.
    """
    uri = store_uri()
    file = sqlite_file(uri)
    try:
        Path.home()  # MLflow asks for it as it is imported
        if file:
            if not (file.exists() and file.stat().st_size):
                return f"{file} will be made by the first run"
            _try_to_lock(file)
        found = connect(uri).get_experiment_by_name(experiment)
    except Exception as error:  # whatever MLflow and its database drivers raise
        later = "Until then trainings go on without it, and `eosrepro track` catches up"
        raise EosreproError(f"{trouble(uri, error)}. {later}") from None
    if found:
        refuse_foreign(found)
        if found.lifecycle_stage == DELETED:
            raise EosreproError(f"the experiment {experiment} was deleted in MLflow: `eosrepro track` restores it")
    return f"{readable_place(uri)}{'' if found else ', no runs yet'}"


def _try_to_lock(file: Path) -> None:
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise EosreproError(f"port {port} is taken: choose another, `eosrepro ui --port {port + 1}`") from None

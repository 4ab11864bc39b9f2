"""What stands in the way of a run: each check finds one thing out, changes nothing, and names what mends it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from eosrepro import catalog
from eosrepro.config.load import load
from eosrepro.config.params import Config
from eosrepro.core.device import has_fast_bfloat16
from eosrepro.core.later import torch
from eosrepro.core.types import Dataset
from eosrepro.errors import EosreproError
from eosrepro.records import resuming
from eosrepro.records.dataset import DATA, load_dataset
from eosrepro.stages import build, estimate, outdated
from eosrepro.stages.recorded import is_trained
from eosrepro.tools import listing
from eosrepro.views.mlflow.server import check

RWLOCK = Path(".dvc/tmp/rwlock")  # which processes of DVC write what


@dataclass(frozen=True)
class Check:
    """What was found about one thing."""

    name: str
    state: Literal["ok", "warning", "problem"]  # warning: runs start, and may not end as they should
    found: str  # and, unless it is ok, what to do


def examine() -> list[Check]:
    """All checks. What params.yaml decides is left out where it is not valid."""
    checks = [_python(), _packages()]
    try:
        declared = load()
    except EosreproError as error:
        checks.append(Check("params.yaml", "problem", str(error)))
    else:
        counts = f"{len(declared.runs)} runs, {len(declared.figures)} figures, {len(declared.claims)} claims"
        checks.append(Check("params.yaml", "ok", f"valid: profile {declared.profile}, {counts}"))
        checks += [_device(declared), *_data(declared), _mlflow(declared)]
    return [*checks, _dvc(), *_unfinished()]


def _python() -> Check:
    found, wanted = platform.python_version(), SpecifierSet(_metadata("Requires-Python"))
    if found in wanted:
        return Check("Python", "ok", found)
    return Check("Python", "problem", f"{found}, needs {wanted}: `rm -r .venv; make setup PYTHON=python3.12`")


def _metadata(field: str) -> str:
    return importlib.metadata.metadata("eosrepro")[field]


def _packages() -> Check:
    declared = [Requirement(line) for line in importlib.metadata.requires("eosrepro") or []]
    complaints = sorted(  # the order of the metadata is pip's or hatchling's affair
        complaint
        for wanted in declared
        if (wanted.marker is None or wanted.marker.evaluate({"extra": ""})) and (complaint := _unmet(wanted))
    )
    if complaints:
        return Check("packages", "problem", f"{'; '.join(complaints)}: `make setup`")
    main = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "dvc", "mlflow"))
    return Check("packages", "ok", f"{main}, and what else pyproject.toml asks for")


def _unmet(wanted: Requirement) -> str | None:
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    return (
        None if wanted.specifier.contains(version, prereleases=True) else f"{wanted.name} is {version}, needs {wanted}"
    )


def _device(declared: Config) -> Check:
    asked, threads = declared.compute.device, declared.compute.threads
    try:
        chosen = build.device(asked)
    except EosreproError as error:
        return Check("device", "problem", str(error))
    found = f"compute.device {asked}: {chosen}, {threads} thread{'' if threads == 1 else 's'} of {os.cpu_count()} CPUs"
    if chosen == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found += f", {gpu.name} with {estimate.in_words(gpu.total_memory)}"
    found += f"; eigensolves start {_where_eigensolves_start(declared, chosen)}"
    if threads > (os.cpu_count() or threads):
        return Check("device", "warning", f"{found}: more threads than CPUs are slow, lower compute.threads")
    return Check("device", "ok", found)


def _where_eigensolves_start(declared: Config, on: str) -> str:
    krylov, fast = declared.compute.krylov, has_fast_bfloat16(on)
    if build.is_rough(krylov, on):
        return "in bfloat16" if fast else "in bfloat16, which this processor is slow at: set compute.krylov to auto"
    return "at a sketch" if krylov == "sketch" else "at a sketch: this processor has no fast bfloat16"


def _data(declared: Config) -> Iterator[Check]:
    """The data of the profile, and the disk that the snapshots of its runs need, which hangs on their shape."""
    try:
        made = load_dataset(DATA) if (DATA / "provenance.json").exists() else None
        changed = {} if made is None else outdated.data_differences(declared.active)
    except EosreproError as error:
        yield Check("data", "problem", str(error))
        return
    if made and not changed:
        yield Check("data", "ok", f"stages/data holds {made}")
        yield _disk(declared, made)
        return
    source = declared.active.data
    others = f"stages/data holds {made}, made with {outdated.in_words(changed)}: " if made else ""
    try:
        absent = catalog.missing(source.name, source.options)
    except EosreproError as error:
        yield Check("data", "problem", f"{others}{error}")
        return
    if absent is None:
        there = f"{others}{source.name} is there, and `dvc repro` makes stages/data of it"
        yield Check("data", "warning" if others else "ok", there)
    else:
        fetches_itself = source.options.get("download")
        yield Check("data", "warning" if fetches_itself else "problem", f"{others}{absent}")


def _disk(declared: Config, data: Dataset) -> Check:
    """Room for the snapshots of all runs that are still to come."""
    open_ = [run for run in declared.runs.values() if run.has_examples and not is_trained(run)]
    needed = sum(estimate.of_run(run, data).bytes for run in open_)
    free = shutil.disk_usage(Path()).free
    found = f"{estimate.in_words(free)} free"
    if open_:
        most = f"at most {estimate.in_words(needed)}, less where one ends early"
        found += f"; snapshots of runs to come ({len(open_)}): {most}"
    if needed > free:
        return Check("disk", "warning", f"{found}: {estimate.MORE_ROOM}")
    return Check("disk", "ok", found)


def _mlflow(declared: Config) -> Check:
    try:
        return Check("MLflow", "ok", check(declared.mlflow.experiment))
    except EosreproError as error:
        return Check("MLflow", "problem", str(error))


def _dvc() -> Check:
    try:
        with listing.project() as repo:
            n_stages = len(repo.index.stages)
            blind = repo.config["core"].get("no_scm", False) and listing.in_git(Path(repo.root_dir))
    except EosreproError as error:
        return Check("DVC", "problem", str(error))
    if writers := _writers():
        return Check(
            "DVC", "warning", f"{', '.join(writers)} is at work: wait for it, another `dvc repro` would fail as busy"
        )
    if blind:
        unset = "`dvc config --local --unset core.no_scm`"
        return Check("DVC", "warning", f"it does not see git, which `dvc exp` needs: run {unset}, then commit")
    return Check("DVC", "ok", f"{n_stages} stages, none at work")


def _writers() -> list[str]:
    """Processes of DVC that are writing an output; those that were killed have left their entry."""
    try:
        locks = json.loads(RWLOCK.read_text("utf-8")).get("write", {}).values()
    except (OSError, ValueError, AttributeError):
        return []
    return sorted({f"process {lock['pid']} (`{_short(lock['cmd'])}`)" for lock in locks if _is_alive(lock["pid"])})


def _short(command: str) -> str:
    """Without the path of the program."""
    program, _, arguments = command.partition(" ")
    return f"{Path(program).name} {arguments}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _unfinished() -> Iterator[Check]:
    for name, standing in resuming.standings().items():
        where = "" if standing.step is None else f" at iteration {standing.step:,}"
        if standing.running:
            yield Check("running", "ok", f"{name}{where}")
        else:
            give_up = f"`rm -r {resuming.UNFINISHED / name}` gives it up"
            kept = (
                "nothing is kept yet"
                if standing.step is None
                else "its command goes on from there if nothing has changed"
            )
            remedy = f"{kept}, {give_up}"
            yield Check("unfinished", "warning", f"{name}{where}: {remedy}")

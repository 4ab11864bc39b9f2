"""What identifies a run: a digest of all that determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from eosrepro import catalog
from eosrepro.catalog import PACKAGE

# What a training depends on, as the stage `train` in dvc.yaml declares it.
TRAINING_SOURCES = ("core/training.py", "core/objective.py", "core/networks.py")
MEASURING_SOURCES = ("stages/workers.py", "diagnostics/sharpness.py", "core/lanczos.py")
MEMBER_FOLDERS = {"model": "models", "loss": "losses", "optimizer": "optimizers", "problem": "problems"}


def fingerprint(resolved: Mapping[str, Any], data_provenance: Mapping[str, Any] | None) -> str:
    """SHA-256 of all that determines a training: its settings, the checksum of its data, the sources that run it.

    Args:
        resolved: `Run.settings`.
        data_provenance: stages/data/provenance.json; None for a problem, or where the settings stand for the data.
    """
    if data_provenance is None:
        return digest([resolved, code_version(resolved)])
    # The checksum stands for the data: the same bytes from another place are the same data.
    settings = {key: value for key, value in resolved.items() if key not in ("data", "preprocessing")}
    return digest([settings, data_provenance["sha256"], code_version(resolved)])


def code_version(resolved: Mapping[str, Any], core: Iterable[str] = TRAINING_SOURCES) -> str:
    """SHA-256 of the sources that a run depends on: the core and the members it names, as dvc.yaml has it.

    A new model or an edited loss that this run does not use leaves it as it is.
    """
    files = {source: PACKAGE / source for source in core}
    for key, kind in MEMBER_FOLDERS.items():
        if key in resolved:
            name = resolved[key]["name"]
            files[f"{kind}/{name}.py"] = catalog.file(kind, name)
    for name in resolved.get("observe", {}):
        files[f"observations/{name}.py"] = catalog.file("observations", name)
    return digest([[source, path.read_text("utf-8")] for source, path in files.items()])


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

"""What identifies a run: a digest of all that determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from eosrepro.records.code import training_code

MEMBER_FOLDERS = {"model": "models", "loss": "losses", "optimizer": "optimizers", "problem": "problems"}


def fingerprint(resolved: Mapping[str, Any], data_provenance: Mapping[str, Any] | None) -> str:
    """SHA-256 of all that determines a training: its settings, the checksum of its data, the sources that run it.

    Args:
        resolved: `Run.settings`, or one of `batched_settings`.
        data_provenance: stages/data/provenance.json; None for a problem, or where the settings stand for the data.
    """
    if data_provenance is None:
        return digest([resolved, code_version(resolved)])
    # The checksum stands for the data: the same bytes from another place are the same data.
    settings = {key: value for key, value in resolved.items() if key not in ("data", "preprocessing")}
    return digest([settings, data_provenance["sha256"], code_version(resolved)])


def code_version(resolved: Mapping[str, Any]) -> str:
    """SHA-256 of the sources that train a run: the core and the members it names."""
    return training_code(members_of(resolved), batched="batched" in resolved)


def batched_settings(group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings of runs that were trained together, from those of each by itself.

    They say with which others: in another batch the last bits of a run may be others, so it is another run.
    """
    of_data = ("data", "preprocessing")  # for which the checksum of each stands
    together = digest([{key: value for key, value in each.items() if key not in of_data} for each in group])
    return [{**each, "batched": {"runs": len(group), "together": together}} for each in group]


def members_of(resolved: Mapping[str, Any]) -> dict[str, list[str]]:
    """Kind → names of the members that train a run."""
    named = {kind: [resolved[key]["name"]] for key, kind in MEMBER_FOLDERS.items() if key in resolved}
    return {**named, "observations": [*resolved.get("observe", {})]}


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

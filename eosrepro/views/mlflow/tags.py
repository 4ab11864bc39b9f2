"""Parameters and tags of a run, in the lengths and characters that MLflow takes."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from eosrepro.core.later import torch
from eosrepro.records.flat import flattened
from eosrepro.records.identity import code_version, fingerprint
from eosrepro.records.runs import Measured

PARAM_LENGTH = 500
NAME_LENGTH = 200  # of 250, with room for the group of a metric

# Of the provenance of the data: the first is among the settings, the second is shown with the data set.
NOT_PARAMETERS = ("preprocessing", "source")

# Names under which the MLflow UI shows what they hold.
GIT_COMMIT = "mlflow.source.git.commit"
SOURCE = "mlflow.source.name"
DESCRIPTION = "mlflow.note.content"
USE_OF_DATA = "mlflow.data.context"
COLOUR = "mlflow.runColor"


def run_params(
    resolved: Mapping[str, Any],
    data_provenance: Mapping[str, Any] | None,
    window: int,
    measured: Mapping[str, Measured],
) -> dict[str, str]:
    step_size = Fraction(str(resolved["step_size"]))
    numbers = {"step_size_float": float(step_size)}
    settings = {diagnostic: found.settings for diagnostic, found in measured.items()}
    data = {key: value for key, value in (data_provenance or {}).items() if key not in NOT_PARAMETERS}
    facts = {**resolved, **numbers, "window": window, "dataset": data, **settings}
    return shortened_facts(facts)


def shortened_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    return {mlflow_name(key): shortened(_text(value), PARAM_LENGTH) for key, value in flattened(facts).items()}


def mlflow_name(key: str) -> str:
    """The name of a parameter or of a measured quantity, of the characters that MLflow takes."""
    return re.sub(r"[^\w.\-: ]", "_", key)[:NAME_LENGTH]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def run_tags(
    name: str, resolved: Mapping[str, Any], data_provenance: Mapping[str, Any] | None, profile: str
) -> dict[str, str]:
    tags = {
        SOURCE: f"eosrepro train {name}",
        "fingerprint": fingerprint(resolved, data_provenance),
        "code_version": code_version(resolved),
        "profile": profile,
        "data": data_provenance["label"] if data_provenance else None,
        "dvc_stage": os.environ.get("DVC_STAGE"),  # the stage that wrote last
    }
    return {key: value for key, value in tags.items() if value}


def outcome_tags(summary: Mapping[str, Any]) -> dict[str, str]:
    return {"outcome": str(summary["reason"])} if "reason" in summary else {}


def machine_tags(resolved: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers may depend on and no file on disk may say."""
    on_gpu = resolved.get("compute", {}).get("device", "cpu") != "cpu" and torch.cuda.is_available()
    tags = {
        "machine.device": torch.cuda.get_device_name() if on_gpu else _cpu_name(),
        "machine.torch": torch.__version__,
        "machine.threads": str(resolved.get("compute", {}).get("threads", torch.get_num_threads())),
    }
    return tags | _git_commit()


def is_machine_tag(tag: str) -> bool:
    return tag.startswith("machine.") or tag == GIT_COMMIT


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _git_commit() -> dict[str, str]:
    try:
        ask = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {GIT_COMMIT: ask.stdout.strip()} if ask.returncode == 0 else {}

"""A small project in a folder of its own: the committed pipeline with a params.yaml that runs in seconds."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PARAMS = Path(__file__).parent / "params.yaml"  # a copy of the committed one: that one is there to be varied
EXPERIMENTS = ("exp2_2over300", "exp3_2over10", "exp3_2over30", "exp8_2over50")
MEASUREMENTS = {"exp5": "exp3_2over30", "exp8_2over50": "exp8_2over50"}  # name → run
TOYS = ("example1_2over39",)
FIGURES = ("example1", "exp3", "exp5", "exp8")


@cache
def _params() -> str:
    return json.dumps(load_yaml(PARAMS))


def all_params() -> dict[str, Any]:
    """The content of `PARAMS`, for the caller to change: a tenth of a second to read, and read once."""
    params: dict[str, Any] = json.loads(_params())
    return params


def small_params() -> dict[str, Any]:
    """Few and small runs of `PARAMS`: 100 photo patches, networks of width 8, 10 steps."""
    params = all_params()
    del params["templates"]
    params["profiles"]["quick"]["data"]["n_examples"] = 100
    params["profiles"]["quick"] |= {"max_steps": 10, "snapshot_every": 5, "max_epochs": 10, "snapshot_every_epochs": 5}
    params["compute"] |= {"device": "cpu", "threads": 1}
    for section, names in {"experiments": EXPERIMENTS, "toys": TOYS, "figures": FIGURES}.items():
        params[section] = {name: params[section][name] for name in names}
    params["measurements"] = {name: params["measurements"][name] | {"run": run} for name, run in MEASUREMENTS.items()}
    for experiment in params["experiments"].values():
        experiment["model"]["width"] = 8
    for figure in params["figures"].values():
        kept = {run: label for run, label in figure["runs"].items() if run in EXPERIMENTS + TOYS}
        figure["runs"] = kept or {"exp3_2over30": "η = {step_size}"}
        figure.pop("reference", None)
    claims = params["claims"].items()
    params["claims"] = {name: claim for name, claim in claims if claim["run"] in EXPERIMENTS + TOYS}
    return params


def write_params(folder: Path, params: Mapping[str, Any], name: str = "params.yaml") -> None:
    """Write a YAML file."""
    text = StringIO()
    yaml = YAML(typ="safe")
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(params, text)
    (folder / name).write_text(text.getvalue(), encoding="utf-8")


def write_project(folder: Path) -> dict[str, Any]:
    """A copy of the project's files, with `small_params`, which are returned."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("eosrepro", "reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    params = small_params()
    write_params(folder, params)
    return params


def environment() -> dict[str, str]:
    """That of a shell in which the environment is active, and no MLflow or DVC is around."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}

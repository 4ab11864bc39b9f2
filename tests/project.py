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
SMALL = Path(__file__).parent / "small"  # params.yaml, and the paper that it names
PARAMS = SMALL / "params.yaml"
RUNS = ("exp2_2over300", "exp3_2over10", "exp3_2over30", "exp8_2over50", "example1_2over39")


@cache
def _params() -> str:
    return json.dumps(load_yaml(PARAMS))


def small_params() -> dict[str, Any]:
    """The content of `PARAMS`, for the caller to change: a tenth of a second to read, and read once."""
    params: dict[str, Any] = json.loads(_params())
    return params


def alone(params: dict[str, Any], *experiments: str) -> dict[str, Any]:
    """The same with these experiments and no figures or claims."""
    kept = {name: params["experiments"][name] for name in experiments}
    return {key: value for key, value in params.items() if key not in ("figures", "paper")} | {"experiments": kept}


def write_params(folder: Path, params: Mapping[str, Any], name: str = "params.yaml") -> None:
    """Write a YAML file."""
    text = StringIO()
    yaml = YAML(typ="safe")
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(params, text)
    (folder / name).write_text(text.getvalue(), encoding="utf-8")


def write_project(folder: Path) -> dict[str, Any]:
    """The project of `SMALL` in a folder; its params.yaml is returned."""
    shutil.copytree(SMALL, folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "papers" / "ahn2022" / "curves", folder / "papers" / "small" / "curves")
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    return small_params()


def write_part(folder: Path, *experiments: str) -> dict[str, Any]:
    """The project of `SMALL` with these experiments alone, and with the figures and claims about them."""
    params = write_project(folder)
    params["experiments"] = {name: params["experiments"][name] for name in experiments}
    params["figures"] = {name: of for name, of in params["figures"].items() if of["of"] in experiments}
    write_params(folder, params)
    paper = folder / params["paper"]
    claims = load_yaml(paper / "claims.yaml")
    claims["claims"] = [block for block in claims["claims"] if str(block["of"]).strip("[']").startswith(experiments)]
    write_params(paper, claims, "claims.yaml")
    return params


def environment() -> dict[str, str]:
    """That of a shell in which the environment is active, and no MLflow or DVC is around."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}

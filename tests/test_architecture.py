"""What must stay true between files: imports, and that dvc.yaml says of every stage which settings it depends on."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from eosrepro import catalog
from eosrepro.records.code import closure
from tests.project import EXPERIMENTS, ROOT, small_params, write_params, write_project
from tests.project import FIGURES as FIGURE_NAMES


def test_no_member_imports_another() -> None:
    for kind in catalog.KINDS:
        for name in catalog.names(kind):
            member = catalog.reference(kind, name).partition(":")[0]
            others = {module for module in closure([member]) if module.startswith(f"eosrepro.{kind}.")} - {member}
            assert {each for each in others if not each.rsplit(".", 1)[1].startswith("_")} == set(), member


def test_packages_hold_no_code() -> None:
    for path in (ROOT / "eosrepro").glob("*/**/__init__.py"):  # that of eosrepro itself lists the API
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in body), path


def test_the_numerical_core_runs_on_torch_alone() -> None:
    folders = ("core", "models", "losses", "optimizers", "toys", "diagnostics")
    core = [f"{folder}.{file.stem}" for folder in folders for file in (ROOT / "eosrepro" / folder).glob("[!_]*.py")]
    heavy = ["mlflow", "dvc", "pydantic", "annotated_types", "pandas", "click", "matplotlib", "ruamel", "yaml", "rich"]
    program = (
        f"import sys, importlib\nfor name in {core}: importlib.import_module('eosrepro.' + name)\n"
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def open_project(folder: Path) -> dict[str, PipelineStage]:
    """All stages of a project, as DVC reads them."""
    with Repo(str(folder)) as repo:
        return {stage.name: stage for stage in repo.index.stages if isinstance(stage, PipelineStage)}


# --- dvc.yaml: settings -----------------------------------------------------------------------------------------------

EXP3 = "experiments.exp3_2over30"
TRAININGS = {f"train@{run}" for run in EXPERIMENTS}
DIAGNOSES = {f"diagnose@{run}" for run in EXPERIMENTS}
TOYS = {"train_toys", "diagnose_toys"}
WORK = ("train", "diagnose", "measure")
FIGURES = {f"figure@{name}" for name in FIGURE_NAMES}

# A setting, its new value, and the stages that read it: each of them runs anew, and of the others those whose inputs
# then differ.
SETTINGS: list[tuple[str, Any, set[str]]] = [
    ("sharpness.rtol", 1e-4, DIAGNOSES | {"diagnose_toys"}),
    ("sharpness.k", 2, DIAGNOSES | {"diagnose_toys"}),
    (f"{EXP3}.step_size", "2/45", {"train@exp3_2over30", "diagnose@exp3_2over30", "measure@exp5", "report"}),
    (f"{EXP3}.seed", 99, {"train@exp3_2over30", "report"}),
    (f"{EXP3}.stop.max_steps", 5, {"train@exp3_2over30", "report"}),
    (f"{EXP3}.snapshot_every", 2, {"train@exp3_2over30", "report"}),
    (f"{EXP3}.model.width", 9, {"train@exp3_2over30", "diagnose@exp3_2over30", "measure@exp5", "report"}),
    (f"{EXP3}.loss.name", "mse", {"train@exp3_2over30", "diagnose@exp3_2over30", "measure@exp5", "report"}),
    ("experiments.exp8_2over50.optimizer.seed", 1, {f"{work}@exp8_2over50" for work in WORK} | {"report"}),
    ("toys.example1_2over39.start", [0.2, 0.1], TOYS | {"report"}),
    ("toys.example1_2over39.toy.curvatures", [20, 2], TOYS | {"report"}),
    ("compute.threads", 2, TRAININGS | DIAGNOSES | TOYS | {"report"}),
    ("compute.dtype", "float64", TRAININGS | DIAGNOSES | TOYS | {"report"}),
    ("profiles.quick.data.n_examples", 90, {"data", "report"}),
    ("profiles.quick.preprocessing.scale", "symmetric", {"data", "report"}),
    ("profiles.quick.max_steps", 11, TRAININGS | {"report"}),
    ("profiles.quick.snapshot_every", 2, TRAININGS | {"report"}),
    ("profiles.quick.published", True, FIGURES | {"verify", "report"}),
    ("profiles.paper.max_steps", 11, set()),
    ("profile", "paper", {"data", "verify", "report"} | TRAININGS | FIGURES),
    ("profiles.quick.max_epochs", 9, TRAININGS | {"report"}),
    ("profiles.quick.snapshot_every_epochs", 2, TRAININGS | {"report"}),
    ("measurements.exp5.diagnostic.tolerance", 1e-5, {"measure@exp5"}),
    ("measurements.exp8_2over50.every", 10, {"measure@exp8_2over50"}),
    ("mlflow.window", 10, {"track"}),
    ("figures.exp3.title", "Another", {"figure@exp3", "verify", "report"}),  # figures name the published curves
    ("claims.exp3_2over30_loss_falls.bound.max", 2, {"verify"}),
]


def signatures(folder: Path, params: dict[str, Any]) -> dict[str, str]:
    """What DVC compares to decide whether a stage has changed, less the contents of files; of every stage."""
    write_params(folder, params)
    return {name: signature(stage, params) for name, stage in open_project(folder).items()}


def signature(stage: PipelineStage, params: dict[str, Any]) -> str:
    # What DVC would read from params.yaml, and would read from the file anew for every stage.
    read = [
        {key: at(params, key) for key in dep.params} if isinstance(dep, ParamsDependency) else dep.def_path
        for dep in stage.deps
    ]
    return json.dumps([str(stage.cmd), read, [out.def_path for out in stage.outs]], sort_keys=True)


def at(params: dict[str, Any], setting: str) -> Any:
    return reduce(lambda entry, key: entry[key], setting.split("."), params)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_project(folder)
    Repo.init(str(folder), no_scm=True).close()
    return folder


@pytest.fixture(scope="module")
def before(small: Path) -> dict[str, str]:
    return signatures(small, small_params())


@pytest.mark.parametrize(("setting", "value", "affected"), SETTINGS, ids=[setting for setting, *_ in SETTINGS])
def test_a_setting_reaches_the_stages_that_read_it_and_no_other(
    setting: str, value: Any, affected: set[str], small: Path, before: dict[str, str]
) -> None:
    params = small_params()
    parent, _, last = setting.rpartition(".")
    entry = at(params, parent) if parent else params
    assert entry[last] != value
    entry[last] = value
    after = signatures(small, params)
    assert {name for name in before if before[name] != after[name]} == affected

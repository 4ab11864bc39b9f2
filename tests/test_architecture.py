"""What must stay true between files: who imports whom, and which settings each stage of dvc.yaml reads."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import grimp
import networkx
import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from eosrepro.config.load import validate
from eosrepro.config.params import PARAMS
from eosrepro.records.places import CODE
from eosrepro.stages.check import digests
from tests.project import ROOT, small_params, write_params, write_project

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_the_folder_the_contract_and_the_page_show_the_same_floors() -> None:
    floors = [[each.strip().removeprefix("eosrepro.") for each in floor.split("|")] for floor in CONTRACTS[0]["layers"]]
    page = (ROOT / "docs/layout.md").read_text(encoding="utf-8")
    lines = re.search(r"^eosrepro/ .*\n((?:  .*\n)+)", page, re.MULTILINE)
    assert lines
    shown = [re.findall(r"(\w+)(?:/|\.py)(?= )", line.split("   ")[0] + " ") for line in lines[1].splitlines()]
    assert shown == floors
    there = [path.stem for path in (ROOT / "eosrepro").iterdir() if path.suffix == ".py" or [*path.glob("*.py")]]
    assert {each for floor in floors for each in floor} == {*there} - {"__init__"}


def test_nothing_imports_in_a_circle() -> None:
    """Neither modules nor folders, in any folder."""
    graph = grimp.build_graph("eosrepro", exclude_type_checking_imports=True, cache_dir=None)
    imports = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    for package in graph.modules:
        inside = len(package.split(".")) + 1
        neighbours = [
            [".".join(module.split(".")[:inside]) for module in pair]
            for pair in imports
            if all(module.startswith(f"{package}.") for module in pair)
        ]
        between = networkx.DiGraph([(one, other) for one, other in neighbours if one != other])
        assert [*networkx.simple_cycles(between)] == []


def test_packages_hold_no_code() -> None:
    for path in (ROOT / "eosrepro").glob("*/**/__init__.py"):  # that of eosrepro itself lists the API
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in body), path


def test_the_numerical_core_runs_on_torch_alone() -> None:
    (contract,) = [each for each in CONTRACTS if each["name"].startswith("The numerical core")]
    folders = [ROOT / each.replace(".", "/") for each in contract["source_modules"]]
    core = [".".join(file.relative_to(ROOT).with_suffix("").parts) for each in folders for file in each.glob("*.py")]
    program = (
        f"import sys, importlib\nfor name in {core}: importlib.import_module(name)\n"
        f"print(sorted(set({contract['forbidden_modules']}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- dvc.yaml: settings -----------------------------------------------------------------------------------------------

NAMES = {section: [*small_params()[section]] for section in ("experiments", "figures")}
TRAININGS = {f"train@{name}" for name in NAMES["experiments"]}
DIAGNOSES = {f"diagnose@{name}" for name in NAMES["experiments"]}
FIGURES = {f"figure@{name}" for name in NAMES["figures"]}
OF_EXP3 = {"train@exp3", "diagnose@exp3", "report"}

# A setting, its new value, and the stages that read it: each of them runs anew, and of the others those whose inputs
# then differ.
SETTINGS: list[tuple[str, Any, set[str]]] = [
    ("experiments.exp3.vary.step_size", ["2/10", "2/30", "2/45"], OF_EXP3),
    ("experiments.exp3.model.width", 9, OF_EXP3),
    ("experiments.exp3.diagnose.tau_scan.tolerance", 1e-5, OF_EXP3),  # the store has the trainings
    ("experiments.example1.start", [0.2, 0.1], {"train@example1", "diagnose@example1", "report"}),
    ("diagnose.sharpness.rtol", 1e-3, DIAGNOSES),
    ("compute.threads", 2, TRAININGS | DIAGNOSES | {"report"}),
    ("profiles.quick.data.n_examples", 90, {"data", "report"}),
    ("profiles.quick.preprocessing.scale", "symmetric", {"data", "report"}),
    ("profiles.quick.max_steps", 11, {"data", "report"} | TRAININGS),
    ("profiles.quick.published", True, {"data", "verify", "report"} | FIGURES),
    ("profiles.paper.max_steps", 11, set()),
    ("profile", "paper", {"data", "verify", "report"} | TRAININGS | FIGURES),
    ("paper", "papers/other", {"verify", "report"} | FIGURES),
    ("mlflow.window", 10, {"track"}),
    ("figures.exp3.title", "Another", {"figure@exp3", "report"}),
]


def open_project(folder: Path) -> dict[str, PipelineStage]:
    """All stages of a project, as DVC reads them."""
    with Repo(str(folder)) as repo:
        return {stage.name: stage for stage in repo.index.stages if isinstance(stage, PipelineStage)}


def signatures(folder: Path, params: dict[str, Any]) -> dict[str, str]:
    """What DVC compares to decide whether a stage has changed, less the contents of files; of every stage."""
    write_params(folder, params)
    # What it would read from the files anew for every stage.
    contents = {str(PARAMS): params, str(CODE): digests(validate(params, PARAMS))}
    return {name: signature(stage, contents) for name, stage in open_project(folder).items()}


def signature(stage: PipelineStage, contents: dict[str, Any]) -> str:
    read = [
        [at(contents[dep.def_path], key) for key in dep.params] if isinstance(dep, ParamsDependency) else dep.def_path
        for dep in stage.deps
    ]
    return json.dumps([str(stage.cmd), read, [out.def_path for out in stage.outs]], sort_keys=True)


def at(params: dict[str, Any], setting: str) -> Any:
    return reduce(lambda entry, key: entry[key], setting.split("."), params)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small project, in the working folder."""
    folder = tmp_path_factory.mktemp("small")
    write_project(folder)
    (folder / "papers/other").symlink_to(folder / "papers/small")
    Repo.init(str(folder), no_scm=True).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


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


def test_every_setting_is_read_by_a_stage(small: Path) -> None:
    write_params(small, params := small_params())
    deps = [dep for stage in open_project(small).values() for dep in stage.deps if isinstance(dep, ParamsDependency)]
    read = {key for dep in deps if dep.def_path == str(PARAMS) for key in dep.params}
    unread = {key for key in params if key not in read and not any(each.startswith(f"{key}.") for each in read)}
    assert unread == {"paper"}  # stages hang on the folder that it names

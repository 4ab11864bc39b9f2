"""What must stay true between files: imports, and that dvc.yaml says of every stage what it depends on."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

import grimp
import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from eosrepro import catalog
from eosrepro.records.identity import MEMBER_FOLDERS, TRAINING_SOURCES
from tests.project import EXPERIMENTS, PARAMS, ROOT, all_params, small_params, write_params, write_project
from tests.project import FIGURES as FIGURE_NAMES

# Modules that stages import and dvc.yaml does not name, as an edit of them changes no result: nouns and look-ups, and
# the wiring around the core. Where it does (a new column, a mended format), `dvc repro --force` is the answer.
NOUNS_AND_LOOKUPS = ("errors", "catalog", "core.types")
WIRING_AND_FORMATS = ("cli", "tools", "stages", "views", "config", "records")
NAMED = ("stages.workers", "stages.outdated", "views.report", "views.markdown", "records.series", "records.flat")

# The core modules that the wiring calls in each command of dvc.yaml, and the kinds of members that it looks up there.
# (A figure's contours of a toy come from a member too, and so do objective and minibatches of a measurement, but what
# changes them re-trains the run.)
CORE: Mapping[str, tuple[str, ...]] = {
    "config": (),
    "data": ("data._preprocessing",),
    "train": ("core.training", "core.objective", "core.networks"),
    "diagnose": ("stages.workers", "core.objective", "core.networks"),
    "measure": ("stages.workers", "core.objective", "core.networks"),
    "plot": ("figures._style",),
    "verify": ("verdicts.claims", "verdicts.characteristics", "stages.outdated", "views.markdown"),
    "report": ("views.report.page", "views.report.chart", "stages.outdated"),
    "sync": (),
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "train": ("model", "loss", "optimizer", "toy"),
    "diagnose": ("model", "loss", "toy"),
}
FOLDERS = MEMBER_FOLDERS


# --- imports ----------------------------------------------------------------------------------------------------------


@cache
def graph() -> grimp.ImportGraph:
    """The imports of the package, without those of the modules that change no result."""
    # Never from grimp's cache: graphs of different options share its dates, and one is stale after the other was made.
    imports = grimp.build_graph("eosrepro", exclude_type_checking_imports=True, cache_dir=None)
    for module in [*imports.modules]:
        if is_unnamed(module) and not imports.find_children(module):  # with a package its modules would go
            imports.remove_module(module)
    return imports


def is_unnamed(module: str) -> bool:
    name = module.removeprefix("eosrepro.")
    below = [any(f"{name}.".startswith(f"{each}.") for each in names) for names in (NAMED, WIRING_AND_FORMATS)]
    return name in NOUNS_AND_LOOKUPS or (below[1] and not below[0])


def closure(module: str) -> set[str]:
    """Files of a module and of all that it imports."""
    return {source(name) for name in {module, *graph().find_upstream_modules(module)}}


def source(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def test_the_core_of_each_command_is_what_the_wiring_imports() -> None:
    imports = grimp.build_graph("eosrepro", cache_dir=None)
    stages = [module for module in imports.modules if is_unnamed(module) and module.startswith("eosrepro.stages.")]
    imported = {each for stage in stages for each in imports.find_modules_directly_imported_by(stage)}
    core = {f"eosrepro.{name}" for names in CORE.values() for name in names}
    assert {each for each in imported if not is_unnamed(each)} - core == set()


def test_no_member_imports_another() -> None:
    for kind in catalog.KINDS:
        for name in catalog.names(kind):
            member = f"eosrepro.{kind}.{name.replace('-', '_')}"
            others = {m for m in graph().find_upstream_modules(member) if m.startswith(f"eosrepro.{kind}.")}
            assert {m for m in others if not m.rsplit(".", 1)[1].startswith("_")} == set(), member


def test_packages_hold_no_code() -> None:
    for path in (ROOT / "eosrepro").rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in body), path


def test_the_numerical_core_runs_on_torch_alone() -> None:
    members = [
        f"{kind}.{name}" for kind in ("models", "losses", "optimizers", "toys", "diagnostics") for name in names(kind)
    ]
    core = ["core.objective", "core.along", "core.lanczos", "core.training", *members]
    heavy = ["mlflow", "dvc", "pydantic", "annotated_types", "pandas", "click", "matplotlib", "ruamel", "yaml", "rich"]
    program = (
        f"import sys, importlib\nfor name in {core}: importlib.import_module('eosrepro.' + name)\n"
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def names(kind: str) -> list[str]:
    return [name.replace("-", "_") for name in catalog.names(kind)]


# --- dvc.yaml: files --------------------------------------------------------------------------------------------------


def open_project(folder: Path) -> dict[str, PipelineStage]:
    """All stages of a project, as DVC reads them."""
    with Repo(str(folder)) as repo:
        return {stage.name: stage for stage in repo.index.stages if isinstance(stage, PipelineStage)}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PipelineStage]:
    """The stages of the committed dvc.yaml and params.yaml."""
    folder = tmp_path_factory.mktemp("committed")
    write_project(folder)
    (folder / "params.yaml").write_bytes(PARAMS.read_bytes())
    Repo.init(str(folder), no_scm=True).close()
    return open_project(folder)


def sources(stage: PipelineStage) -> set[str]:
    """Files below eosrepro/ that a stage depends on; a folder stands for all that it holds."""
    paths = [ROOT / dep.def_path for dep in stage.deps if dep.def_path.startswith("eosrepro/")]
    files = [file for path in paths for file in ([*path.glob("*.py"), *path.glob("*.j2")] if path.is_dir() else [path])]
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}


def runs_on(stage: PipelineStage, params: Mapping[str, Any]) -> set[str]:
    """Files that the command of a stage runs and that decide its result."""
    shell, program, command, *arguments = str(stage.cmd).split()
    assert (shell, program) == ("exec", "eosrepro")  # a stage that is not exec'd outlives a killed `dvc repro`
    name = arguments[0] if arguments else ""
    files = {file for module in CORE[command] for file in closure(f"eosrepro.{module}")}
    if command == "data":
        files |= {file for member in names("data") for file in closure(f"eosrepro.data.{member}")}
    if command == "diagnose":
        files |= closure("eosrepro.diagnostics.sharpness")
    if command == "measure":
        files |= closure(f"eosrepro.diagnostics.{params['measurements'][name]['diagnostic']['name']}")
    if command == "report":
        files.add("eosrepro/views/report/page.html.j2")
    if command == "plot":
        files |= closure(f"eosrepro.figures.{params['figures'][name]['name']}")
    known = {**params["experiments"], **params["toys"]}
    runs = list(params["toys"].values()) if name == "--toys" else [known[name]] if name in known else []
    if name == "--toys" and command == "train":  # whichever of them the toys take
        files |= {file for member in names("optimizers") for file in closure(f"eosrepro.optimizers.{member}")}
    for run in runs:
        for kind in KINDS.get(command, ()):
            if kind in run:
                files |= closure(f"eosrepro.{FOLDERS[kind]}.{run[kind]['name']}")
    return files


def test_every_stage_depends_on_the_files_it_runs_and_on_no_other(stages: dict[str, PipelineStage]) -> None:
    params = all_params()
    assert len(stages) > 40
    needed = {name: runs_on(stage, params) for name, stage in stages.items()}
    named = {name: sources(stage) for name, stage in stages.items()}
    missing = {name: needed[name] - named[name] for name in stages}
    # What a `foreach` names for all its stages, one of them needs.
    needless = {
        name: named[name] - set().union(*(needed[other] for other in stages if kind(other) == kind(name)))
        for name in stages
    }
    assert {name: files for name, files in missing.items() if files} == {}
    assert {name: files for name, files in needless.items() if files} == {}


def kind(stage: str) -> str:
    return stage.split("@")[0]


def test_a_run_is_known_in_mlflow_by_the_files_that_its_training_depends_on(stages: dict[str, PipelineStage]) -> None:
    # Otherwise an edited file would make a run unknown that `dvc repro` finds up to date, or the other way round.
    params = all_params()
    for name, run in params["experiments"].items():
        members = {f"eosrepro/{folder}/{run[key]['name']}.py" for key, folder in FOLDERS.items() if key in run}
        own = members | {f"eosrepro/{file}" for file in TRAINING_SOURCES}
        assert sources(stages[f"train@{name}"]) == own


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

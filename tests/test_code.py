"""Digests of code: they follow what is imported, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import eosrepro
from eosrepro import catalog
from eosrepro.errors import ConfigError
from eosrepro.records.code import closure, diagnostic_code, digest_of, figure_code, stage_code, training_code
from tests.plugins import Write, install, project_in

MEMBERS = {"models": ["mlp"], "losses": ["cross_entropy"], "optimizers": ["gd"]}


# --- closures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modules",
    [
        ["core.training", "models.mlp", "losses.cross_entropy", "optimizers.gd"],
        ["figures.toy_paths"],
        ["diagnostics.spectrum"],
    ],
)
def test_the_closure_is_what_python_imports(modules: list[str]) -> None:
    names = [f"eosrepro.{module}" for module in modules]
    # What is imported in functions too: the modules that import PyTorch at once.
    later = [each for each in closure(names) if each.rpartition(".")[2] in ("onednn", "slope", "third", "_layers")]
    program = f"import sys, importlib\nfor name in {names + later}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {*closure(names)} == {each for each in done.stdout.split() if f"{each}.".startswith("eosrepro.")}


# For each model, the modules that a training and a diagnosis have loaded at their end.
LOADED = """
import json, sys, torch
from eosrepro import catalog

OPTIONS = {"transformer": {"predict": "whole", "n_tokens": 2}, "resnet": {"depth": 8}, "vgg": {"width_factor": 0.05}}
found = {}
for name in catalog.names("models"):
    for module in [each for each in sys.modules if each.partition(".")[0] == "eosrepro"]:
        del sys.modules[module]
    from eosrepro import catalog
    from eosrepro.core.objective import network_objective
    from eosrepro.core.training import minimise
    from eosrepro.core.types import Stop

    torch.manual_seed(0)
    shape = (5,) if name == "transformer" else (3, 8, 8)
    module = catalog.find("models", name)(shape, 2, **OPTIONS.get(name, {}))
    loss, targets = catalog.find("losses", "cross_entropy")(), torch.tensor([0, 1, 1])
    inputs = torch.rand(3, *shape).round()
    objective = network_objective(module, loss, inputs, targets, chunk_size=3)
    for _ in minimise(objective, objective.start, catalog.find("optimizers", "gd")(0.01), stop=Stop(2)):
        pass
    objective.curvature_grads(objective.start, torch.ones(1, len(objective.start)))
    found[name] = sorted(each for each in sys.modules if each.startswith("eosrepro."))
print(json.dumps(found))
"""


def test_all_that_a_training_loads_is_in_its_digest() -> None:
    """Imports in functions among it: those of the modules that import PyTorch at once."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert "eosrepro.models._vit" in found["vit"]
    for model, loaded in found.items():
        # The catalogue finds members, and decides no number.
        named = ["core.training", f"models.{model}", "losses.cross_entropy", "optimizers.gd", "catalog"]
        assert {*loaded} <= {*closure([f"eosrepro.{each}" for each in named])}, model
        late = ("core.onednn", "core.slope", "core.third", "models._layers")
        assert {f"eosrepro.{each}" for each in late} <= {*loaded}


def test_the_closure_of_every_module_is_that_of_another_reader() -> None:
    # grimp knows imports in functions too, and says nothing of the packages around a module.
    graph = grimp.build_graph("eosrepro", exclude_type_checking_imports=True, cache_dir=None)
    packages = {module for module in graph.modules if graph.find_children(module)}
    for module in graph.modules:
        assert {*closure([module])} - packages == {module, *graph.find_upstream_modules(module)} - packages, module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files of a project in the working folder."""
    yield from project_in(tmp_path, monkeypatch)


FORMS = """
import os, members.absolute
from members import from_package, not_a_module
from members.deep.inner import name
from . import sibling
from ..tools import helper as renamed
from ..far.away import *
import numpy, json.decoder
from typing import TYPE_CHECKING
import typing
if TYPE_CHECKING:
    import members.only_types
elif True:
    import members.at_runtime
if typing.TYPE_CHECKING:
    from members import also_types
def later():
    with open(os.devnull):
        try:
            import own_file
        except ImportError:
            from own_package import part
        finally:
            import members.finally_
    match 3:
        case 3:
            import members.matched
class C:
    from . import in_class
"""


def test_every_form_of_import_is_followed_within_own_code(project: Write) -> None:
    expected = {"members.absolute", "members.from_package", "members.deep.inner", "members.models.sibling"}
    expected |= {"members.tools.helper", "members.far.away", "members.at_runtime", "own_file", "own_package.part"}
    expected |= {"members.finally_", "members.matched", "members.models.in_class"}
    for module in (*expected, "members.only_types", "members.also_types", "numpy", "members.unused"):
        project(f"{module.replace('.', '/')}.py", "")
    project("own_package/__init__.py", "from own_package import other")
    project("own_package/other.py", "from . import part  # and round again")
    project("members/models/net.py", FORMS)
    found = closure([catalog.reference("models", "net").partition(":")[0]])
    assert found.keys() == expected | {"members.models.net", "own_package", "own_package.other"}
    assert all(file.is_relative_to(Path.cwd()) for file in found.values())


def test_a_digest_follows_the_helper_of_a_plugin_and_no_other_member(
    project: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    install(site, monkeypatch, "lab", {"models": {"wide": "lab.nets:wide"}})
    for file, text in {
        "__init__": "",
        "nets": "from ._blocks import block",
        "_blocks": "block = 1",
        "rest": "",
    }.items():
        project(f"site-packages/lab/{file}.py", text)
    project("site-packages/library/__init__.py", "import library.inner")
    project("site-packages/library/inner.py", "")
    project("members/models/other.py", "other = 1")
    members = {**MEMBERS, "models": ["wide"]}
    before, plain = training_code(members), training_code(MEMBERS)
    assert before != plain
    project("site-packages/lab/_blocks.py", "block = 2")
    after = training_code(members)
    assert after != before
    for file in ("site-packages/lab/rest.py", "members/models/other.py"):
        project(file, "other = 2")
    assert (training_code(members), training_code(MEMBERS)) == (after, plain)
    # Of a library that is named, the one module counts, as its version would.
    assert {*closure(["library"])} == {"library"}


def test_a_plugin_in_a_folder_that_is_no_library_is_followed(
    project: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "checkout"))
    project("checkout/mylab/nets.py", "import mylab.blocks, otherlab")
    project("checkout/mylab/blocks.py", "")
    project("checkout/otherlab.py", "")
    assert {*closure(["mylab.nets"])} == {"mylab.nets", "mylab.blocks"}


# --- digests ----------------------------------------------------------------------------------------------------------


CODE = '''def net(shape, n):
    x = f"{shape}"
    text = """one

    # two"""
    return x, text
'''
PROSE = '''"""Of the module."""

# A comment.
def net(shape, n):  # another
    """Of the function,

    in two parts."""

    x = f"{shape}"

    "alone"  # and said
    text = """one

    # two"""
    # The end.
    return x, text
'''


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (PROSE, True),
        (CODE.replace("\n", "\r\n"), True),
        (CODE + "\n\n# more\n", True),
        (CODE.replace("one\n\n", "one\n"), False),
        (CODE.replace("# two", ""), False),
        (CODE.replace('f"{shape}"', '"{shape}"'), False),
        (CODE.replace("x, text", "text"), False),
        (CODE + '\nf"{print(1)}"\n', False),
        (CODE + '\n"a"; y = 1\n', False),
    ],
)
def test_an_edit_of_prose_is_none(text: str, same: bool, project: Write) -> None:
    project("members/models/net.py", CODE)
    before = digest_of(["members.models.net"])
    project("members/models/net.py", text)
    assert (digest_of(["members.models.net"]) == before) is same


def test_a_digest_is_the_same_at_every_place_and_python(project: Write) -> None:
    # Known here, so that another Python, machine or folder that finds another number is found out.
    project("members/models/net.py", PROSE)
    assert catalog.reference("models", "net") == "members.models.net:net"
    assert digest_of(["members.models.net"]) == "6f5532f717a6716719c4449c2423a8b8756a506815f086fd954f41a3ecd15c90"


def test_what_each_digest_is_of(tmp_path: Path) -> None:
    """An edited copy of the package tells which digests each file is in."""
    package = tmp_path / "eosrepro"
    shutil.copytree(Path(eosrepro.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        f"from eosrepro.records import code\nm = {MEMBERS}\n"
        "print(code.training_code(m), code.diagnostic_code('tau_scan', m), "
        "code.diagnostic_code('sharpness', m), code.figure_code('trajectories'), code.stage_code('report', {}))"
    )

    def digests() -> list[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    base = digests()
    ours = [training_code(MEMBERS), diagnostic_code("tau_scan", MEMBERS), diagnostic_code("sharpness", MEMBERS)]
    assert base == [*ours, figure_code("trajectories"), stage_code("report", {})]
    for file, edited in {
        "core/objective.py": [True, True, True, False, False],
        "core/along.py": [False, True, False, False, False],
        "core/lanczos.py": [False, False, True, False, False],
        "models/mlp.py": [True, True, True, False, False],
        "losses/mse.py": [False] * 5,
        "figures/_style.py": [False, False, False, True, True],
        "figures/toy_paths.py": [False] * 5,
        "views/report/page.html.j2": [False, False, False, False, True],
        "stages/progress.py": [False] * 5,
    }.items():
        text = (package / file).read_text("utf-8")
        (package / file).write_text(text + "\nedited = 1\n", "utf-8")
        assert [now != then for now, then in zip(digests(), base, strict=True)] == edited, file
        (package / file).write_text(text, "utf-8")


def test_no_run_hangs_on_the_labels_of_axes() -> None:
    assert "eosrepro.core.quantities" not in closure(["eosrepro.core.training", "eosrepro.optimizers.adam"])


def test_no_torch_is_imported_for_a_digest() -> None:
    program = (
        f"import sys\nfrom eosrepro.records import code\ncode.training_code({MEMBERS})\n"
        "print({'torch', 'pandas', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_file_that_is_no_python_is_named(project: Write) -> None:
    file = project("members/models/net.py", "def net(:\n")
    with pytest.raises(ConfigError, match=f"^{file} is no valid Python: "):
        training_code({"models": ["net"]})

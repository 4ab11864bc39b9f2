"""A command that computes nothing does not wait for PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eosrepro import catalog
from eosrepro.config.load import load
from eosrepro.config.members import GIVEN
from eosrepro.stages import diagnose, track, train
from eosrepro.stages.check import check
from eosrepro.stages.data import make_data
from eosrepro.stages.figure import draw
from eosrepro.stages.report import report
from eosrepro.stages.verify import verify
from tests.project import ROOT, environment, write_part

LOADED = "print('torch' in sys.modules)"


def run(program: str, folder: Path) -> str:
    """What a program prints, of a process of its own."""
    python = {**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=python, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all that is recorded of two experiments."""
    folder = tmp_path_factory.mktemp("later")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(track, "_is_worth_mlflow", lambda _started: False)
        write_part(folder, "exp3", "example1")
        config = load()
        check(config)
        make_data(config)
        for experiment in ("exp3", "example1"):
            train.train(config, experiment, jobs=1)
            diagnose.diagnose(config, experiment, jobs=1)
        for figure in ("exp3", "exp5"):
            draw(config, figure)
        verify(config)
        report(config)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "config check",
        "config schema",
        "config show exp3_2over30",
        "config members",
        "list",
        "figure exp3",
        "figure exp5",
        "verify",
        "report",
        "track",
        "compare exp3_2over10 exp3_2over30",
        "gc",
        "papers",
        "check",
    ],
)
def test_a_command_that_computes_nothing_does_without_pytorch(command: str, project: Path) -> None:
    program = f"import sys\nfrom eosrepro.cli import main\nmain({command.split()}, standalone_mode=False)\n{LOADED}"
    assert run(program, project).splitlines()[-1] == "False"


@pytest.mark.parametrize("command", ["config check", "config show exp3_2over30", "check"])
def test_a_command_that_reads_no_table_does_without_pandas(command: str, project: Path) -> None:
    asked = "print({'pandas', 'matplotlib'} & {*sys.modules})"
    program = f"import sys\nfrom eosrepro.cli import main\nmain({command.split()}, standalone_mode=False)\n{asked}"
    assert run(program, project).splitlines()[-1] == "set()"


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_a_member_is_read_without_pytorch(kind: str, tmp_path: Path) -> None:
    """Its signature, its options and what it finds."""
    program = (
        "import sys, inspect\nfrom eosrepro import catalog\nfrom eosrepro.config.members import annotation_of\n"
        f"for name in catalog.names({kind!r}):\n"
        f"    member = catalog.find({kind!r}, name)\n"
        "    for parameter in inspect.signature(member).parameters.values():\n"
        f"        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in {GIVEN | {'runs'}}:\n"
        "            annotation_of(member, parameter)\n"
        f"    if {kind!r} in ('diagnostics', 'observations'): catalog.quantities(name, kind={kind!r})\n{LOADED}"
    )
    assert run(program, tmp_path) == "False"


def test_the_api_is_there_without_pytorch_until_it_is_asked(tmp_path: Path) -> None:
    program = (
        "import sys, eosrepro\nfrom eosrepro import Objective, gd, load, minimise, plot\n"
        f"{LOADED}\nfrom eosrepro.core.later import torch\nassert torch.zeros(1).numel() == 1\n{LOADED}"
    )
    assert run(program, tmp_path).split() == ["False", "True"]


def test_what_was_asked_for_stays(tmp_path: Path) -> None:
    program = (
        "from eosrepro.core.later import functional, nn, pytree, torch\n"
        "assert 'zeros' not in vars(torch)\ntorch.zeros, nn.Linear, functional.linear, pytree.tree_map\n"
        "import torch as real\n"
        "assert vars(torch)['zeros'] is real.zeros and vars(nn)['Linear'] is real.nn.Linear\n"
        "assert vars(functional)['linear'] is real.nn.functional.linear"
    )
    run(program, tmp_path)


NOT_AT_ONCE = (
    "import sys, importlib, pkgutil, eosrepro\nsys.modules['torch'] = None\n"
    "for module in pkgutil.walk_packages(eosrepro.__path__, 'eosrepro.'):\n"
    "    try: importlib.import_module(module.name)\n"
    "    except ImportError: print(module.name)\n"
)


def test_the_modules_that_import_pytorch_at_once_have_classes_of_it(tmp_path: Path) -> None:
    """And no other module of the package does: the rule of docs/layout.md."""
    own = {"core.onednn", "core.slope", "core.third"}
    own |= {f"models.{each}" for each in ("_attention", "_layers", "_resnet", "_transformer", "_vit")}
    found = {line.removeprefix("eosrepro.") for line in run(NOT_AT_ONCE, tmp_path).splitlines()}
    assert found == own
    for module in own:
        file = ROOT / "eosrepro" / f"{module.replace('.', '/')}.py"
        assert "\nclass " in file.read_text(encoding="utf-8")

"""Members outside of the package: of a project, of an installed package, and any function by its place."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from eosrepro import catalog
from eosrepro.cli import main
from eosrepro.config.load import load, schema, validate
from eosrepro.config.members import Member, _Of
from eosrepro.errors import ConfigError
from eosrepro.records.places import train_folder
from eosrepro.records.runs import load_record
from eosrepro.records.snapshots import load_snapshot, snapshot_paths
from eosrepro.stages import outdated
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.train import train
from tests.plugins import Write, install, project_in
from tests.project import ROOT, alone, environment, small_params, write_params, write_project

HALF = """
from eosrepro.core.types import Geometry, Optimizer
from {helper} import share

def half(*, step_size: float, power: int = 1) -> Optimizer:
    geometry = lambda at, state: Geometry(2 / share / step_size)
    return Optimizer(lambda theta: None, lambda at, state: (share * step_size * at.grad, state), geometry, "4/η")
"""
RUN = "example1_2over39"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files of a project in the working folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    yield from project_in(tmp_path, monkeypatch)


def write_half(project: Write, where: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The optimizer `half` and its helper; its name in params.yaml, and the file of the helper."""
    if where == "members":
        project("members/optimizers/half.py", HALF.format(helper="members.shares"))
        helper, name = "members/shares.py", "half"
    elif where == "own file":
        project("mine.py", HALF.format(helper="shares"))
        helper, name = "shares.py", "mine:half"
    else:
        project("site-packages/lab/optim/__init__.py", HALF.format(helper=".shares"))
        helper, name = "site-packages/lab/optim/shares.py", "half" if where == "entry point" else "lab.optim:half"
        install(Path("site-packages").absolute(), monkeypatch, "lab", {"optimizers": {"half": "lab.optim:half"}})
    project(helper, "share = 0.5\n")
    return name, helper


PLACES = ["members", "own file", "entry point", "written out"]


@pytest.mark.parametrize("where", PLACES)
def test_a_member_from_elsewhere_trains_and_is_known_by_its_code(
    where: str, project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, helper = write_half(project, where, monkeypatch)
    params = small_params()
    params["experiments"]["example1"]["optimizer"] = {"name": name}
    write_params(Path(), alone(params, "example1"))
    for command in ("train", "diagnose"):
        done = CliRunner().invoke(main, [command, RUN])
        assert done.exit_code == 0, done.output
    run = load().runs[RUN]
    record = load_record(train_folder("example1", RUN))
    # f = 20θ₁² + θ₂²: with half of η = 2/39, θ₁ is multiplied by 1 − 40/39 in each step.
    first = record.trajectory["loss"][0] - 0.1**2
    assert record.trajectory["loss"][1] == pytest.approx(first / 39**2 + 0.1**2 * (1 - 2 / 39) ** 2, rel=1e-12)
    assert outdated.outdated(run, record) == ""

    project(helper, "# a half\nshare = 0.5\n")
    assert outdated.outdated(run, record) == ""
    project(helper, "share = 0.25\n")
    assert outdated.outdated(run, record) == "trained by other code than today's"


def test_names_are_those_of_all_places(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = catalog.names("optimizers"), catalog.names("data")
    install(Path("site").absolute(), monkeypatch, "lab", {"optimizers": {"sign": "lab.optim:sign"}})
    project("members/optimizers/half.py", "")
    project("members/optimizers/_helper.py", "")
    project("members/data/my_images.py", "")
    assert catalog.names("optimizers") == sorted([*ours[0], "half", "sign"])
    assert catalog.names("data") == sorted([*ours[1], "my-images"])
    assert catalog.reference("optimizers", "sign") == "lab.optim:sign"  # without an import: there is no such module
    assert catalog.reference("data", "my-images") == "members.data.my_images:my_images"


def test_a_name_that_is_there_twice_is_refused(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    project("members/models/mlp.py", "def mlp(): ...")
    both = r"mlp of models is there twice, as eosrepro\.models\.mlp:mlp and members\.models\.mlp:mlp: write out"
    with pytest.raises(ConfigError, match=both):
        catalog.find("models", "mlp")
    project("members/losses/huber.py", "def huber(): ...")
    install(Path("site").absolute(), monkeypatch, "lab", {"losses": {"huber": "lab:huber"}})
    with pytest.raises(ConfigError, match=r"members\.losses\.huber:huber and lab:huber"):
        catalog.find("losses", "huber")
    assert catalog.find("models", "eosrepro.models.mlp:mlp")((2,), 1, depth=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"the module members\.models\.broken cannot be imported: ZeroDivisionError: division by zero"),
        ("wants", r"the module members\.models\.wants cannot be imported: ModuleNotFoundError: No module named 'nlp"),
        ("nets:wide", r"no function or class 'wide' in nets; did you mean 'wider'\?"),
        ("nets:number", r"no function or class 'number' in nets$"),
        ("net:wider", r"no module 'net' is installed or lies in this folder"),
        ("torch.nets:Linear", r"no module 'torch\.nets' is installed"),
        ("nets:", r"'nets:' should read package\.module:function"),
        ("../nets:wider", r"'\.\./nets:wider' should read package\.module:function"),
        ("nets.py:wider", r"no module 'nets\.py' is installed"),
        ("widest", r"no 'widest' in models \(there are: broken, .*wants\)"),
        ("builtins:dict", r"builtins:dict does not say which parameters it has"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_message_at_its_place(name: str, message: str, project: Write) -> None:
    project("members/models/broken.py", "1 / 0")
    project("members/models/wants.py", "import nlp_of_tomorrow")
    project("nets.py", "number = 3\ndef wider(): ...")
    params = small_params()
    params["experiments"]["exp3"]["model"] = {"name": name}
    with pytest.raises(ConfigError, match=rf"^params\.yaml: experiments\.exp3\.model\.name: {message}"):
        validate(params, Path("params.yaml"))


# --- bugs in them -----------------------------------------------------------------------------------------------------

BAD_OPTIMIZER = """
from eosrepro.core.types import Geometry, Optimizer

def mine(*, step_size: float) -> Optimizer:
    def update(at, state):
        return {returns}

    return Optimizer(lambda theta: None, update, lambda at, state: Geometry(2 / step_size), "2/η")
"""
BAD_DIAGNOSTIC = """
from dataclasses import dataclass

@dataclass
class Row:
    step: int
    mine: float

def mine(objective, snapshots):
    for step, theta, _ in snapshots:
        yield Row(step, {yields})
"""
BAD_MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 10)

    def forward(self, x):
        return {returns}

def mine(input_shape, n_outputs) -> nn.Module:
    return Net({width})
"""
OBSERVATION = """
from dataclasses import dataclass

@dataclass
class Row:
    mine: float

def mine(here, following) -> Row:
    return Row({}["key"])
"""
LAYER = "self.layer(x.flatten(1))"
SHOWN = "(EOSREPRO_TRACEBACK=1 shows the whole traceback)"
ASKED = "and should return (u, state): u = θ_t − θ_{t+1}, a tensor of shape (2,), and the next state"
BUGS = {
    "step": ("optimizers", BAD_OPTIMIZER.format(returns="foo"), f"6: NameError: name 'foo' is not defined {SHOWN}", 1),
    "no state": (
        "optimizers",
        BAD_OPTIMIZER.format(returns="step_size * at.grad"),  # of two numbers, as θ is: they would be unpacked
        f"5: update returns Tensor of shape (2,), {ASKED}",
        1,
    ),
    "no vector": (
        "optimizers",
        BAD_OPTIMIZER.format(returns="step_size * at.grad.sum(), state"),
        f"5: update returns (Tensor of shape (), NoneType), {ASKED}",
        1,
    ),
    "row": ("diagnostics", BAD_DIAGNOSTIC.format(yields="foo"), f"11: NameError: name 'foo' is not defined {SHOWN}", 1),
    "call": (
        "diagnostics",
        BAD_DIAGNOSTIC.format(yields="objective.hvp(theta)(theta[:1])"),  # found in this package, made in the member
        "11: RuntimeError: ",
        1,
    ),
    "observation": ("observations", OBSERVATION, f"9: KeyError: 'key' {SHOWN}", 1),
    "model": (
        "models",
        BAD_MODEL.format(returns=LAYER, width="foo"),
        f"13: NameError: name 'foo' is not defined {SHOWN}",
        1,
    ),
    "type": ("models", BAD_MODEL.format(returns=LAYER, width="'a'"), "7: TypeError: ", 1),
    "forward": (
        "models",
        BAD_MODEL.format(returns=f"{LAYER} * foo", width="3072"),
        f"10: NameError: name 'foo' is not defined {SHOWN}",
        1,
    ),
    "attribute": (
        "models",
        BAD_MODEL.format(returns="self.layr(x)", width="3072"),
        f"10: AttributeError: 'Net' object has no attribute 'layr' {SHOWN}",
        1,
    ),
    "shape": ("models", BAD_MODEL.format(returns=LAYER, width="3071"), f"10; {SHOWN[1:]}", 2),
}


def with_bug(project: Write, kind: str, text: str) -> list[tuple[str, str]]:
    """A project with the member `mine`, and the commands that come upon it."""
    project(f"members/{kind}/mine.py", text)
    params = small_params()
    name = "exp3" if kind in ("models", "diagnostics") else "example1"
    key, value = {
        "optimizers": ("optimizer", {"name": "mine"}),
        "diagnostics": ("diagnose", {"mine": {}}),
        "observations": ("observe", ["mine"]),
        "models": ("model", {"name": "mine"}),
    }[kind]
    params["experiments"][name][key] = value
    if kind == "diagnostics":
        params["diagnose"] = {}
    write_params(Path(), alone(params, name))
    if name == "exp3":
        make_data(load())
    return [("train", name), *([("diagnose", name)] if kind == "diagnostics" else [])]


@pytest.mark.parametrize(("kind", "text", "said", "code"), BUGS.values(), ids=BUGS)
def test_a_bug_in_a_member_is_one_message_with_its_place(
    kind: str, text: str, said: str, code: int, project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EOSREPRO_JOBS", "1")
    *before, last = with_bug(project, kind, text)
    assert [CliRunner().invoke(main, command).exit_code for command in before] == [0] * len(before)
    done = CliRunner().invoke(main, last)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f"members/{kind}/mine.py, line {said}" in line
    assert done.exit_code == code
    assert isinstance(done.exception, SystemExit)
    if code == 1:
        assert line.startswith(f"Error: members/{kind}/mine.py, line ")


@pytest.mark.parametrize("schedule", [None, {"warm_up": 3}])
def test_a_step_without_a_state_is_named_by_its_function_with_a_schedule_too(
    schedule: dict[str, int] | None, project: Write
) -> None:
    with_bug(project, *BUGS["no state"][:2])
    params = alone(small_params(), "example1")
    params["experiments"]["example1"] |= {"optimizer": {"name": "mine"}} | ({"schedule": schedule} if schedule else {})
    write_params(Path(), params)
    done = CliRunner().invoke(main, ["train", RUN])
    assert (done.exit_code, done.stderr.strip()) == (
        1,
        f"Error: members/optimizers/mine.py, line {BUGS['no state'][2]}",
    )


@pytest.mark.parametrize("bug", ["row", "forward"])
def test_worker_processes_tell_it_as_well_and_the_traceback_is_there_for_the_asking(bug: str, project: Write) -> None:
    kind, text, said, _ = BUGS[bug]
    *before, (command, name) = with_bug(project, kind, text)

    def run(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "eosrepro", command, name, "--jobs", "2"],
            env=environment() | {"PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    assert [run(each).returncode for each, _ in before] == [0] * len(before)
    done = run(command)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"Error: members/{kind}/mine.py, line {said}")
    assert "Traceback" not in done.stderr
    whole = run(command, EOSREPRO_TRACEBACK="1")
    assert whole.returncode == 1
    assert "Traceback (most recent call last)" in whole.stderr
    assert re.search(rf'members/{kind}/mine.py", line {said.partition(":")[0]}, in', whole.stderr)
    assert whole.stderr.splitlines()[-1] == "NameError: name 'foo' is not defined"


def test_a_bug_of_an_installed_package_with_members_is_named(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = write_half(project, "entry point", monkeypatch)
    project("site-packages/lab/optim/shares.py", "share = {}\n")
    params = small_params()
    params["experiments"]["example1"]["optimizer"] = {"name": name}
    write_params(Path(), alone(params, "example1"))
    done = CliRunner().invoke(main, ["train", RUN])
    assert done.exit_code == 1
    assert "site-packages/lab/optim/__init__.py, line 6: TypeError: unsupported operand type(s)" in done.stderr


@pytest.mark.usefixtures("project")
def test_a_bug_of_this_package_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(Path(), alone(small_params(), "example1"))
    monkeypatch.setattr("eosrepro.core.training._ratio", None)
    done = CliRunner().invoke(main, ["train", RUN])
    assert isinstance(done.exception, TypeError)


def test_the_module_that_cannot_be_imported_is_named_with_the_line(project: Write) -> None:
    project("members/models/broken.py", "import math\n\nmath.sqrt(-1)")
    with pytest.raises(ConfigError, match=r"ValueError: .* \(members/models/broken\.py, line 3\)$"):
        catalog.find("models", "broken")


# --- functions that know nothing of this package ----------------------------------------------------------------------

NETS = """
from torch import nn

class Untyped(nn.Module):
    def __init__(self, n_in, width=3, n_outputs=2, layer=nn.Linear, _secret=None):
        super().__init__()
        self.layer = layer(n_in * width, n_outputs)

def shaped(input_shape: tuple[int, ...], n_outputs: int, bias: bool = True, **others):
    return nn.Linear(input_shape[0], n_outputs, bias=bias, **others)
"""


def read(kind: str, **written: Any) -> Member:
    return _Of(kind)._read(written)


def build(model: Member) -> nn.Module:
    made = catalog.find("models", model.name)((5,), 7, **model.options)
    assert isinstance(made, nn.Module)
    return made


def test_a_class_of_a_model_is_given_what_it_names_and_its_options(project: Write) -> None:
    project("nets.py", NETS)
    untyped = read("models", name="nets:Untyped", n_in=4)
    assert untyped.options == {"n_in": 4}  # its defaults are its own: one of them is a class
    layer = build(untyped).layer
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (12, 7)
    shaped = read("models", name="nets:shaped", bias=False, device="meta")
    assert shaped.options == {"bias": False, "device": "meta"}
    weight = build(shaped).weight
    assert isinstance(weight, torch.Tensor)
    assert (tuple(weight.shape), weight.device.type) == ((7, 5), "meta")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "nets:Untyped"}, r"n_in: is missing, and there is no default"),
        ({"name": "nets:Untyped", "n_in": 4, "widht": 2}, r"widht: is not a known key; did you mean 'width'"),
        ({"name": "nets:Untyped", "n_in": 4, "n_outputs": 2}, r"n_outputs: is not a known key"),
        ({"name": "nets:shaped", "bias": "no"}, r"bias: found 'no', should be a valid boolean"),
    ],
)
def test_options_of_a_foreign_class_are_checked(model: dict[str, Any], message: str, project: Write) -> None:
    project("nets.py", NETS)
    params = small_params()
    params["experiments"]["exp3"]["model"] = model
    with pytest.raises(ConfigError, match=rf"^params\.yaml: experiments\.exp3\.model\.{message}"):
        validate(params, Path("params.yaml"))


def test_networks_of_torchvision_and_losses_of_pytorch_by_their_place() -> None:
    model = read("models", name="torchvision.models:resnet18", num_classes=7)
    assert model.options == {"num_classes": 7}
    with torch.device("meta"):
        head = build(model).fc
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7
    loss = read("losses", name="torch.nn:CrossEntropyLoss", reduction="none", label_smoothing=0.5)
    outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    ours = catalog.find("losses", loss.name)(**loss.options)(outputs, targets)
    assert torch.equal(ours, nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.5))


def test_the_signature_of_a_foreign_function_is_that_of_a_member() -> None:
    parameters = inspect.signature(catalog.find("models", "torchvision.models:resnet18")).parameters.values()
    assert {each.kind for each in parameters} == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_the_schema_lets_a_place_be_written() -> None:
    jsonschema = importlib.import_module("jsonschema")
    params = small_params()
    params["experiments"]["exp3"]["model"] = {"name": "torchvision.models:resnet18", "num_classes": 10}
    jsonschema.validate(params, schema())
    params["experiments"]["exp3"]["model"] = {"name": "resnet18"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(params, schema())


SEES = """
def size(objective, snapshots):
    for at in snapshots:
        assert objective.value_and_grad(at.theta).grad.shape == at.theta.shape == at.state.shape
        yield {"step": at.step, "size": len(at.theta)}

def columns(**_options):
    return ["size"]
"""
OBSERVES = """
def length(here, following):
    return {"n_numbers": len(here.theta)}

def columns(**_options):
    return ["n_numbers"]
"""


@pytest.mark.parametrize(
    ("column", "other"), [("sharpness", "sharpness"), ("loss", "every run"), ("n_numbers", "length")]
)
def test_a_quantity_is_found_by_one_member(project: Write, column: str, other: str) -> None:
    write_project(Path())
    project("members/diagnostics/size.py", SEES.replace('"size"', f'"{column}"'))
    project("members/observations/length.py", OBSERVES)
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"] |= {"diagnose": {"size": {}}, "observe": {"length": {}}}
    write_params(Path(), params)
    with pytest.raises(ConfigError, match=f"exp3: size finds {column}, and so does {other}: give it another name"):
        load()


def test_members_of_others_see_the_parameters_of_the_network(project: Write) -> None:
    """In the row space of the inputs θ is another vector, and who knows what they do with it."""
    write_project(Path())
    project("members/diagnostics/size.py", SEES)
    project("members/observations/length.py", OBSERVES)
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"] |= {"optimizer": {"name": "momentum"}, "diagnose": {"size": {}}}
    params["experiments"]["observed"] = params["experiments"]["exp3"] | {"observe": {"length": {}}}
    params["diagnose"] = {}
    write_params(Path(), params)
    make_data(load())
    n_parameters = 3072 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
    for name, reduced in {"exp3_2over30": True, "observed_2over30": False}.items():
        train(load(), name, jobs=1)
        (table,) = diagnose(load(), name, jobs=1)[name].values()
        assert {*table["size"]} == {n_parameters}
        folder = train_folder(name.partition("_")[0], name)
        kept = load_snapshot(snapshot_paths(folder / "snapshots")[0])
        assert (len(kept.theta) < n_parameters) is reduced
    assert {*load_record(folder).trajectory["n_numbers"].dropna()} == {n_parameters}

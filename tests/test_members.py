"""What every member of every folder of the catalogue must be, whichever files lie there."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

import eosrepro.losses
import eosrepro.optimizers
from eosrepro import catalog
from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.config.members import _keys_of, _MemberKeys
from eosrepro.core.types import Row
from eosrepro.errors import ConfigError
from eosrepro.records import resuming
from eosrepro.records.places import train_folder
from eosrepro.records.runs import load_record
from eosrepro.stages import outdated
from tests.project import ROOT, small_params, write_params

MEMBERS = [(kind, name) for kind in catalog.KINDS for name in catalog.names(kind)]


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_a_member_is_a_documented_function_of_its_files_name(kind: str, name: str) -> None:
    member = catalog.find(kind, name)
    assert inspect.isfunction(member)
    assert member.__name__ == name.replace("-", "_")
    assert member.__module__ == f"eosrepro.{kind}.{member.__name__}"
    assert member.__doc__


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_options_are_keyword_only_annotated_and_every_other_parameter_is_given(kind: str, name: str) -> None:
    given = {"models": 2, "diagnostics": 2, "figures": None}.get(kind, 0)  # figures take what they name
    parameters = inspect.signature(catalog.find(kind, name)).parameters.values()
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in positional)
    assert given is None or len(positional) == given
    assert all(p.annotation is not p.empty for p in parameters)


def test_every_kind_has_members() -> None:
    assert {kind for kind, _ in MEMBERS} == set(catalog.KINDS)


@pytest.mark.parametrize(
    ("kind", "name", "near"), [("models", "mpl", "mlp"), ("data", "photo_patches", "photo-patches"), ("losses", "", "")]
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(kind: str, name: str, near: str) -> None:
    with pytest.raises(LookupError) as caught:
        catalog.find(kind, name)
    assert f"did you mean {near!r}" in str(caught.value) or not near
    assert all(known in str(caught.value) for known in catalog.names(kind))


@pytest.mark.parametrize("name", ["_common", "__init__", "mlp.py", "../training", "losses.mse"])
def test_a_name_that_is_no_member_reaches_no_file(name: str) -> None:
    for kind in catalog.KINDS:
        with pytest.raises(LookupError):
            catalog.find(kind, name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def another(): ...", r"eosrepro/losses/slip\.py defines no function slip"),
        ("slip = 3", r"eosrepro/losses/slip\.py defines no function slip"),
        ("def slip(*, power=2): ...", r"eosrepro\.losses\.slip: the parameter power of slip has no type"),
        ("def slip(*, power: 'Exponent' = 2): ...", r"parameter power of slip has the type Exponent: name 'Exponent'"),
    ],
)
def test_a_slip_in_a_new_member_is_named(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slip.py").write_text(source)
    monkeypatch.setattr(eosrepro.losses, "__path__", [*eosrepro.losses.__path__, str(tmp_path)])
    try:
        with pytest.raises(ConfigError, match=message):
            _keys_of(catalog.find("losses", "slip"), "slip", _MemberKeys)
    finally:
        sys.modules.pop("eosrepro.losses.slip", None)


HALF = """
from eosrepro.core.types import Geometry, Optimizer

def half(*, step_size: float) -> Optimizer:
    geometry = lambda state, grad: Geometry(4 / step_size)
    return Optimizer(lambda theta: None, lambda at, state: (step_size * at.grad / 2, state), geometry, "4/η")
"""


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an optimizer of another package, by which the toy of the small project in the working folder runs."""
    file = tmp_path / "elsewhere" / "half.py"
    file.parent.mkdir()
    file.write_text(HALF)
    monkeypatch.setattr(eosrepro.optimizers, "__path__", [*eosrepro.optimizers.__path__, str(file.parent)])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    params = small_params()
    params["toys"]["example1_2over39"]["optimizer"] = {"name": "half"}
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    write_params(tmp_path, params)
    resuming._sources.cache_clear()
    yield file
    resuming._sources.cache_clear()
    sys.modules.pop("eosrepro.optimizers.half", None)


def test_a_member_of_another_package_trains_and_is_known_by_its_own_file(half: Path) -> None:
    assert CliRunner().invoke(main, ["config", "check"]).exit_code == 0
    for command in ("train", "diagnose"):
        done = CliRunner().invoke(main, [command, "example1_2over39"])
        assert done.exit_code == 0, done.output
    loaded = load()
    record = load_record(train_folder("toys/example1", "example1_2over39"))
    # f = 20θ₁² + θ₂²: with half of η = 2/39, θ₁ is multiplied by 1 − 40/39 in each step.
    first = record.trajectory["loss"][0] - 0.1**2
    assert record.trajectory["loss"][1] == pytest.approx(first / 39**2 + 0.1**2 * (1 - 2 / 39) ** 2, rel=1e-12)
    assert outdated.outdated(loaded, record) == ""

    half.write_text(HALF + "# edited")
    assert outdated.outdated(loaded, record) == "trained by other code than today's"


def test_an_edit_of_a_member_of_another_package_starts_afresh(half: Path) -> None:
    before = resuming._sources()
    resuming._sources.cache_clear()
    assert resuming._sources() == before
    half.write_text(HALF + "# edited")
    resuming._sources.cache_clear()
    assert resuming._sources() != before


def test_where_dvc_would_not_see_a_member_its_first_stage_says_so(half: Path) -> None:
    check = ["config", "check", "--stamp", "stages/valid"]
    done = CliRunner().invoke(main, check)
    assert done.exit_code == 2
    assert f"Error: half of params.yaml lies in {half}, where DVC would not see it change" in done.stderr
    assert "put a copy at eosrepro/optimizers/half.py" in done.stderr
    assert not Path("stages/valid").exists()

    Path("eosrepro/optimizers").mkdir(parents=True)
    shutil.copy(half, "eosrepro/optimizers")
    assert CliRunner().invoke(main, check).exit_code == 0
    assert Path("stages/valid").exists()


def test_no_two_diagnostics_measure_a_quantity_of_the_same_name() -> None:
    """A claim names a quantity and not its diagnostic; those of the sharpness depend on its options."""
    own = [quantity for diagnostic in catalog.names("diagnostics") for quantity in catalog.quantities(diagnostic)]
    assert sorted(own) == sorted(set(own))
    taken = {field.name for field in fields(Row)} | {"sharpness", "residual", "products"}
    assert not [quantity for quantity in own if quantity in taken or re.match(r"eigenvalue_\d|audit_", quantity)]

"""What every member of every folder of the catalogue must be, whichever files lie there."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from eosrepro import catalog
from eosrepro.config.members import _keys_of, _MemberKeys
from eosrepro.core.types import Row
from eosrepro.errors import ConfigError

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
    given = {"models": 2, "optimizers": 1, "observations": 2, "diagnostics": 2, "figures": None}.get(
        kind, 0
    )  # figures take what they name
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
        ("def another(): ...", r"members/losses/slip\.py defines no function slip"),
        ("slip = 3", r"members/losses/slip\.py defines no function slip"),
        ("def slip(*, power=2): ...", r"members\.losses\.slip: the parameter power of slip has no type"),
        ("def slip(*, power: 'Exponent' = 2): ...", r"parameter power of slip has the type Exponent: name 'Exponent'"),
    ],
)
def test_a_slip_in_a_new_member_is_named(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "members/losses/slip.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    with pytest.raises(ConfigError, match=message):
        _keys_of(catalog.find("losses", "slip"), "slip", _MemberKeys)


def test_no_two_members_find_a_quantity_of_the_same_name() -> None:
    """A figure or a claim names a quantity, and not who finds it."""
    kinds = ("diagnostics", "observations")
    found = [each for kind in kinds for name in catalog.names(kind) for each in catalog.quantities(name, kind=kind)]
    found += [field.name for field in fields(Row)]
    assert sorted(found) == sorted(set(found))

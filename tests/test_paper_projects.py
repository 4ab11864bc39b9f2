"""Every paper is a project that is valid with its claims, whatever its profile."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml

from eosrepro.config.load import validate
from eosrepro.tools.new import papers
from tests.project import ROOT


def params_of(paper: str) -> Path:
    own = ROOT / "papers" / paper / "params.yaml"
    return own if own.exists() else ROOT / "params.yaml"


@pytest.mark.parametrize("paper", papers())
def test_it_is_valid_in_each_of_its_profiles_and_says_something_of_every_experiment(
    paper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # as it is below the project, so are its claims
    params = load_yaml(params_of(paper))
    assert params["paper"] == f"papers/{paper}"
    assert params["profile"] == "quick", "a new project runs without a download"
    for profile in params["profiles"]:
        config = validate({**params, "profile": profile}, params_of(paper))
        claimed = {config.run(claim.run).experiment for claim in config.claims.values()}
        assert claimed == {*config.experiments}, profile
        assert not config.left_out, profile
        assert config.drawn, profile


@pytest.mark.parametrize("paper", papers())
def test_it_says_where_its_settings_are_from(paper: str) -> None:
    assert len((ROOT / "papers" / paper / "README.md").read_text("utf-8")) > 500


@pytest.mark.parametrize("paper", papers())
def test_no_two_experiments_share_a_mapping(paper: str) -> None:
    """What `-S` changes in one would change in the other, or be lost."""
    experiments = load_yaml(params_of(paper))["experiments"].values()
    mappings = [id(value) for of in experiments for value in of.values() if isinstance(value, dict)]
    assert len(set(mappings)) == len(mappings)


@pytest.mark.parametrize("paper", papers())
def test_what_needs_git_is_said_to(paper: str) -> None:
    """`eosrepro new` may write the file where there is none."""
    text = params_of(paper).read_text("utf-8")
    assert ("dvc exp run" in text) == ("`dvc exp` needs a git repository" in text)

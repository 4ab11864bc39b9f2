"""Thousands of generated params.yaml and claims.yaml: refused in words, or accepted and meant exactly as written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from eosrepro.config.claims import claims
from eosrepro.config.load import load, validate
from eosrepro.config.params import PARAMS
from eosrepro.errors import ConfigError
from tests.generated import configurations, meant, objections, objections_to_claims, tables
from tests.project import RUNS, SMALL

SEEDS = range(5)  # of 1,000 each
QUIET: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
LINE = re.compile(r"(params\.yaml|([A-Za-z0-9_]+/)+claims\.yaml)(:|,| )")  # of a message
FILES = ("params.yaml", "papers/small/claims.yaml")
RUNS_OF = {name: [*filter(meant(name, RUNS).__contains__, RUNS)] for name in ("exp2", "exp3", "exp8", "example1")}


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work in a copy of the small project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shutil.copytree(SMALL, tmp_path_factory.mktemp("project"), dirs_exist_ok=True))
        yield


def refusal(of: Callable[[], Any]) -> bool:
    """Whether it is refused, each line of the message under the name of a file; any other error fails."""
    try:
        of()
    except ConfigError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(map(LINE.match, lines)), lines
        return True
    return False


def check(content: dict[str, Any]) -> bool:
    """Whether a params.yaml is accepted; fails where that is wrong, or where it ends in anything but a message."""
    if refusal(lambda: validate(content, PARAMS)):
        return False
    accepted = validate(content, PARAMS)
    assert objections(content, accepted) == []
    for name, run in accepted.runs.items():
        assert run.settings["name"] == name
        accepted.quantities(name)
    assert accepted.drawn.keys() == accepted.figures.keys()
    assert not set(accepted.left_out) & set(accepted.runs)
    return True


def check_claims(content: dict[str, Any]) -> bool:
    """The same of a claims.yaml."""
    file = Path("papers/small/claims.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eosrepro.config.claims.read", lambda _path, _keys, **_words: content)
        if refusal(lambda: claims(file, RUNS_OF)):
            return False
        assert [*objections_to_claims(content, claims(file, RUNS_OF), RUNS)] == []
    return True


BOTH = pytest.mark.parametrize(("made", "judge"), [(configurations(), check), (tables(), check_claims)])


def verdicts(made: st.SearchStrategy[Any], judge: Callable[[Any], bool], number: int, **options: Any) -> list[bool]:
    found: list[bool] = []

    @seed(number)
    @settings(**options, **QUIET)
    @given(content=made)
    def collect(content: Any) -> None:
        found.append(judge(content))

    collect()
    return found


@BOTH
def test_nothing_generated_is_wrongly_accepted(made: st.SearchStrategy[Any], judge: Callable[[Any], bool]) -> None:
    assert {True, False} == set(verdicts(made, judge, 0, max_examples=200))


@pytest.mark.slow
@pytest.mark.very_slow
@BOTH
@pytest.mark.parametrize("number", SEEDS)
def test_a_thousand_generated_are_judged_rightly(
    made: st.SearchStrategy[Any], judge: Callable[[Any], bool], number: int
) -> None:
    found = verdicts(made, judge, number, max_examples=1000)
    assert len(found) >= 1000
    # Both kinds are there: a judge who refuses everything would pass too.
    assert 50 < sum(found) < 700


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, bytes]:
    """One of the files with a few bytes cut out, put in or moved."""
    file = draw(st.sampled_from(FILES))
    content = (SMALL / file).read_bytes()
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(content))), draw(st.integers(0, 8))
        piece = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"&a ", b"*a", b"<<: ", b"!!str ", b"\n  ", b": ", b"- ", b"{", b"\t"])
        )
        content = content[:start] + piece + content[start + length :]
    return file, content


def judge_text(garbled: tuple[str, bytes]) -> None:
    for file in FILES:
        shutil.copy(SMALL / file, file)
    Path(garbled[0]).write_bytes(garbled[1])
    refusal(load)


@settings(max_examples=40, derandomize=True, **QUIET)
@given(garbled=texts())
def test_a_garbled_file_ends_in_a_message(garbled: tuple[str, bytes]) -> None:
    judge_text(garbled)


@pytest.mark.slow
@pytest.mark.very_slow
@seed(0)
@settings(max_examples=1000, **QUIET)
@given(garbled=texts())
def test_a_thousand_garbled_files_end_in_a_message(garbled: tuple[str, bytes]) -> None:
    judge_text(garbled)

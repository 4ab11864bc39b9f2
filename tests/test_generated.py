"""Thousands of generated params.yaml: each is refused in words, or is accepted and meant exactly what was written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from eosrepro.config.load import load, validate
from eosrepro.errors import ConfigError
from tests.generated import configurations, objections
from tests.project import ROOT, small_params, write_params

SEEDS = range(5)  # of 1,000 configurations each
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the published curves."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "reference").symlink_to(ROOT / "reference")
    return folder


def small_text() -> bytes:
    with TemporaryDirectory() as folder:
        write_params(Path(folder), small_params())
        return (Path(folder) / "params.yaml").read_bytes()


TEXT = small_text()


def check(content: object) -> bool:
    """Whether it is accepted; fails where that is wrong, or where it ends in anything but a message."""
    try:
        accepted = validate(content, Path("params.yaml"), reference=ROOT / "reference")  # type: ignore[arg-type]
    except ConfigError as refusal:
        lines = str(refusal).splitlines()
        assert lines
        assert all(line.startswith("params.yaml: ") for line in lines), lines
        return False
    assert isinstance(content, dict)
    wrong = objections(content, accepted)
    assert not wrong, wrong
    for name in accepted.runs:
        accepted.resolved(name)
        accepted.quantities(name)
    return True


@settings(max_examples=300, derandomize=True, **QUIET)  # type: ignore[arg-type]
@given(content=configurations())
def test_no_generated_configuration_is_wrongly_accepted(content: object) -> None:
    check(content)


@pytest.mark.slow
@pytest.mark.parametrize("number", SEEDS)
def test_thousand_generated_configurations_are_judged_rightly(number: int) -> None:
    verdicts: list[bool] = []

    @seed(number)
    @settings(max_examples=1000, **QUIET)  # type: ignore[arg-type]
    @given(content=configurations())
    def judge(content: object) -> None:
        verdicts.append(check(content))

    judge()
    assert len(verdicts) >= 1000
    # Both kinds are there: a judge who refuses everything would pass too.
    assert 50 < sum(verdicts) < 700


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A params.yaml with a few bytes cut out, put in or moved."""
    content = TEXT
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(content))), draw(st.integers(0, 8))
        piece = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"&a ", b"*a", b"<<: ", b"!!str ", b"\n  ", b": ", b"- ", b"{", b"\t"])
        )
        content = content[:start] + piece + content[start + length :]
    return content


def judge_text(folder: Path, content: bytes) -> None:
    path = folder / "params.yaml"
    path.write_bytes(content)
    try:
        load(path)
    except ConfigError as refusal:
        said = str(refusal).splitlines()
    else:
        said = []
    assert [line for line in said if not line.startswith(str(path))] == []


@settings(max_examples=40, derandomize=True, **QUIET)  # type: ignore[arg-type]
@given(content=texts())
def test_a_garbled_file_ends_in_a_message(content: bytes, project: Path) -> None:
    judge_text(project, content)


@pytest.mark.slow
@seed(0)
@settings(max_examples=1000, **QUIET)  # type: ignore[arg-type]
@given(content=texts())
def test_a_thousand_garbled_files_end_in_a_message(content: bytes, project: Path) -> None:
    judge_text(project, content)

"""claims.yaml: statements and tables of runs, as one claim a run; what is refused, and in which words."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eosrepro.config.claims import claims, left_out
from eosrepro.config.load import load, validate
from eosrepro.config.statements import Bound, Claim, Window
from eosrepro.errors import ConfigError
from tests.project import SMALL, small_params, write_params

RUNS = {"exp2": ["exp2_a_1", "exp2_a_2", "exp2_b_1"], "exp3": ["exp3_2over30"], "exp8": ["exp8"]}
MEAN: dict[str, Any] = {"claim": "RP oscillates near 0", "quantity": "relative_progress", "statistic": "mean"}


def tables(folder: Path, statement: Any = None, **block: Any) -> dict[str, Claim]:
    """What one block says with the statement `mean`; None leaves a key out."""
    block = {"source": "Exp 3", "of": "exp3", "mean": 0.5, **block}
    statements = {"mean": MEAN | ({"bound": [0, 1]} if statement is None else statement)}
    kept = {key: value for key, value in block.items() if value != "left out"}
    return written(folder, {"statements": statements, "claims": [kept]})


def written(folder: Path, content: dict[str, Any]) -> dict[str, Claim]:
    write_params(folder, content, "claims.yaml")
    return claims(folder / "claims.yaml", RUNS)


def refused(folder: Path, *arguments: Any, **block: Any) -> list[str]:
    """The lines of the message, without the file."""
    with pytest.raises(ConfigError) as caught:
        tables(folder, *arguments, **block)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder}/claims.yaml: ") for line in lines)
    return [line.removeprefix(f"{folder}/claims.yaml: ") for line in lines]


# --- read -------------------------------------------------------------------------------------------------------------


def test_a_claim_is_the_statement_about_the_run(tmp_path: Path) -> None:
    found = tables(tmp_path, {"bound": [None, 0.1], "window": {"from": "onset"}, "relative_to": "threshold"})
    assert found == {
        "exp3_2over30_mean": Claim(
            **MEAN,
            source="Exp 3",
            statement="mean",
            run="exp3_2over30",
            window=Window.model_validate({"from": "onset"}),
            relative_to="threshold",
            bound=Bound(max=0.1),
            published=0.5,
        )
    }


@pytest.mark.parametrize(("statement", "entry"), [({"needs": "published"}, 0.5), ({}, {"needs": "published"})])
def test_what_only_the_papers_data_can_tell_is_said_of_a_statement_or_of_a_run(
    statement: dict[str, Any], entry: Any, tmp_path: Path
) -> None:
    (found,) = tables(tmp_path, {"bound": [0, 1], **statement}, mean=entry).values()
    assert found.needs == "published"
    (other,) = tables(tmp_path).values()
    assert other.needs is None


def test_a_run_beside_is_one_that_is_declared(tmp_path: Path) -> None:
    both = {"statistic": "ratio", "against": "loss", "bound": [0, 1]}
    (found,) = tables(tmp_path, MEAN | both | {"beside": "exp2_a_1"}).values()
    assert (found.run, found.beside) == ("exp3_2over30", "exp2_a_1")
    assert not tables(tmp_path, MEAN | both | {"beside": "exp2_a_3"})  # a value that does not vary now
    assert refused(tmp_path, MEAN | both | {"beside": "exp4"}) == [
        "statements.mean.beside: there is no run 'exp4'; did you mean 'exp8'? "
        "(there are: exp2_a_1, exp2_a_2, exp2_b_1, exp3_2over30, exp8)"
    ]


@pytest.mark.parametrize(
    ("of", "runs"),
    [
        ("exp2", ["exp2_a_1", "exp2_a_2", "exp2_b_1"]),
        ("exp2_a", ["exp2_a_1", "exp2_a_2"]),
        ("exp2_a_2", ["exp2_a_2"]),
        (["exp3", "exp2_a"], ["exp3_2over30", "exp2_a_1", "exp2_a_2"]),
    ],
)
def test_runs_are_meant_by_experiment_by_name_or_by_the_first_part_of_it(
    of: Any, runs: list[str], tmp_path: Path
) -> None:
    assert [claim.run for claim in tables(tmp_path, of=of).values()] == runs


@pytest.mark.parametrize(
    ("entry", "published"),
    [
        ([1, 0.5], [1, 1, 0.5]),  # an entry for each name in `of`, whatever runs it stands for
        ([None, {"published": 2}], [None, None, 2]),
        ([{"bound": [0, 3]}, {"published": 2}], [None, None, 2]),
        (7, [7, 7, 7]),
        (None, [None, None, None]),
    ],
)
def test_a_number_a_name_or_one_for_all(entry: Any, published: list[float | None], tmp_path: Path) -> None:
    assert [claim.published for claim in tables(tmp_path, of=["exp2_a", "exp3"], mean=entry).values()] == published


def test_claims_about_other_values_than_an_experiment_has_are_left_out(tmp_path: Path) -> None:
    found = tables(tmp_path, of=["exp3_2over10", "exp3_2over30", "exp2_c"], mean=[1, 2, 3])
    assert {key: claim.published for key, claim in found.items()} == {"exp3_2over30_mean": 2}
    assert left_out(tmp_path / "claims.yaml", RUNS) == ["exp2_c", "exp3_2over10"]
    (line,) = refused(tmp_path, of=["exp3_2over10", "exp3_2over30"], mean=["one", 2])
    assert line == "claims.0.mean.0: found 'one', should be a valid number"  # they are read all the same


@pytest.mark.parametrize(
    ("statement", "entry", "bound"),
    [
        ({"bound": [0, 1]}, 0.5, (0, 1, None)),
        ({"bound": [None, 1]}, {"published": 0.5}, (None, 1, None)),
        ({"bound": [0, 1]}, {"bound": [2, None]}, (2, None, None)),  # what is said of the run counts
        ({"bound": [0, 1]}, {"published": 10, "within": "20 %"}, (8, 12, "published")),
        ({"within": "20 %"}, 10, (8, 12, "published")),
        ({"within": "2.5%"}, -10, (-10.25, -9.75, "published")),
        ({"within": "20 %"}, {"published": 10, "within": "50 %"}, (5, 15, "published")),
        ({"within": "20 %"}, {"published": 10, "bound": [9, 9.5]}, (9, 9.5, None)),
        ({"within": "0 %"}, 3, (3, 3, "published")),
        ({"within": "20 %"}, 0.3, (0.24, 0.36, "published")),  # no 0.36000000000000004
        ({}, {"bound": [1, 1]}, (1, 1, None)),
    ],
)
def test_bound_or_distance_of_the_statement_or_of_the_run(
    statement: dict[str, Any], entry: Any, bound: tuple[Any, ...], tmp_path: Path
) -> None:
    (claim,) = tables(tmp_path, statement, mean=entry).values()
    assert (claim.bound.min, claim.bound.max, claim.needs) == bound


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"of": "exp4"}, "claims.0.of: there is no experiment and no run 'exp4'; did you mean 'exp8'? (there are: exp2, "),
        ({"of": ["exp2", "exp32over30"]}, "claims.0.of: there is no experiment and no run 'exp32over30'; did you mean 'exp3_2over30'"),
        ({"of": 3}, "claims.0.of: found 3, should be a valid list"),
        ({"of": [3]}, "claims.0.of.0: found 3, should be a valid string"),
        ({"of": []}, "claims.0.of: found a list of 0, should have at least 1 item"),
        ({"of": "left out"}, "claims.0.of: is missing"),
        ({"source": "left out"}, "claims.0.source: is missing"),
        ({"source": 3}, "claims.0.source: found 3, should be a valid string"),
        ({"mean": "left out"}, "claims.0: says nothing: it should hold a statement"),
        ({"maen": 1}, "claims.0.maen: there is no statement 'maen'; did you mean 'mean'? (there are: mean)"),
        ({"mean": [1, 2]}, "claims.0.mean: holds 2 entries, and `of` 1 names (exp3)"),
        ({"of": ["exp2_a", "exp3"], "mean": [1]}, "claims.0.mean: holds 1 entries, and `of` 2 names (exp2_a, exp3)"),
        ({"mean": []}, "claims.0.mean: holds 0 entries, and `of` 1 names"),
        ({"of": ["exp2_a", "exp2_a_1"]}, "claims.0.mean: is said of exp2_a_1 twice"),
        ({"mean": "about 0"}, "claims.0.mean: found 'about 0', should be a valid number"),
        ({"mean": True}, "claims.0.mean: found True, should be a valid number"),
        ({"mean": [[1]]}, "claims.0.mean.0: found a list of 1, should be a valid number"),
        ({"of": ["exp2_a", "exp3"], "mean": [1, "many"]}, "claims.0.mean.1: found 'many', should be a valid number"),
        ({"mean": {"publised": 1}}, "claims.0.mean.publised: is not a known key; did you mean 'published'"),
        ({"mean": {"bound": [0, 1], "within": "20 %", "published": 1}}, "claims.0.mean: holds both bound and within: which of them decides?"),
        ({"mean": {"bound": [0, 1], "within": "0 %", "published": 1}}, "claims.0.mean: holds both bound and within"),
        ({"mean": {"within": "20 %"}}, "claims.0.mean: holds no number of the paper, and is to be within 20% of it"),
        ({"mean": {"published": 1, "within": 0.2}}, "claims.0.mean.within: found 0.2, should be a share such as 20 %"),
        ({"mean": {"bound": 1}}, "claims.0.mean.bound: found 1, should be [lowest, highest], with ~ for an end that is open"),
        ({"mean": {"bound": [1]}}, "claims.0.mean.bound: found a list of 1, should be [lowest, highest]"),
        ({"mean": {"bound": [None, None]}}, "claims.0.mean.bound: should hold min, max or both"),
        ({"mean": {"bound": [1, 0]}}, "claims.0.mean.bound: holds for nothing: min 1 is above max 0"),
        ({"mean": {"bound": [0, "many"]}}, "claims.0.mean.bound.max: found 'many', should be a valid number"),
        ({"mean": 10**20}, "claims.0.mean: found 100000000000000000000, should be at most 9223372036854775807"),
    ],
)  # fmt: skip
def test_a_block_that_is_refused(block: dict[str, Any], said: str, tmp_path: Path) -> None:
    (line,) = refused(tmp_path, **block)
    assert line.startswith(said)


def test_claims_about_experiments_that_are_gone_end_with_what_to_do(tmp_path: Path) -> None:
    block = {"source": "Exp 9", "of": "exp9", "mean": 0.5}
    content = {"statements": {"mean": MEAN | {"bound": [0, 1]}}, "claims": [block, block]}
    with pytest.raises(ConfigError) as refusal:
        written(tmp_path, content)
    *gone, last = str(refusal.value).splitlines()
    assert len(gone) == 2
    assert "claims: take out those about experiments that are gone" in last


TWO = {"statistic": "ratio", "against": "loss"}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ({"bound": [0, 1], "within": "20 %"}, ": holds both bound and within: which of them decides?"),
        ({"bound": [0, 1], "source": "Exp 3"}, ".source: is not a known key"),
        ({"within": "a fifth"}, ".within: found 'a fifth', should be a share such as 20 %"),
        ({"claim": ""}, ".claim: found '', should have at least 1 character"),
        ({"statistic": "meen"}, ".statistic: found 'meen', should be"),
        ({"relative_to": "treshold"}, ".relative_to: found 'treshold', should be 'threshold'; did you mean 'threshold'"),
        ({"window": {"from": "onset", "last": 0.5}}, ".window: should hold either from and/or to, or last"),
        ({"window": {}}, ".window: should hold either from and/or to, or last"),
        ({"window": {"from": "onzet"}}, ".window.from: found 'onzet', should be a step number, onset or end"),
        ({"window": {"to": -1}}, ".window.to: found -1, should be a step number"),
        ({"window": {"from": 750, "to": 250}}, ".window: holds no step: from 750 is after to 250"),
        ({"window": {"last": 2}}, ".window.last: found 2, should be less than or equal to 1"),
        ({"statistic": "onset", "window": {"last": 0.5}}, ": holds a window, and onset is of the whole run"),
        ({"statistic": "run_length", "relative_to": "threshold"}, ": holds relative_to, and run_length has no unit"),
        ({"level": 1}, ": holds a level, which is for first_above, first_outside and ratio, not for mean"),
        ({**TWO, "statistic": "correlation", "level": 1}, ": holds a level, which is for"),
        ({"statistic": "ratio"}, ": holds no `against`, which is for correlation, largest_difference, ratio"),
        ({"against": "loss"}, ": holds `against`, which is for correlation, largest_difference, ratio"),
        ({**TWO, "relative_to": "threshold"}, ": holds relative_to, and ratio has no unit"),
        ({"statistic": "first_above"}, ": holds neither level nor relative_to: threshold, and first_above needs one of them"),
        ({"statistic": "first_outside"}, ": holds no level, and first_outside needs one"),
    ],
)  # fmt: skip
def test_a_statement_that_is_refused(statement: dict[str, Any], said: str, tmp_path: Path) -> None:
    (line,) = refused(tmp_path, statement)
    assert line.startswith(f"statements.mean{said}")


@pytest.mark.parametrize("mean", [1, None, {"published": 3}])
def test_a_claim_that_nothing_decides(mean: Any, tmp_path: Path) -> None:
    assert refused(tmp_path, {}, mean=mean) == [
        "claims.0.mean: neither the statement nor this says `bound` or `within`"
    ]


def test_a_distance_needs_a_number_of_each_run(tmp_path: Path) -> None:
    assert refused(tmp_path, {"within": "20 %"}, of=["exp2", "exp3", "exp8"], mean=[None, 1, None]) == [
        f"claims.0.mean.{i}: holds no number of the paper, and is to be within 20% of it" for i in (0, 2)
    ]


def test_every_finding_has_a_line(tmp_path: Path) -> None:
    content = {
        "statements": {"mean": MEAN},
        "claims": [
            {"source": "a", "of": "exp3", "mean": {"bound": [2, 1], "within": 3}, "least": 3},
            {"source": "b", "of": "nothing", "mean": 3},
            {"source": "c", "of": "exp3", "mean": {"bound": [1, 2]}},
            {"source": "d", "of": "exp3", "mean": {"bound": [1, 2]}},
        ],
    }
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, content)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "claims.0.mean.bound",
        "claims.0.mean.within",
        "claims.0.least",
        "claims.1.of",
        "claims.3.mean",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "claims.yaml does not exist"),
        ("", "claims.yaml is empty: it should hold statements, claims"),
        ("[1]", "claims.yaml holds a list of 1: it should be a mapping of statements, claims"),
        ("claims: [", "claims.yaml, line 1, column 10: not valid YAML"),
        ("statements: {}\nclaims: []", "claims: found a list of 0, should have at least 1 item"),
        ("statements: {}\nclaims: [3]", "claims.0: found 3, should be a mapping"),
        ("statements: {}\nclaims: {}", "claims: found a mapping of 0, should be a valid list"),
        (
            "statements: [a]\nclaims: [{source: a, of: exp3, b: 1}]",
            "statements: found a list of 1, should be a mapping",
        ),
        ("statements: {}\nclaim: []", "claims: is missing"),
        ("statements: {}\nclaims: [{source: a, of: exp3, 3: 1}]", "claims.0.3: found 3, should be strings"),
    ],
)
def test_a_file_that_is_no_table(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "claims.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        claims(tmp_path / "claims.yaml", RUNS)
    assert said in str(caught.value)


# --- with the runs of params.yaml -------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paper of the small project in the working folder, whose statement `mean` is of exp3_2over30."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers/small").mkdir(parents=True)
    return tmp_path / "papers/small"


def of_params(folder: Path, of: str = "exp3_2over30", **statement: Any) -> list[str]:
    statements = {"mean": MEAN | {"bound": [0, 1]} | statement}
    write_params(folder, {"statements": statements, "claims": [{"source": "a", "of": of, "mean": 1}]}, "claims.yaml")
    with pytest.raises(ConfigError) as caught:
        validate(small_params(), Path("params.yaml"))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("of", "statement", "said"),
    [
        ("exp3_2over30", {"quantity": "relativ_progress"}, "quantity: exp3_2over30 has no 'relativ_progress'; did you mean 'relative_progress'"),
        ("exp3_2over30", {"quantity": "theta_1"}, "quantity: exp3_2over30 has no 'theta_1'"),
        ("exp3_2over30", {"quantity": "eigenvalue_2"}, "quantity: exp3_2over30 has no 'eigenvalue_2'"),
        ("exp3_2over30", {"quantity": "expected_relative_progress"}, "quantity: exp3_2over30 has no 'expected_relative_progress'"),
        ("example1", {"quantity": "accuracy"}, "quantity: example1_2over39 has no 'accuracy'"),
        ("exp3_2over30", TWO | {"against": "los"}, "against: exp3_2over30 has no 'los'; did you mean 'loss'"),
        ("exp3_2over30", {"claim": "At η = 2/30 it diverges"}, "claim: 'At η = 2/30 it diverges' spells a step size"),
    ],
)  # fmt: skip
def test_a_statement_is_about_what_its_runs_have(of: str, statement: dict[str, Any], said: str, small: Path) -> None:
    (line,) = of_params(small, of, **statement)
    assert line.startswith(f"papers/small/claims.yaml: statements.mean.{said}")


def test_what_is_wrong_for_two_runs_is_said_of_each(small: Path) -> None:
    assert len(of_params(small, "exp3", quantity="directional_smoothness_std")) == 1  # one of them has it
    assert len(of_params(small, "exp3", quantity="theta_1")) == 2
    assert len(of_params(small, "exp3", claim="At η = 2/30")) == 1


@pytest.mark.usefixtures("small")
def test_mistakes_of_params_yaml_come_first() -> None:
    params = small_params()
    params["figures"]["exp3"]["of"] = "exp4"
    with pytest.raises(ConfigError, match=r"^params\.yaml: figures\.exp3\.of: there is no experiment 'exp4'[^\n]*$"):
        validate(params, Path("params.yaml"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("paper", [None, "papers/small"])
def test_a_project_without_a_paper_or_with_an_empty_one_has_no_claims(paper: str | None) -> None:
    params = small_params() | {"paper": paper}
    assert validate(params, Path("params.yaml")).claims == {}


@pytest.mark.usefixtures("small")
def test_the_folder_of_a_paper_is_there() -> None:
    with pytest.raises(ConfigError, match=r"^papers/smal/claims\.yaml does not exist"):
        validate(small_params() | {"paper": "papers/smal"}, Path("params.yaml"))


def test_the_claims_of_the_small_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SMALL)
    found = load().claims
    assert len(found) == 10
    assert found["exp3_2over30_loss_final"].bound == Bound(min=0.1155, max=0.3465)

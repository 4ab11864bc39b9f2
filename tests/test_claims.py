"""Verdicts: what holds, what fails, and what a run cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eosrepro.config.statements import Claim
from eosrepro.errors import ConfigError
from eosrepro.records.files import save_json
from eosrepro.records.runs import Record
from eosrepro.verdicts.claims import Verdict, as_json, check, counts
from eosrepro.views.markdown import claims_page
from tests.records import record, unstable


def claim(**changes: Any) -> Claim:
    declared = {
        "claim": "Relative progress oscillates near 0 after onset",
        "statement": "rp_mean",
        "source": "Exp 3",
        "run": "exp3_2over30",
        "quantity": "relative_progress",
        "statistic": "mean",
        "window": {"from": "onset", "to": "end"},
        "bound": {"min": -0.1, "max": 0.1},
        "published": -0.026,
    }
    kept = {key: value for key, value in {**declared, **changes}.items() if value is not None}
    return Claim.model_validate(kept)


def judge(run: Record, *, at_paper_scale: bool = False, cut_off: bool = False, **changes: Any) -> Verdict:
    return check("key", claim(**changes), run, at_paper_scale=at_paper_scale, cut_off=cut_off)


CALM = record({"relative_progress": [-1.0] * 6, "loss": [2.0, 1.9, 1.8, 1.7, 1.6, 1.5]}, reason="max_steps")


def test_the_paper_bears_its_own_claim_out() -> None:
    verdict = judge(unstable(30), at_paper_scale=True)
    assert verdict.verdict == "holds"
    assert verdict.measured == pytest.approx(-0.027, abs=5e-4)
    assert verdict.difference == pytest.approx(
        (verdict.measured + 0.026) / 0.026
    )  # negative: it is below the published
    assert verdict.difference < 0
    assert (verdict.id, verdict.low, verdict.high, verdict.published) == ("key", -0.1, 0.1, -0.026)
    assert "steps 55 to" in verdict.reason


@pytest.mark.parametrize("at_paper_scale", [True, False])
@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ({"min": 1.5}, "holds"),  # both ends belong to the bound
        ({"max": 1.5}, "holds"),
        ({"min": 1.51}, "fails"),
        ({"max": 1.49}, "fails"),
        ({"min": 1.0, "max": 2.0}, "holds"),
    ],
)
def test_a_number_outside_its_bound_fails_at_every_scale(
    bound: dict[str, float], expected: str, at_paper_scale: bool
) -> None:
    changes = {"quantity": "loss", "statistic": "final", "window": None, "bound": bound, "published": None}
    verdict = judge(CALM, at_paper_scale=at_paper_scale, **changes)
    assert verdict.verdict == expected
    assert verdict.measured == 1.5
    assert verdict.difference is None


@pytest.mark.parametrize(
    "changes",
    [
        {},  # no onset
        {"statistic": "onset", "window": None},
        {"window": {"from": 250, "to": 750}},
        {"quantity": "loss", "statistic": "first_above", "level": 4.0, "window": None},
        {"quantity": "step", "statistic": "run_length", "window": None},
    ],
)
def test_what_the_run_does_not_define_fails_only_at_the_papers_scale(changes: dict[str, Any]) -> None:
    small, full = (judge(CALM, at_paper_scale=scale, **changes) for scale in (False, True))
    assert (small.verdict, full.verdict) == ("not applicable", "fails")
    assert small.measured is full.measured is None
    assert small.reason == full.reason != ""


def test_a_run_cut_off_early_has_not_shown_that_it_does_not_diverge() -> None:
    changes = {"quantity": "step", "statistic": "diverged", "window": None, "bound": {"min": 1}, "published": None}
    diverged = record({"loss": [2.0, 5.0]}, reason="diverged")
    finished = record({"loss": [2.0, 0.1]}, reason="accuracy")
    assert judge(CALM, cut_off=True, **changes).verdict == "not applicable"
    assert judge(CALM, **changes).verdict == judge(CALM, at_paper_scale=True, **changes).verdict == "fails"
    assert judge(CALM, **changes | {"bound": {"max": 0}}).verdict == "holds"
    assert judge(finished, **changes).verdict == "fails"
    assert judge(diverged, **changes).verdict == "holds"


def test_a_claim_about_the_papers_data_is_judged_on_nothing_else() -> None:
    run = unstable(30)
    changes = {"needs": "published", "bound": {"min": 5.0}}
    assert judge(run, **changes).verdict == "not applicable"
    assert judge(run, at_paper_scale=True, **changes).verdict == "fails"


def test_what_is_said_of_gradient_descent_is_not_judged_by_another_optimizer() -> None:
    verdict = check("key", claim(), unstable(30), at_paper_scale=True, unfit="adam takes other steps")
    assert (verdict.verdict, verdict.reason, verdict.measured) == ("not applicable", "adam takes other steps", None)


def test_an_unknown_quantity_names_the_claim() -> None:
    with pytest.raises(ConfigError, match=r"claims\.key: no quantity 'los'; did you mean 'loss'"):
        judge(CALM, quantity="los", window=None)


def verdicts() -> list[Verdict]:
    fails = {"quantity": "loss", "statistic": "final", "window": None, "bound": {"max": 1.0}, "published": 2.0}
    return [
        check("first", claim(), unstable(30), at_paper_scale=True),
        check("second", claim(claim="|θ₁| leaves\nthe frame", **fails), CALM, at_paper_scale=False),
        check("third", claim(), CALM, at_paper_scale=False),
    ]


def test_markdown_is_one_table_row_a_claim_and_counts_first() -> None:
    lines = claims_page(verdicts(), about="Profile `quick`, on noise").splitlines()
    assert lines[0] == "# Claims: 1 holds, 1 fails, 1 not applicable"
    assert lines[2].startswith("Profile `quick`, on noise. A claim holds if ")
    table = [line for line in lines if line.startswith("|")]
    by_source, table = table[:-5], table[-5:]
    assert [cell.strip() for cell in by_source[2].split("|")[1:-1]] == ["Exp 3", "1", "1", "1"]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}
    assert "**fails**" in table[3]
    assert "\\|θ₁\\| leaves the frame" in table[3]
    assert "-25.0%" in table[3]
    assert "≤ 1 " in table[3]
    assert "-0.1 to 0.1" in table[2]
    assert "no onset" in table[4]


def test_json_has_every_claim_and_every_number(tmp_path: Path) -> None:
    save_json(tmp_path / "claims.json", as_json(verdicts()))
    read = json.loads((tmp_path / "claims.json").read_text())
    assert list(read) == ["first", "second", "third"]
    assert read["second"]["measured"] == 1.5
    assert read["second"]["difference"] == -0.25
    assert read["third"]["measured"] is None


def test_every_kind_of_verdict_is_counted_even_where_there_is_none() -> None:
    assert counts(verdicts()) == {"holds": 1, "fails": 1, "not applicable": 1}
    assert counts(verdicts()[:1]) == {"holds": 1, "fails": 0, "not applicable": 0}


@pytest.mark.parametrize("at_paper_scale", [True, False])
def test_a_claim_about_a_run_that_was_not_run_says_how_to_run_it(at_paper_scale: bool) -> None:
    verdict = check("key", claim(), None, at_paper_scale=at_paper_scale)
    assert verdict.verdict == "not applicable"
    assert verdict.reason == "exp3_2over30 has not been run: `dvc repro` runs it"
    assert verdict.measured is verdict.difference is None
    assert (verdict.low, verdict.high, verdict.published) == (-0.1, 0.1, -0.026)


# --- two runs ---------------------------------------------------------------------------------------------------------


TWO: dict[str, Any] = {"quantity": "loss", "statistic": "ratio", "against": "loss", "beside": "other", "window": None}


def test_a_claim_about_two_runs_takes_the_other_quantity_from_the_one_beside() -> None:
    """Steps that both have count: here 0 and 2, with ratios 2/4 and 1.8/6."""
    other = record({"step": [0, 2, 9], "loss": [4.0, 6.0, 1.0]}, name="other", reason="max_steps")
    verdict = check("key", claim(**TWO, bound={"min": 0, "max": 0.4}), CALM, at_paper_scale=False, beside=other)
    assert verdict.verdict == "holds"
    assert verdict.measured == pytest.approx((2 / 4 + 1.8 / 6) / 2)


def test_a_claim_about_two_runs_waits_for_the_one_beside() -> None:
    verdict = check("key", claim(**TWO), CALM, at_paper_scale=True)
    assert verdict.verdict == "not applicable"
    assert verdict.reason == "other has not been run: `dvc repro` runs it"


def test_a_run_beside_needs_a_statistic_of_two() -> None:
    with pytest.raises(ValueError, match="holds `beside`, the run that `against` is of, and no `against`"):
        claim(beside="other")

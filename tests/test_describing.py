"""What MLflow says of a run: its claims first, and nothing that was not measured."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

import pytest

from eosrepro.records.runs import Record
from eosrepro.verdicts.claims import Verdict
from eosrepro.views.mlflow import description
from tests.records import record

RESOLVED = {
    "model": {"name": "mlp", "width": 200, "activation": "tanh"},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "gd"},
    "step_size": "2/30",
    "seed": 3,
}
HOLDS = Verdict(
    "mean", "RP oscillates near 0", "Exp 3", "run", -0.013, -0.0124, 0.05, -0.1, 0.1, "holds", "steps 3 to 9"
)
FAILS = replace(HOLDS, id="length", claim="Iterations to 95 %", measured=400.0, low=None, high=300, verdict="fails")
OPEN = replace(HOLDS, id="onset", claim="The onset", measured=None, verdict="not applicable", reason="needs more data")
SUMMARY = {"onset": 7.0, "sharpness_crossing": nan}


def recorded(**changes: Any) -> Record:
    made = record({"loss": [2.3, 1.5]}, **changes)
    return replace(made, summary={"reason": "accuracy", "steps": 1200, "loss": 0.31, "accuracy": 0.954})


def described(*verdicts: Verdict, of: Record | None = None) -> str:
    return description.run(RESOLVED, "Ahn 2022: Exp 3", of or recorded(), SUMMARY, verdicts)


def test_description_of_a_run() -> None:
    assert (
        described(HOLDS, OPEN, FAILS)
        == """\
**1 hold, 1 fail, 1 not applicable** of the claims about this run

It reached the accuracy it was to stop at: 1,200 steps, loss 0.31, accuracy 95.4%. \
Onset (first RP > -0.5): from step 7. Sharpness above 2/η: not measured.

| verdict | claim | measured | expected | published | source |
| --- | --- | --- | --- | --- | --- |
| **fails** | Iterations to 95 % | 400 | ≤ 300 | -0.013 | Exp 3 |
| holds | RP oscillates near 0 | -0.0124 | -0.1 to 0.1 | -0.013 | Exp 3 |
| n.a. | The onset |  | -0.1 to 0.1 | -0.013 | Exp 3 |

n.a.: needs more data

| setting | value |
| --- | --- |
| reproduces | Ahn 2022: Exp 3 |
| step size η | 2/30, so that 2/η = 30 |
| data | noise, N = 40 |
| model | mlp: width 200, activation tanh |
| loss | cross_entropy |
| optimizer | gd |
| seed | 3 |
"""
    )


def test_a_sharpness_that_stays_below_was_measured() -> None:
    text = described(of=recorded(sharpness={"step": [0, 1], "sharpness": [10.0, 20.0]}))
    assert "Sharpness above 2/η: not seen." in text
    assert "There is none." in text


def test_description_of_many_claims_fits() -> None:
    text = described(*[replace(HOLDS, id=str(number), claim="x" * 150) for number in range(200)])
    assert len(text) < 8000
    assert "175 more are in `stages/verify/claims.md`." in text


@pytest.mark.parametrize(
    ("paper", "sources", "text"),
    [
        (
            "Ahn 2022",
            {"Exp 10", "Exp 9", "Theorem 2", "Corollary 1"},
            "Ahn 2022: Corollary 1, Exp 9, Exp 10, Theorem 2",
        ),
        ("Ahn 2022", set(), ""),
        (None, {"Exp 9"}, ""),
    ],
)
def test_reproduction(paper: str | None, sources: set[str], text: str) -> None:
    assert description.reproduction(paper, sources) == text


def test_counts_are_tags() -> None:
    assert description.counts([HOLDS, OPEN, OPEN]) == {
        "claims.hold": "1",
        "claims.fail": "0",
        "claims.not_applicable": "2",
    }


def test_description_of_all_runs() -> None:
    text = description.experiment("Ahn 2022", [HOLDS, replace(HOLDS, source="Exp 4"), HOLDS])
    assert text.startswith("**3 hold, 0 fail, 0 not applicable** of the claims of Ahn 2022:")
    assert "`tags.reproduction LIKE '%Exp 3%'`" in text
    assert "reproduction" not in description.experiment(None, [HOLDS])

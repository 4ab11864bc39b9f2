"""The statistics against the paper: on its own curves they give its own numbers. And against records made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eosrepro.config.load import read_params, validate
from eosrepro.config.statements import Window
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.runs import Measured, Record
from eosrepro.records.series import series
from eosrepro.stages.recorded import published_runs
from eosrepro.verdicts import claims
from eosrepro.verdicts.statistics import _OF_TWO, STATISTICS, UndefinedError, measure, onset, relation_error
from eosrepro.verdicts.statistics import value as value_of_stage
from tests.project import ROOT
from tests.records import PAPER, curve, published_record, record, stable, toy_record, unstable

AFTER_ONSET = {"from": "onset", "to": "end"}
LATE = {"last": 0.5}


def value(run: Any, quantity: str, statistic: str, window: dict[str, Any] | None = None, **options: Any) -> float:
    chosen = None if window is None else Window.model_validate(window)
    return measure(run, quantity, statistic, window=chosen, **options).value


# --- the paper's numbers, from the paper's curves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "onset_at", "rp_mean", "rp_positive", "crossing", "late_ratio", "plateau", "steps"),
    [
        (30, 55, -0.026, 0.52, 44, 2.20, 28.0, 951),
        (60, 202, -0.013, 0.50, 159, 1.94, 58.8, 1313),
        (90, 501, -0.007, 0.48, 409, 1.65, 89.2, 1630),
    ],
)
def test_experiment_3_and_4(
    threshold: int,
    onset_at: int,
    rp_mean: float,
    rp_positive: float,
    crossing: int,
    late_ratio: float,
    plateau: float,
    steps: int,
) -> None:
    run = unstable(threshold)
    relative = {"relative_to": "threshold"}
    assert value(run, "relative_progress", "onset") == onset_at
    assert value(run, "relative_progress", "mean", AFTER_ONSET) == pytest.approx(rp_mean, abs=0.0015)
    assert value(run, "relative_progress", "fraction_positive", AFTER_ONSET) == pytest.approx(rp_positive, abs=0.005)
    assert value(run, "sharpness", "first_above", **relative) == crossing
    assert value(run, "sharpness", "mean", LATE, **relative) == pytest.approx(late_ratio, abs=0.005)
    assert value(run, "directional_smoothness", "mean", AFTER_ONSET) == pytest.approx(plateau, rel=0.012)
    assert value(run, "step", "run_length") == steps
    assert 0.225 < value(run, "loss", "final") < 0.315
    assert value(run, "loss", "increases") > 100


@pytest.mark.parametrize(("threshold", "steps"), [(300, 3801), (400, 5137), (500, 6454)])
def test_experiment_2(threshold: int, steps: int) -> None:
    run = stable(threshold)
    assert value(run, "step", "run_length") == steps
    assert 25.3 < value(run, "step", "run_length_times_step_size") < 25.85
    assert value(run, "loss", "increases") == 0
    assert value(run, "relative_progress", "median") == pytest.approx(-1, abs=5e-4)
    assert value(run, "relative_progress", "min") >= -1.06
    assert value(run, "relative_progress", "max") <= -0.98
    assert onset(run.trajectory) is None


@pytest.mark.parametrize(("activation", "crossing", "late"), [("tanh", 45, 65), ("relu", 60, 60)])
def test_experiment_1(activation: str, crossing: int, late: float) -> None:
    run = published_record(f"exp1_{activation}")
    assert value(run, "sharpness", "first_above", relative_to="threshold") == crossing
    assert value(run, "sharpness", "mean", {"from": 250, "to": 750}) == pytest.approx(late, abs=0.5)
    assert value(run, "sharpness", "mean", {"from": 250, "to": 750}, relative_to="threshold") > 1.9


def test_the_linear_network_of_experiment_1_passes_a_loss_of_4() -> None:
    run = published_record("exp1_linear")
    assert value(run, "loss", "first_above", level=4) == 680


def test_the_published_curves_and_numbers_bear_out_every_claim_that_they_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    content = read_params() | {"profile": "paper_500"}  # whose curves they are
    config = validate(content, ROOT / "params.yaml")
    as_published: Any = {name: SimpleNamespace(step_size=run.setting.step_size) for name, run in config.runs.items()}
    theirs = published_runs(config, as_published)
    told = {
        key: found
        for key, claim in config.claims.items()
        if claim.run in theirs and np.isfinite(found := value_of_stage(theirs[claim.run], claim))
    }
    assert len(told) > 100
    assert {key: at for key, at in told.items() if not claims._in_bound(at, config.claims[key].bound)} == {}
    missed = [
        key
        for key, claim in config.claims.items()
        if claim.published and not claims._in_bound(claim.published, claim.bound)
    ]
    assert missed == []


def test_published_curves_are_all_there_and_finite() -> None:
    files = list(PAPER.glob("curves/*/*.csv"))
    assert len(files) == 47
    for file in files:
        points = curve(file.parent.name, file.stem)
        assert list(points) == ["x", "y"]
        assert np.isfinite(points.to_numpy()).all()
    # The three stable L are plotted against the number of the record, 5 iterations each: stored as iterations.
    ends = {each: curve(f"exp2_2over{each}", "directional_smoothness")["x"].max() for each in (300, 400, 500)}
    assert ends == pytest.approx({300: 3801, 400: 5137, 500: 6454}, rel=0.02)


# --- the paper's numbers, from its examples ---------------------------------------------------------------------------


def test_examples(tmp_path: Path) -> None:
    diverging, _ = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/39", 100)
    assert value(diverging, "theta_1", "first_outside", level=0.5) == 33
    at_the_edge, _ = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/40", 100)
    assert value(at_the_edge, "abs_theta_1", "min") == pytest.approx(0.1)
    assert value(at_the_edge, "theta_1", "min") == pytest.approx(-0.1)
    assert value(at_the_edge, "directional_smoothness", "final", relative_to="threshold") == pytest.approx(1)
    slow, _ = toy_record(tmp_path / "2", "quadratic", (0.01, 0.1), "2/39", 100)
    assert value(slow, "theta_1", "first_outside", level=0.5) == 79
    cycle, _ = toy_record(tmp_path, "tanh_quadratic", (0.01, 0.1), "2/39", 100)
    assert value(cycle, "abs_theta_1", "mean", {"from": 90}) == pytest.approx(0.0893, abs=1e-4)
    explosion, _ = toy_record(tmp_path, "product", (13.0, 0.01), "2/150", 49)
    assert value(explosion, "step", "diverged") == 1
    walk, _ = toy_record(tmp_path, "tanh_product", (13.0, 0.01), "2/150", 400)
    assert value(walk, "theta_1", "final") == pytest.approx(8.6165, abs=1e-4)
    assert value(walk, "step", "diverged") == 0


def test_eq_4_3_is_exact_on_a_quadratic(tmp_path: Path) -> None:
    run, _ = toy_record(tmp_path, "quadratic", (0.1, 0.1), "2/41", 60)
    assert value(run, "relative_progress", "relation_error") < 1e-9


def test_the_rp_of_experiment_3_is_divided_by_the_norm_of_the_next_gradient() -> None:
    columns = {"loss": [2.0, 1.0, 1.5], "grad_norm": [1.0, 2.0, 3.0], "relative_progress": [-1.0, 2.0, np.nan]}
    run = record(columns, step_size="1/4")
    points = series(run, "relative_progress_by_next_gradient")
    assert points["step"].tolist() == [0, 1]
    assert points["value"].tolist() == [-1 / (4 / 4), 0.5 / (9 / 4)]
    with pytest.raises(ConfigError, match="no quantity 'relative_progress_by_next_gradient'"):
        series(unstable(30), "relative_progress_by_next_gradient")  # no gradient is published


def test_a_next_gradient_of_0_and_a_progress_that_is_not_defined_give_no_rp_by_the_next_gradient() -> None:
    columns = {"loss": [2.0, 1.0, 1.5, 1.0], "grad_norm": [1.0, 0.0, 2.0, 1.0]}
    run = record(columns | {"relative_progress": [-1.0, -1.0, np.nan, np.nan]}, step_size="1/4")
    points = series(run, "relative_progress_by_next_gradient")
    assert points.to_dict("list") == {"step": [1], "value": [0.5]}


def test_without_any_progress_that_is_defined_there_is_no_onset_and_the_reason_is_said() -> None:
    run = record({"loss": [2.0, 1.0, 1.5], "relative_progress": [np.nan] * 3})
    with pytest.raises(UndefinedError, match="relative progress is not defined"):
        measure(run, "relative_progress", "onset")


def test_a_value_of_0_is_not_positive() -> None:
    assert value(record({"loss": [0.0, 1.0, -1.0, 0.0]}), "loss", "fraction_positive") == 0.25


# --- each statistic, by hand ------------------------------------------------------------------------------------------

SERIES = [4.0, -1.0, 3.0, 3.0, -2.0, 8.0]


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("mean", 2.5),
        ("median", 3.0),
        ("min", -2.0),
        ("max", 8.0),
        ("final", 8.0),
        ("fraction_positive", 4 / 6),
        ("increases", 2.0),
        ("slope", 8.5 / 17.5),  # Σ(t − 2.5)(v − 2.5) / Σ(t − 2.5)²
    ],
)
def test_statistic_of_values(statistic: str, expected: float) -> None:
    assert value(record({"loss": SERIES}), "loss", statistic) == pytest.approx(expected)


def test_the_slope_is_per_iteration_and_one_value_has_none() -> None:
    run = record({"loss": [np.nan, 2.0, np.nan, 5.0]}, step_size="2/4")
    assert value(run, "loss", "slope") == pytest.approx(1.5)
    assert value(run, "loss", "slope", relative_to="threshold") == pytest.approx(1.5 / 4)
    with pytest.raises(UndefinedError, match="one value alone has no slope"):
        measure(run, "loss", "slope", window=Window.model_validate({"from": 2}))


def test_values_relative_to_the_threshold_are_divided_by_2_over_eta() -> None:
    run = record({"loss": SERIES}, step_size="2/4")
    assert value(run, "loss", "max", relative_to="threshold") == 2.0
    assert value(run, "loss", "first_above", relative_to="threshold") == 5  # 4.0 at step 0 is at, not above, 2/η
    assert value(run, "loss", "first_outside", level=3.5) == 0


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"from": 2}, 3.0),
        ({"to": 1}, 1.5),
        ({"from": 1, "to": 2}, 1.0),
        ({"from": 5, "to": 5}, 8.0),
        ({"last": 0.4}, 3.0),  # from step 3 of 5 on
        ({"from": "end"}, 8.0),
        ({"from": "onset", "to": "end"}, 3.0),
        ({"to": "onset"}, 2.0),
    ],
)
def test_window(window: dict[str, Any], expected: float) -> None:
    run = record({"loss": SERIES, "relative_progress": [-1.0, -0.5, -0.49, 0.0, -1.0, np.nan]})
    assert value(run, "loss", "mean", window) == pytest.approx(expected)


def test_the_last_row_of_a_run_has_no_step_and_does_not_count() -> None:
    run = record({"relative_progress": [-1.0, 1.0, np.nan]})
    assert value(run, "relative_progress", "fraction_positive") == 0.5
    assert value(run, "relative_progress", "final", {"to": 2}) == 1.0  # the run has step 2, though RP ends at 1


def test_sharpness_has_its_own_steps() -> None:
    run = record({"loss": [1.0] * 21}, sharpness={"step": [0, 10, 20], "sharpness": [10.0, 31.0, 40.0]})
    assert value(run, "sharpness", "first_above", relative_to="threshold") == 10
    assert value(run, "sharpness", "mean", {"last": 0.5}) == 35.5


@pytest.mark.parametrize(
    ("statistic", "options", "message"),
    [
        ("mean", {"window": {"from": "onset"}}, "no onset"),
        ("onset", {}, "no onset"),
        ("mean", {"window": {"from": 3, "to": 9}}, "reaches to step 9, the run ends at step 4"),
        ("mean", {"window": {"from": 7}}, "the run ends at step 4"),
        ("mean", {"window": {"from": "end", "to": 2}}, "no value between steps 4 and 2"),
        ("first_above", {"level": 9.0}, "does not pass 9"),
        ("run_length", {}, r"step 4 \(max_steps\) before it reached its accuracy"),
        ("run_length_times_step_size", {}, "before it reached its accuracy"),
    ],
)
def test_what_the_run_does_not_define_is_said_not_replaced(
    statistic: str, options: dict[str, Any], message: str
) -> None:
    run = record({"loss": SERIES[:5], "relative_progress": [-1.0] * 5}, reason="max_steps")
    with pytest.raises(UndefinedError, match=message):
        value(run, "loss", statistic, **options)


@pytest.mark.parametrize(("reason", "why"), [("diverged", "diverged at its first step"), ("max_steps", "rounding")])
def test_a_run_without_relative_progress_has_no_onset(reason: str, why: str) -> None:
    run = record({"loss": [2.3], "relative_progress": [float("nan")]}, reason=reason)
    with pytest.raises(UndefinedError, match=f"no onset: relative progress is not defined, as .*{why}"):
        value(run, "loss", "onset")


def test_a_run_that_diverged_has_no_length_to_its_accuracy() -> None:
    run = record({"loss": SERIES}, reason="diverged")
    assert value(run, "loss", "diverged") == 1
    with pytest.raises(UndefinedError, match="diverged"):
        value(run, "loss", "run_length")


def test_a_run_that_diverged_after_its_last_snapshot_has_no_last_sharpness() -> None:
    """The only snapshot is the start, whose sharpness is not that of the end."""
    run = record({"loss": SERIES}, reason="diverged", sharpness={"step": [0], "sharpness": [12.0]})
    for statistic, window in (("final", None), ("mean", {"last": 0.5})):
        with pytest.raises(UndefinedError, match=r"(ends|diverged) at step 5"):
            value(run, "sharpness", statistic, window)
    assert value(run, "loss", "final") == SERIES[-1]


def test_relation_error_is_the_relative_root_mean_square() -> None:
    run = record({"directional_smoothness": [3.0, 30.0, 27.0], "relative_progress": [-0.89, 0.1, -0.01]})
    assert relation_error(run.trajectory, 2 / 30) == pytest.approx(0.1)  # RP + 1 = 1.1 ηL/2 throughout
    assert value(run, "relative_progress", "relation_error", {"from": 1}) == pytest.approx(0.1)
    flat = record({"directional_smoothness": [0.0, 0.0], "relative_progress": [-1.0, -0.9]})
    with pytest.raises(UndefinedError, match="not finite"):
        value(flat, "relative_progress", "relation_error")


def two(**columns: list[float]) -> Record:
    """A run on which a diagnostic measured both sides of eq. 5.1 at every second step."""
    table = pd.DataFrame({"step": [0, 2, 4, 6], **columns})
    return replace(record({"loss": [1.0] * 7}), measured={"expected_progress": Measured(table, {})})


LEFT, RIGHT = "expected_relative_progress", "predicted_expected_progress"


def test_statistics_of_two_quantities() -> None:
    run = two(**{LEFT: [-0.5, 1.0, 2.0, 4.0], RIGHT: [-0.4, 1.5, 2.5, 5.0]})
    assert measure(run, RIGHT, "correlation", against=LEFT).value == pytest.approx(
        np.corrcoef([-0.4, 1.5, 2.5, 5.0], [-0.5, 1.0, 2.0, 4.0])[0, 1]
    )
    assert measure(run, RIGHT, "largest_difference", against=LEFT).value == 1.0
    assert measure(run, LEFT, "largest_difference", against=RIGHT).value == 1.0
    assert measure(run, RIGHT, "ratio", against=LEFT, level=1.0).value == pytest.approx(1.25)  # of the last two
    assert measure(run, RIGHT, "ratio", against=LEFT).value == pytest.approx((0.8 + 1.5 + 1.25 + 1.25) / 4)
    window = Window.model_validate({"from": 1, "to": 4})
    assert measure(run, RIGHT, "largest_difference", against=LEFT, window=window).value == 0.5
    assert measure(run, RIGHT, "largest_difference", against="loss").basis == "steps 0 to 6 (4 values)"


def test_two_quantities_that_do_not_define_the_number() -> None:
    run = two(**{LEFT: [0.5, 0.6, 0.7, 0.8], RIGHT: [1.0, 1.0, 1.0, 1.0]})
    with pytest.raises(UndefinedError, match="never above 1"):
        measure(run, RIGHT, "ratio", against=LEFT, level=1.0)
    with pytest.raises(UndefinedError, match="not finite"), np.errstate(all="ignore"):
        measure(run, RIGHT, "correlation", against=LEFT)
    with pytest.raises(ConfigError, match="correlation of predicted_expected_progress needs `against`"):
        measure(run, RIGHT, "correlation")


@pytest.mark.parametrize(
    ("threshold", "correlation", "ratio"), [(50, 0.986, 1.28), (100, 0.991, 1.28), (150, 0.992, 1.25)]
)
def test_experiment_8(threshold: int, correlation: float, ratio: float) -> None:
    """The paper's own curves: its sides of eq. 5.1 go together, the right one above."""
    left, right = (curve(f"exp8_2over{threshold}", side)["y"] for side in (LEFT, RIGHT))
    table = pd.DataFrame({"step": range(1, 301), LEFT: left, RIGHT: right})
    run = replace(record({"loss": [1.0] * 301}), measured={"expected_progress": Measured(table, {})})
    assert measure(run, RIGHT, "correlation", against=LEFT).value == pytest.approx(correlation, abs=5e-4)
    assert measure(run, RIGHT, "ratio", against=LEFT, level=1.0).value == pytest.approx(ratio, abs=5e-3)


def test_experiment_5() -> None:
    """The paper's own curves: after onset L spreads over τ by 4.4 % of 2/η."""
    names = (f"directional_smoothness_{each}" for each in ("mean", "low_1", "high_1"))
    mean, low, high = (curve("exp3_2over60", name) for name in names)
    after = mean["x"] > 202
    assert ((high["y"] - low["y"])[after] / 2 / 60).median() == pytest.approx(0.0437, abs=5e-5)
    assert (mean["y"][after] / 60).mean() == pytest.approx(0.985, abs=5e-4)


@pytest.mark.parametrize(
    ("quantity", "statistic", "message"),
    [
        ("relative_progres", "mean", "did you mean 'relative_progress'"),
        ("loss", "meen", "did you mean 'mean'"),
        ("loss", "first_above", "needs a `level`"),
        ("loss", "first_outside", "needs a `level`"),
    ],
)
def test_what_is_asked_for_wrongly(quantity: str, statistic: str, message: str) -> None:
    run = record({"loss": SERIES, "relative_progress": SERIES})
    with pytest.raises(ConfigError, match=message):
        value(run, quantity, statistic)


def test_sharpness_that_was_not_measured_is_an_error_of_the_pipeline() -> None:
    with pytest.raises(StoreError, match="run `eosrepro diagnose tanh30`"):
        series(record({"loss": SERIES}, name="tanh30"), "sharpness")
    with pytest.raises(StoreError, match=r"expected_relative_progress of sgd has not been measured .* `dvc repro`"):
        series(record({"loss": SERIES}, name="sgd"), "expected_relative_progress")


def test_coordinates(tmp_path: Path) -> None:
    run, _ = toy_record(tmp_path, "quadratic", (0.1, 0.2), "2/40", 3)
    assert series(run, "theta_1")["value"].to_list() == pytest.approx([0.1, -0.1, 0.1, -0.1])
    assert series(run, "abs_theta_1")["value"].to_list() == pytest.approx([0.1] * 4)
    assert series(run, "theta_2")["step"].to_list() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="θ has 2 coordinates"):
        series(run, "theta_3")


def test_every_statistic_of_the_configuration_exists() -> None:
    from typing import get_args

    from eosrepro.config.statements import STATISTICS_OF_TWO, Claim

    assert set(get_args(Claim.model_fields["statistic"].annotation)) == set(STATISTICS)
    assert set(STATISTICS_OF_TWO) == set(_OF_TWO)


def test_units_of_the_threshold_are_those_of_its_own_iteration() -> None:
    changing = [40.0, 40.0, 80.0, 80.0]
    table = {"loss": [1.0] * 4, "directional_smoothness": [40.0, 20.0, 80.0, 160.0], "stability_threshold": changing}
    run = record(table, step_size="2/30", sharpness={"step": [0, 2], "sharpness": [20.0, 60.0]})
    assert measure(run, "directional_smoothness", "mean", relative_to="threshold").value == (1 + 0.5 + 1 + 2) / 4
    assert measure(run, "sharpness", "max", relative_to="threshold").value == 0.75

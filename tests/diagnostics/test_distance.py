"""The distance between runs: in closed form on a quadratic, as a library and by the stages."""

from __future__ import annotations

from fractions import Fraction
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import eosrepro as eos
from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.core.problem import function_problem
from eosrepro.errors import ConfigError
from eosrepro.problems.quadratic import quadratic
from eosrepro.records import store
from tests.conftest import small_problem
from tests.project import alone, small_params, write_params

START = (0.3, -0.7)


def by_gd(step_size: float, steps: np.ndarray) -> np.ndarray:
    """Iterates of gradient descent on 20θ₁² + θ₂²: (n, 2)."""
    return np.stack([START[i] * (1 - step_size * c) ** steps for i, c in enumerate((40, 2))], axis=-1)


def run_of(optimizer: eos.Optimizer, steps: int = 20, keep_every: int = 1) -> eos.Run:
    objective, _ = function_problem(quadratic(curvatures=(20.0, 1.0)), START)
    return eos.minimise(objective, optimizer=optimizer, steps=steps, keep_every=keep_every)


def test_gradient_descent_and_its_flow_part_as_they_do_in_closed_form() -> None:
    gd, flow = run_of(eos.gd(0.04)), run_of(eos.gradient_flow(0.04, alpha=0.1))
    steps = np.arange(21)
    of_flow = np.stack([START[i] * np.exp(-c * 0.04 * steps) for i, c in enumerate((40, 2))], axis=-1)
    expected = np.linalg.norm(by_gd(0.04, steps) - of_flow, axis=-1)
    found = gd.diagnose("distance", to=flow)
    assert found["step"].to_list() == steps.tolist()
    np.testing.assert_allclose(found["distance"], expected, atol=1e-6)
    np.testing.assert_allclose(flow.diagnose("distance", to=gd)["distance"], expected, atol=1e-6)
    assert found["distance"][0] == 0
    assert expected[1] == pytest.approx(np.hypot(0.3 * (exp(-1.6) + 0.6), 0.7 * (exp(-0.08) - 0.92)))


def test_at_other_step_sizes_equal_times_are_compared_and_others_have_none() -> None:
    coarse, fine = run_of(eos.gd(0.04)), run_of(eos.gd(0.01), steps=40, keep_every=2)
    steps = np.arange(21)
    expected = np.linalg.norm(by_gd(0.04, steps) - by_gd(0.01, 4 * steps), axis=-1)
    found = coarse.diagnose("distance", to=fine)["distance"]
    np.testing.assert_allclose(found[:11], expected[:11], rtol=1e-10)
    assert found[11:].isna().all()  # beyond the end of the other
    back = fine.diagnose("distance", to=coarse).set_index("step")["distance"]
    np.testing.assert_allclose(back[::2], expected[:11], rtol=1e-10)
    assert back[1::2].isna().all()  # half-way between two iterations of the other


def test_what_is_no_run_or_one_of_another_size_is_refused() -> None:
    run = run_of(eos.gd(0.04))
    with pytest.raises(ConfigError, match="to is 'flow': it should be the run itself"):
        run.diagnose("distance", to="flow")
    objective, _ = small_problem()
    other = eos.minimise(objective, optimizer=eos.gd(0.04), steps=1)
    with pytest.raises(ConfigError, match="the run has 2 parameters, and run has 123: it should be one of the same"):
        run.diagnose("distance", to=other)


# --- by the stages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A project of one experiment, GD and its flow on a quadratic, in the working folder."""
    made = alone(small_params(), "example1") | {"diagnose": {}}
    made["experiments"]["example1"] = {
        "problem": {"name": "quadratic", "curvatures": [20, 1]},
        "start": list(START),
        "step_size": "1/25",
        "stop": {"max_steps": 20},
        "vary": {"optimizer": {"gd": {"name": "gd"}, "flow": {"name": "gradient_flow"}}},
        "diagnose": {"distance": {"to": "example1_flow"}},
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return made


def found_with(params: dict[str, Any], run: str = "example1_gd", *, what: str = "example1") -> pd.DataFrame:
    """What is found on a run after a training and a diagnosis."""
    write_params(Path(), params)
    for command in ("train example1", f"diagnose {what} --jobs 1"):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, f"{command}: {done.output}"
    return pd.read_csv(f"stages/diagnostics/example1/{run}/distance.csv")


def test_the_stages_find_what_the_library_finds_and_keep_it_by_both_runs(params: dict[str, Any]) -> None:
    expected = run_of(eos.gd(0.04)).diagnose("distance", to=run_of(eos.gradient_flow(0.04)))
    found = found_with(params)
    np.testing.assert_allclose(found["distance"], expected["distance"], rtol=1e-12, atol=1e-15)
    assert (pd.read_csv("stages/diagnostics/example1/example1_flow/distance.csv")["distance"] == 0).all()
    before = set(store.entries())
    pd.testing.assert_frame_equal(found_with(params, what="example1_gd"), found)
    assert set(store.entries()) == before

    params["experiments"]["example1"]["vary"]["optimizer"]["flow"]["alpha"] = 0.5  # another path of the other run
    again = found_with(params, what="example1_gd")
    assert (again["distance"][1:] != found["distance"][1:]).all()
    new = set(store.entries()) - before
    assert sorted(key.split(".")[1:2] for key in new) == [[], ["distance"]]  # the flow, and the distance from it


def test_equal_times_go_by_the_schedules_of_both_runs(params: dict[str, Any]) -> None:
    """GD at 1/25, and at half of that from iteration 10 on, to the one at 1/50 throughout."""
    params["experiments"]["example1"] |= {
        "optimizer": {"name": "gd"},
        "vary": {
            "schedule": {"dropped": {"drops": {10: "1/2"}}, "all": None},
            "step_size": ["1/25", "1/50"],
        },
        "diagnose": {"distance": {"to": "example1_all_1over50"}},
    }
    found = found_with(params, "example1_dropped_1over25").set_index("step")["distance"]
    run = load().run("example1_dropped_1over25")
    assert [run.times[step] for step in (0, 10, 12)] == [0, Fraction(2, 5), Fraction(11, 25)]
    before = by_gd(0.04, np.arange(11)) - by_gd(0.02, 2 * np.arange(11))
    np.testing.assert_allclose(found[:10], np.linalg.norm(before[:10], axis=-1), rtol=1e-9)
    assert found.notna().sum() == 11  # the other ends at the time 2/5
    assert found[10] == pytest.approx(np.linalg.norm(before[10]), rel=1e-9)


def test_a_study_of_a_run_leaves_out_what_needs_another_one(params: dict[str, Any]) -> None:
    write_params(Path(), params)
    study = {
        "run": "example1_gd",
        "vary": {"step": {"path": "step_size", "values": {"a": "1/25", "b": "1/50"}}},
        "pooled": [],
        "measures": {"loss": {"quantity": "loss", "statistic": "final"}},
    }
    write_params(Path(), study, "study.yaml")
    done = CliRunner().invoke(main, ["sweep", "study.yaml"])
    assert done.exit_code == 0, done.output
    study["measures"] = {"distance": {"quantity": "distance", "statistic": "final"}}
    write_params(Path(), study, "study.yaml")
    done = CliRunner().invoke(main, ["sweep", "study.yaml"])
    assert done.exit_code == 2
    assert "example1_gd has no 'distance'" in done.output

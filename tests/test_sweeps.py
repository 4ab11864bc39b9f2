"""A sweep: its runs, its table, going on after an interruption, and what it refuses."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from math import log, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eosrepro.config.load import load, parse, read_params
from eosrepro.config.yaml import read
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records import identity
from eosrepro.records.files import load_table
from eosrepro.stages import build
from eosrepro.stages.diagnose import diagnose_into
from eosrepro.stages.train import train_into
from eosrepro.tools import sweeps
from tests.project import PARAMS, ROOT, small_params, write_params
from tests.records import curve

RUN = "exp3_2over30"
SWEEP: dict[str, Any] = {
    "run": RUN,
    "set": {f"experiments.{RUN}.stop": {"max_steps": 6}, f"experiments.{RUN}.snapshot_every": 3},
    "vary": {
        "step size": {"path": f"experiments.{RUN}.step_size", "values": {"2/30": "2/30", "2/60": "2/60"}},
        "scale": {"path": "profiles.quick.preprocessing.scale", "values": {"unit": "unit", "16": {"zero": 0, "one": 16}}},
        "seed": {"path": f"experiments.{RUN}.seed", "values": {"0": 0, "1": 1}},
    },
    "pooled": ["seed"],
    "measures": {
        "loss at 0": {"quantity": "loss", "statistic": "mean", "window": {"from": 0, "to": 0}},
        "last loss": {"quantity": "loss", "statistic": "final"},
        "sharpness": {"quantity": "sharpness", "statistic": "max", "relative_to": "threshold"},
        "onset": {"quantity": "relative_progress", "statistic": "onset"},
    },
    "published": [
        {
            "where": {"step size": "2/30"},
            "curves": {"loss": "exp3_loss_2over30", "relative_progress": "exp3_rp_2over30", "sharpness": "exp3_sharp_2over30"},
        }
    ],
}  # fmt: skip


def params() -> dict[str, Any]:
    """Small runs on digits that are not standardised, so that the scale makes a difference."""
    small = small_params()
    small["profiles"]["quick"] |= {
        "data": {"name": "digits", "n_examples": 60},
        "preprocessing": {"scale": "unit", "standardise": "none", "statistics": "subset"},
    }
    return small


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: a project of small runs on digits."""
    (tmp_path / "reference").symlink_to(ROOT / "reference")
    write_params(tmp_path, params())
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def write(sweep: dict[str, Any]) -> Path:
    write_params(Path(), sweep, "grid.yaml")
    return Path("grid.yaml")


def changed(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(SWEEP) | sections


def table(sweep: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(sweeps.run(write(sweep)) / "table.csv", dtype={"scale": str, "seed": str})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_table_has_a_row_a_variant_and_one_for_the_published_curves() -> None:
    made = table(SWEEP)
    ours = made[made["source"] == "ours"]
    assert ours[["step size", "scale", "seed"]].to_numpy().tolist() == [
        [step_size, scale, seed] for step_size in ("2/30", "2/60") for scale in ("unit", "16") for seed in ("0", "1")
    ]
    assert made["source"].tolist() == ["ours"] * 8 + ["published"]
    assert (ours["steps"] == 6).all()
    # The step size decides where a run goes and not where it starts; the scale and the seed decide that.
    at_start = ours.groupby(["scale", "seed"])["loss at 0"].nunique()
    assert at_start.tolist() == [1, 1, 1, 1]
    assert ours["loss at 0"].nunique() == 4
    assert ours["last loss"].nunique() == 8
    assert (ours["last loss"] < ours["loss at 0"]).all()


def test_a_variant_is_the_run_that_params_yaml_with_its_settings_declares(folder: Path) -> None:
    made = table(SWEEP).set_index(["step size", "scale", "seed"]).loc[("2/60", "16", "1")]
    written = params()
    written["profiles"]["quick"]["preprocessing"]["scale"] = {"zero": 0, "one": 16}
    written["experiments"][RUN] |= {"step_size": "2/60", "seed": 1, "stop": {"max_steps": 6}, "snapshot_every": 3}
    write_params(folder, written)
    config = load()
    data = build.dataset(config.active)
    train_into(folder / "by_hand", config, RUN, data, fingerprint="by hand")
    sharpness = diagnose_into(folder / "measured", folder / "by_hand", config, RUN, data)
    trajectory = load_table(folder / "by_hand/trajectory.csv")
    assert made["loss at 0"] == trajectory["loss"].iloc[0]
    assert made["last loss"] == trajectory["loss"].iloc[6]
    assert made["sharpness"] == pytest.approx(sharpness["sharpness"].max() / 60, rel=1e-15)


def test_the_published_row_is_measured_on_the_published_curves() -> None:
    published = table(SWEEP).iloc[-1]
    assert published[["step size", "source"]].tolist() == ["2/30", "published"]
    assert published["onset"] == 55
    assert published["last loss"] == curve("exp3_loss_2over30")["y"].iloc[-1]
    assert published["sharpness"] == pytest.approx(curve("exp3_sharp_2over30")["y"].max() / 30)


def test_the_summary_pools_the_seeds_and_lays_the_published_row_above_ours() -> None:
    made = table(SWEEP)
    text = Path("stages/sweeps/grid/table.md").read_text(encoding="utf-8")
    first, second = text.split("**step size 2/60**")
    assert first.startswith("**step size 2/30**\n\n| scale | loss at 0 | last loss | sharpness | onset | misfit |\n")
    assert [line.split(" | ")[0] for line in first.splitlines()[4:7]] == ["| published", "| unit", "| 16"]
    assert "published" not in second
    assert "misfit" not in second
    losses = made[(made["step size"] == "2/60") & (made["scale"] == "unit")]["last loss"]
    assert f"{losses.mean():.3g} ({losses.min():.3g}–{losses.max():.3g})" in second


def test_the_grid_may_vary_what_is_pooled_alone() -> None:
    sweep = changed(vary={"seed": SWEEP["vary"]["seed"]}, published=[])
    assert len(table(sweep)) == 2
    assert "| ours | " in Path("stages/sweeps/grid/table.md").read_text(encoding="utf-8")


def test_an_interrupted_sweep_goes_on_where_it_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[float] = []
    really = train_into

    def counted(place: Path, config: Any, name: str, data: Any, **given: Any) -> Any:
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        trained.append(float(config.run(name).step_size))
        return really(place, config, name, data, **given)

    monkeypatch.setattr(sweeps, "train_into", counted)
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(write(SWEEP))
    assert not (folder / "stages/sweeps/grid/table.csv").exists()
    stop_at = 100
    sweeps.run(write(SWEEP))
    assert trained == [2 / 30] * 4 + [2 / 60] * 4
    complete = tree(folder / "stages")
    sweeps.run(write(SWEEP))
    assert len(trained) == 8
    assert tree(folder / "stages") == complete
    assert [name for name in complete if "snapshots" in name] == []


def test_a_run_that_was_cut_off_while_measured_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_args: Any, **_given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "diagnose_into", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(write(SWEEP))
    (cut_off_at,) = Path("stages/sweeps").rglob("run.json")
    written = cut_off_at.stat().st_mtime_ns
    resumed = table(SWEEP)
    assert cut_off_at.stat().st_mtime_ns == written
    Path("stages/sweeps").rename("elsewhere")
    pd.testing.assert_frame_equal(table(SWEEP), resumed)


def test_a_new_setting_is_a_new_run(folder: Path) -> None:
    sweeps.run(write(SWEEP))
    sweeps.run(write(changed(set=SWEEP["set"] | {"sharpness.rtol": 1e-4})))
    assert len(list((folder / "stages/sweeps/grid/runs").iterdir())) == 16


def test_edited_code_is_a_new_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = changed(vary={"seed": SWEEP["vary"]["seed"]}, published=[])
    sweeps.run(write(sweep))
    monkeypatch.setattr(identity, "code_version", lambda *_: "edited")
    sweeps.run(write(sweep))
    assert len(list((folder / "stages/sweeps/grid/runs").iterdir())) == 4


def test_misfit_takes_the_end_for_an_event_that_did_not_come_and_for_nothing_else() -> None:
    sweep = parse(sweeps.Sweep, SWEEP, Path("grid.yaml"))
    theirs = pd.DataFrame({"loss at 0": [2.0], "last loss": [1.0], "sharpness": [4.0], "onset": [10.0]})
    ours = pd.DataFrame({"steps": [40, 40], "loss at 0": [2.0] * 2, "last loss": [1.0] * 2, "sharpness": [4.0] * 2})
    # One seed came to its onset at 20, the other had none within its 40 iterations: 30 on average, three times theirs.
    assert sweeps._misfit(sweep, ours.assign(onset=[20.0, nan]), theirs) == pytest.approx(log(3) / 4)
    # A sharpness that was not measured is left out, rather than set to 40.
    unmeasured = ours.assign(onset=10.0, sharpness=nan)
    assert sweeps._misfit(sweep, unmeasured, theirs) == 0
    assert sweeps._misfit(sweep, unmeasured.assign(onset=30.0), theirs) == pytest.approx(log(3) / 3)


def test_the_committed_studies_are_valid(folder: Path) -> None:
    (folder / "params.yaml").write_bytes(PARAMS.read_bytes())
    for file in (ROOT / "studies").glob("*.yaml"):
        sweep = parse(sweeps.Sweep, read(file, []), file)
        first = tuple(next(iter(axis.values)) for axis in sweep.vary.values())
        assert sweep.run in sweeps._variant(sweep, read_params(), first, file).runs


def test_a_level_and_a_second_eigenvalue_are_measured() -> None:
    measures = {
        "passes 2": {"quantity": "loss", "statistic": "first_above", "level": 2},
        "second": {"quantity": "eigenvalue_2", "statistic": "max"},
    }
    settings = SWEEP["set"] | {"sharpness.k": 2}
    made = table(changed(set=settings, measures=measures, vary={"seed": SWEEP["vary"]["seed"]}, published=[]))
    assert made["passes 2"].tolist() == [0, 0]
    assert (made["second"] > 0).all()


def test_what_a_measure_is_set_against_is_measured_too() -> None:
    measures = {
        "together": {"quantity": "directional_smoothness", "statistic": "correlation", "against": "sharpness"},
        "apart": {"quantity": "loss", "statistic": "largest_difference", "against": "eigenvalue_2"},
    }
    every_step = {f"experiments.{RUN}.snapshot_every": 1, "profiles.quick.snapshot_every": 1}
    settings = SWEEP["set"] | every_step | {"sharpness.k": 2}
    made = table(changed(set=settings, measures=measures, vary={"seed": SWEEP["vary"]["seed"]}, published=[]))
    places = [path.parent for path in Path("stages/sweeps/grid/runs").glob("*/trajectory.csv")]
    expected = set()
    for place in places:
        trajectory, curvature = pd.read_csv(place / "trajectory.csv"), pd.read_csv(place / "measured/sharpness.csv")
        together = trajectory["directional_smoothness"][:-1].corr(curvature["sharpness"][:-1])
        expected.add((round(together, 12), round((trajectory["loss"] - curvature["eigenvalue_2"]).abs().max(), 12)))
    assert {(round(a, 12), round(b, 12)) for a, b in made[["together", "apart"]].to_numpy()} == expected
    assert len(expected) == 2


SGD: dict[str, Any] = {
    "run": "exp8_2over50",
    "set": {
        "experiments.exp8_2over50.stop": {"max_steps": 4},
        "profiles.quick.snapshot_every_epochs": 1,
        "measurements.exp8_2over50.every": 2,
    },
    "vary": {
        "order": {
            "path": "experiments.exp8_2over50.optimizer.order",
            "values": {"fixed": "fixed", "reshuffled": "reshuffled"},
        },
        "seed": {
            "path": ["experiments.exp8_2over50.seed", "experiments.exp8_2over50.optimizer.seed"],
            "values": {"0": 0, "1": 1},
        },
    },
    "pooled": ["seed"],
    "measures": {
        "share": {"quantity": "expected_relative_progress", "statistic": "fraction_positive"},
        "first": {"quantity": "expected_relative_progress", "statistic": "mean", "window": {"from": 0, "to": 0}},
        "last": {"quantity": "expected_relative_progress", "statistic": "mean", "window": {"from": 4, "to": 4}},
        "sides": {
            "quantity": "predicted_expected_progress",
            "statistic": "largest_difference",
            "against": "expected_relative_progress",
        },
    },
}


def test_a_sweep_takes_the_measurements_that_params_yaml_declares_of_its_run() -> None:
    made = table(SGD).set_index(["order", "seed"])
    assert made.notna().all(axis=None)
    measured = sorted(Path("stages/sweeps/grid/runs").glob("*/measured/*.csv"))
    assert [path.name for path in measured] == ["expected_progress.csv"] * 4
    assert all(pd.read_csv(path)["step"].tolist() == [0, 2, 4] for path in measured)
    # The first epoch is the same in both orders; what it leads to is not.
    assert (made.loc["fixed"]["first"] == made.loc["reshuffled"]["first"]).all()
    assert (made.loc["fixed"]["last"] != made.loc["reshuffled"]["last"]).all()


def test_several_settings_vary_together() -> None:
    sweep = parse(sweeps.Sweep, SGD, Path("grid.yaml"))
    variant = sweeps._variant(sweep, params(), ("reshuffled", "1"), Path("grid.yaml"))
    run = variant.experiments["exp8_2over50"]
    assert (run.seed, run.optimizer.options["seed"], run.optimizer.options["order"]) == (1, 1, "reshuffled")


def test_a_measurement_that_was_cut_off_is_taken_without_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_args: Any, **_given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "measure_into", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(write(SGD))
    (cut_off_at,) = Path("stages/sweeps").rglob("run.json")
    written = cut_off_at.stat().st_mtime_ns
    assert table(SGD).notna().all(axis=None)
    assert cut_off_at.stat().st_mtime_ns == written
    assert not list(Path("stages/sweeps").rglob("snapshots"))


def test_a_sweep_keeps_no_coordinates() -> None:
    measures = {"x": {"quantity": "abs_theta_1", "statistic": "final"}}
    vary = {"start": {"path": "toys.example1_2over39.start", "values": {"a": [0.1, 0.1]}}}
    sweep = {"run": "example1_2over39", "vary": vary, "pooled": [], "measures": measures}
    with pytest.raises(ConfigError, match=r"measures\.x\.quantity: example1_2over39 has no 'abs_theta_1'"):
        sweeps.run(write(sweep))


def test_other_images_or_another_eigensolver_are_new_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = changed(vary={"seed": SWEEP["vary"]["seed"]}, published=[])
    runs = folder / "stages/sweeps/grid/runs"
    sweeps.run(write(sweep))
    dataset = build.dataset
    with monkeypatch.context() as patch:
        patch.setattr(build, "dataset", lambda profile: replace(dataset(profile), inputs=-dataset(profile).inputs))
        sweeps._dataset.cache_clear()
        sweeps.run(write(sweep))
        assert len(list(runs.iterdir())) == 4
    sweeps._dataset.cache_clear()
    monkeypatch.setattr(sweeps, "diagnostic_code", lambda *_: "another eigensolver")
    sweeps.run(write(sweep))
    assert len(list(runs.iterdir())) == 6


LOSS = {"quantity": "loss", "statistic": "final"}

REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("unknown key", {"varry": {}}, ["grid.yaml: varry", "did you mean 'vary'"]),
    ("nothing varies", {"vary": {}}, ["grid.yaml: vary", "at least 1"]),
    ("unknown run", {"run": "exp3_2ovr30"}, ["no run 'exp3_2ovr30'", "did you mean 'exp3_2over30'"]),
    ("unknown setting", {"set": {f"experiments.{RUN}.stepsize": 1}}, ["grid.yaml (2/30, unit, 0)", f"{RUN}.stepsize:", "did you mean 'step_size'"]),
    ("wrong setting", {"set": {"compute.threads": 0}}, ["grid.yaml (2/30, unit, 0)", "compute.threads: found 0"]),
    ("setting below a number", {"set": {"compute.threads.more": 0}}, ["no setting compute.threads.more", "compute.threads is no mapping"]),
    ("wrong value", {"vary": {"width": {"path": f"experiments.{RUN}.model.width", "values": {"a": 4, "b": -1}}}, "pooled": [], "published": []}, ["grid.yaml (b)", "model.width: found -1"]),
    ("unknown pooled axis", {"pooled": ["sead"]}, ["grid.yaml", "sead"]),
    ("unknown published axis", {"published": [SWEEP["published"][0] | {"where": {"step": "2/30"}}]}, ["grid.yaml", "nothing varies by the name of step"]),
    ("unknown published value", {"published": [SWEEP["published"][0] | {"where": {"step size": "2/31"}}]}, ["nothing varies by the name of 2/31"]),
    ("published apart", {"published": [SWEEP["published"][0], SWEEP["published"][0] | {"where": {"seed": "0"}}]}, ["grid.yaml", "the same axes"]),
    ("no level", {"measures": {"x": LOSS | {"statistic": "first_above"}}}, ["measures.x", "neither level nor relative_to"]),
    ("unknown statistic", {"measures": {"x": LOSS | {"statistic": "meen"}}}, ["measures.x", "did you mean 'mean'"]),
    ("unknown quantity", {"measures": {"x": LOSS | {"quantity": "los"}}}, ["measures.x.quantity", "did you mean 'loss'"]),
    ("relative to", {"measures": {"x": LOSS | {"relative_to": "treshold"}}}, ["measures.x.relative_to", "'threshold'"]),
    ("empty window", {"measures": {"x": LOSS | {"window": {}}}}, ["measures.x.window", "either from and/or to"]),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "fragments"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_a_mistake_is_found_before_anything_runs(sections: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        sweeps.run(write(changed(**sections)))
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []
    assert not Path("stages").exists()


def test_a_missing_file_and_a_missing_curve_are_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        sweeps.run(Path("nowhere.yaml"))
    sweep = changed(published=[SWEEP["published"][0] | {"curves": {"loss": "exp3_los"}}])
    with pytest.raises(StoreError, match=r"index\.json does not list 'exp3_los'; did you mean 'exp3_loss_2over"):
        sweeps.run(write(sweep))

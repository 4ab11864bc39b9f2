"""A study: its runs, its table, going on after an interruption, and what it refuses."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from math import log, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from eosrepro.config.load import load, parse, read_params
from eosrepro.config.runs import Run
from eosrepro.config.yaml import read
from eosrepro.errors import ConfigError
from eosrepro.records import store
from eosrepro.records.files import load_table
from eosrepro.stages import build, diagnose, train
from eosrepro.tools import sweeps
from tests.project import ROOT, alone, small_params, write_params
from tests.records import PAPER, curve, published_record

RUN = "exp3_2over30"
STUDY: dict[str, Any] = {
    "run": RUN,
    "set": {"stop": {"max_steps": 6}, "snapshot_every": 3},
    "vary": {
        "step size": {"path": "step_size", "values": {"2/30": "2/30", "2/60": "2/60"}},
        "scale": {"path": "profiles.quick.preprocessing.scale", "values": {"unit": "unit", "16": {"zero": 0, "one": 16}}},
        "seed": {"path": "seed", "values": {"0": 0, "1": 1}},
    },
    "pooled": ["seed"],
    "measures": {
        "loss at 0": {"quantity": "loss", "statistic": "mean", "window": {"from": 0, "to": 0}},
        "last loss": {"quantity": "loss", "statistic": "final"},
        "sharpness": {"quantity": "sharpness", "statistic": "max", "relative_to": "threshold"},
        "onset": {"quantity": "relative_progress", "statistic": "onset"},
    },
    "published": [{"where": {"step size": "2/30"}, "run": RUN}],
}  # fmt: skip
TABLE = Path("stages/studies/grid/table.md")


def params() -> dict[str, Any]:
    """Small runs on digits that are not standardised, so that the scale makes a difference."""
    small = alone(small_params(), "exp3", "exp8", "example1") | {"paper": "paper"}
    small["profiles"]["quick"] |= {
        "data": {"name": "digits", "n_examples": 60},
        "preprocessing": {"scale": "unit", "standardise": "none", "statistics": "subset"},
    }
    return small


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: a project of small runs on digits, with the published curves."""
    write_params(tmp_path, params())
    (tmp_path / "paper").mkdir()
    falls = {"claim": "The loss falls", "quantity": "loss", "statistic": "final", "bound": [None, 2.2]}
    claims = {"statements": {"falls": falls}, "claims": [{"source": "Exp 3", "of": "exp3", "falls": None}]}
    write_params(tmp_path / "paper", claims, "claims.yaml")
    (tmp_path / "paper/curves").symlink_to(PAPER / "curves")
    monkeypatch.chdir(tmp_path)
    sweeps._dataset.cache_clear()
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that MLflow is shown."""
    names: list[str] = []

    def sync_run(name: str, settings: Mapping[str, Any], *_args: Any, **_view: Any) -> bool:
        assert settings["name"] == name
        names.append(name)
        return True

    monkeypatch.setattr(sweeps, "sync_run", sync_run)
    return names


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that are trained."""
    runs: list[Run] = []
    problem = train.problem
    monkeypatch.setattr(train, "problem", lambda run, data: (runs.append(run), problem(run, data))[1])
    return runs


def write(study: dict[str, Any]) -> Path:
    write_params(Path(), study, "grid.yaml")
    return Path("grid.yaml")


def changed(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(STUDY) | sections


def of_two_seeds(**sections: Any) -> dict[str, Any]:
    return changed(vary={"seed": STUDY["vary"]["seed"]}, published=[], **sections)


def table(study: dict[str, Any]) -> pd.DataFrame:
    made = sweeps.run(write(study), jobs=1)
    assert made == TABLE.parent
    return pd.read_csv(made / "table.csv", dtype={"scale": str, "seed": str})


def variant(study: dict[str, Any], *names: str) -> Run:
    parsed = parse(sweeps.Study, study, Path("grid.yaml"))
    declared = sweeps._variant(parsed, load().run(parsed.run), read_params(), names, Path("grid.yaml"))
    (run,) = declared.runs.values()
    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_table_has_a_row_a_variant_and_one_for_the_published_curves(shown: list[str]) -> None:
    made = table(STUDY)
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
    assert shown[0] == "grid_2over30_unit_0"
    assert len({*shown}) == 8

    published = made.iloc[-1]
    assert published[["step size", "source"]].tolist() == ["2/30", "published"]
    assert published["onset"] == 55
    assert published["last loss"] == curve(RUN, "loss")["y"].iloc[-1]
    assert published["sharpness"] == pytest.approx(curve(RUN, "sharpness")["y"].max() / 30)

    # The summary pools the seeds, and lays the published row above ours.
    first, second = TABLE.read_text(encoding="utf-8").split("**step size 2/60**")
    assert first.startswith("**step size 2/30**\n\n| scale | loss at 0 | last loss | sharpness | onset | misfit |\n")
    assert [line.split(" | ")[0] for line in first.splitlines()[4:7]] == ["| published", "| unit", "| 16"]
    assert "published" not in second
    assert "misfit" not in second
    losses = made[(made["step size"] == "2/60") & (made["scale"] == "unit")]["last loss"]
    assert f"{losses.mean():.3g} ({losses.min():.3g}–{losses.max():.3g})" in second


def test_a_variant_is_the_run_that_params_yaml_with_its_settings_declares(folder: Path) -> None:
    vary = {axis: {**STUDY["vary"][axis], "values": {name: STUDY["vary"][axis]["values"][name]}} for axis, name in (("step size", "2/60"), ("scale", "16"), ("seed", "1"))}  # fmt: skip
    (made,) = table(changed(vary=vary, published=[])).to_dict("records")
    written = params()
    written["profiles"]["quick"]["preprocessing"]["scale"] = {"zero": 0, "one": 16}
    written["experiments"]["exp3"] |= {
        "vary": {"step_size": ["2/60"]},
        "seed": 1,
        "stop": {"max_steps": 6},
        "diagnose": {},
    }
    write_params(folder, written)
    run = load().run("exp3_2over60")
    data = build.dataset(run.profile)
    train.into_store(run, data, "by-hand")
    (key,) = diagnose.into_store([run], {run.name: store.STORE / "by-hand"}, data, jobs=1)[run.name].values()
    sharpness = load_table(store.STORE / key / "sharpness.csv")["sharpness"]
    trajectory = load_table(store.STORE / "by-hand/trajectory.csv")
    assert made["loss at 0"] == trajectory["loss"].iloc[0]
    assert made["last loss"] == trajectory["loss"].iloc[6]
    assert made["sharpness"] == pytest.approx(sharpness.max() / 60, rel=1e-15)


def test_published_curves_of_two_runs_make_one_row_where_their_step_sizes_agree() -> None:
    found = sweeps._published(params(), ["exp6_two_hidden_2over30", "exp1_relu"], Path("grid.yaml"))
    assert found.name == "exp6_two_hidden_2over30"
    assert found.sharpness is not None
    assert found.sharpness["sharpness"].max() == curve("exp1_relu", "sharpness")["y"].max()
    pd.testing.assert_series_equal(
        found.trajectory["loss"], published_record("exp6_two_hidden_2over30").trajectory["loss"]
    )
    with pytest.raises(ConfigError, match="exp3_2over30 and exp3_2over60 have different step sizes"):
        sweeps._published(params(), ["exp3_2over30", "exp3_2over60"], Path("grid.yaml"))
    with pytest.raises(ConfigError, match=r"grid\.yaml: published: there are no published curves of 'exp3_2over31'"):
        sweeps.run(write(changed(published=[STUDY["published"][0] | {"run": "exp3_2over31"}])), jobs=1)


def test_the_grid_may_vary_what_is_pooled_alone() -> None:
    assert len(table(of_two_seeds())) == 2
    assert "| ours | " in TABLE.read_text(encoding="utf-8")


def test_an_interrupted_study_goes_on_where_it_stopped(
    folder: Path, trained: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second run is diagnosed: it is not trained again, and what was found on the first is kept."""
    really, looked = diagnose.into_store, list[str]()

    def cut_off(runs: list[Run], *given: Any, **more: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        looked.append(runs[0].name)
        return really(runs, *given, **more)

    study = of_two_seeds()
    with monkeypatch.context() as patch:
        patch.setattr(diagnose, "into_store", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(write(study), jobs=1)
    assert not TABLE.with_suffix(".csv").exists()
    resumed = table(study)
    assert [run.setting.seed for run in trained] == [0, 1]
    assert looked == ["grid_0"]

    complete = tree(folder / "stages")
    sweeps.run(write(study), jobs=1)
    assert len(trained) == 2
    assert tree(folder / "stages") == complete
    assert [name for name in complete if "snapshots" in name] == []

    Path("stages").rename("elsewhere")
    pd.testing.assert_frame_equal(table(study), resumed)


def test_other_settings_or_images_are_new_runs(trained: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    study = of_two_seeds()
    first = table(study)
    # A run keeps no snapshots: to find more on it, it is trained once more, and is what it was.
    finer = of_two_seeds(set=STUDY["set"] | {"diagnose.sharpness.rtol": 1e-4})
    second = table(finer)
    assert len(trained) == 4
    assert second["last loss"].tolist() == first["last loss"].tolist()
    assert (second["sharpness"] != first["sharpness"]).all()
    table(study)
    table(finer)
    assert len(trained) == 4
    really = build.dataset
    monkeypatch.setattr(build, "dataset", lambda profile: replace(really(profile), inputs=-really(profile).inputs))
    sweeps._dataset.cache_clear()
    table(study)
    assert len(trained) == 6


def test_misfit_takes_the_end_for_an_event_that_did_not_come_and_for_nothing_else() -> None:
    study = parse(sweeps.Study, STUDY, Path("grid.yaml"))
    theirs = pd.DataFrame({"loss at 0": [2.0], "last loss": [1.0], "sharpness": [4.0], "onset": [10.0]})
    ours = pd.DataFrame({"steps": [40, 40], "loss at 0": [2.0] * 2, "last loss": [1.0] * 2, "sharpness": [4.0] * 2})
    # One seed came to its onset at 20, the other had none within its 40 iterations: 30 on average, three times theirs.
    assert sweeps._misfit(study, ours.assign(onset=[20.0, nan]), theirs) == pytest.approx(log(3) / 4)
    # A sharpness that was not measured is left out, rather than set to 40.
    unmeasured = ours.assign(onset=10.0, sharpness=nan)
    assert sweeps._misfit(study, unmeasured, theirs) == 0
    assert sweeps._misfit(study, unmeasured.assign(onset=30.0), theirs) == pytest.approx(log(3) / 3)


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_committed_studies_are_valid(file: Path, folder: Path) -> None:
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "papers").symlink_to(ROOT / "papers")
    study = parse(sweeps.Study, read(file, []), file)
    start, written = load().run(study.run), read_params()
    for published in study.published:
        sweeps._published(written, published.run, file)
    first = tuple(next(iter(axis.values)) for axis in study.vary.values())
    last = tuple([*axis.values][-1] for axis in study.vary.values())
    one, other = (sweeps._variant(study, start, written, names, file).runs for names in (first, last))
    assert len(one) == len(other) == 1
    assert one.keys() != other.keys()


def test_what_is_asked_for_is_found_and_nothing_else() -> None:
    measures = {
        "passes 2": {"quantity": "loss", "statistic": "first_above", "level": 2},
        "together": {"quantity": "directional_smoothness", "statistic": "correlation", "against": "sharpness"},
        "apart": {"quantity": "loss", "statistic": "largest_difference", "against": "eigenvalue_2"},
    }
    every_step = {"snapshot_every": 1, "profiles.quick.snapshot_every": 1, "diagnose.sharpness.k": 2}
    made = table(of_two_seeds(set=STUDY["set"] | every_step, measures=measures))
    assert made["passes 2"].tolist() == [0, 0]
    for seed, row in made.set_index("seed").iterrows():
        place = TABLE.parent / f"runs/grid_{seed}"
        assert [path.name for path in (place / "diagnostics").glob("*.csv")] == ["sharpness.csv"]
        trajectory, curvature = pd.read_csv(place / "trajectory.csv"), pd.read_csv(place / "diagnostics/sharpness.csv")
        assert row["together"] == pytest.approx(
            trajectory["directional_smoothness"][:-1].corr(curvature["sharpness"][:-1])
        )
        assert row["apart"] == pytest.approx((trajectory["loss"] - curvature["eigenvalue_2"]).abs().max())
    of_losses = {"last": {"quantity": "loss", "statistic": "final"}}
    assert variant(of_two_seeds(measures=of_losses), "0").diagnose == {}


SGD: dict[str, Any] = {
    "run": "exp8_2over50",
    "set": {
        "stop": {"max_steps": 4},
        "profiles.quick.snapshot_every_epochs": 1,
        "diagnose.expected_progress.every": 2,
    },
    "vary": {
        "order": {"path": "optimizer.order", "values": {"fixed": "fixed", "reshuffled": "reshuffled"}},
        "seed": {"path": ["seed", "optimizer.seed"], "values": {"0": 0, "1": 1}},
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


def test_a_study_takes_the_diagnostics_that_params_yaml_declares_of_its_run() -> None:
    made = table(SGD).set_index(["order", "seed"])
    assert made.notna().all(axis=None)
    found = sorted(TABLE.parent.glob("runs/*/diagnostics/*.csv"))
    assert [path.name for path in found] == ["expected_progress.csv"] * 4
    assert all(pd.read_csv(path)["step"].tolist() == [0, 2, 4] for path in found)
    # The first epoch is the same in both orders; what it leads to is not.
    assert (made.loc["fixed"]["first"] == made.loc["reshuffled"]["first"]).all()
    assert (made.loc["fixed"]["last"] != made.loc["reshuffled"]["last"]).all()


def test_several_settings_vary_together() -> None:
    setting = variant(SGD, "reshuffled", "1").setting
    assert (setting.seed, setting.optimizer.options["seed"], setting.optimizer.options["order"]) == (1, 1, "reshuffled")


def test_a_study_of_a_problem_finds_its_sharpness_and_keeps_no_coordinates() -> None:
    vary = {"η": {"path": "step_size", "values": {"a": "2/39", "b": "2/41"}}}
    sharpness = {"quantity": "sharpness", "statistic": "final"}
    study = {"run": "example1_2over39", "vary": vary, "pooled": [], "measures": {"x": sharpness}}
    assert table(study)["x"].tolist() == [pytest.approx(40), pytest.approx(40)]
    assert variant(study, "b").setting.step_size == Fraction(2, 41)
    study["measures"] = {"x": {"quantity": "abs_theta_1", "statistic": "final"}}
    with pytest.raises(ConfigError, match=r"measures\.x\.quantity: example1_2over39 has no 'abs_theta_1'"):
        sweeps.run(write(study), jobs=1)


LOSS = {"quantity": "loss", "statistic": "final"}
PUBLISHED = STUDY["published"][0]

REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("unknown key", {"varry": {}}, ["grid.yaml: varry", "did you mean 'vary'"]),
    ("nothing varies", {"vary": {}}, ["grid.yaml: vary", "at least 1"]),
    ("unknown run", {"run": "exp3_2ovr30"}, ["no run 'exp3_2ovr30'", "did you mean 'exp3_2over30'"]),
    ("unknown setting", {"set": {"stepsize": 1}}, ["grid.yaml (2/30, unit, 0)", "grid_2over30_unit_0.stepsize:", "did you mean 'step_size'"]),
    ("wrong setting", {"set": {"compute.threads": 0}}, ["grid.yaml (2/30, unit, 0)", "compute.threads: found 0"]),
    ("setting below a number", {"set": {"compute.threads.more": 0}}, ["no setting compute.threads.more", "compute.threads is no mapping"]),
    ("first edition", {"set": {"experiments.exp3_2over30.seed": 0}}, ["grid.yaml (2/30, unit, 0)", "grid_2over30_unit_0.experiments"]),
    ("wrong value", {"vary": {"width": {"path": "model.width", "values": {"a": 4, "b": -1}}}, "pooled": [], "published": []}, ["grid.yaml (b)", "model.width: found -1"]),
    ("unknown pooled axis", {"pooled": ["sead"]}, ["grid.yaml", "sead"]),
    ("unknown published axis", {"published": [PUBLISHED | {"where": {"step": "2/30"}}]}, ["grid.yaml", "nothing varies by the name of step"]),
    ("unknown published value", {"published": [PUBLISHED | {"where": {"step size": "2/31"}}]}, ["nothing varies by the name of 2/31"]),
    ("published apart", {"published": [PUBLISHED, PUBLISHED | {"where": {"seed": "0"}}]}, ["grid.yaml", "the same axes"]),
    ("no level", {"measures": {"x": LOSS | {"statistic": "first_above"}}}, ["measures.x", "neither level nor relative_to"]),
    ("unknown statistic", {"measures": {"x": LOSS | {"statistic": "meen"}}}, ["measures.x", "did you mean 'mean'"]),
    ("unknown quantity", {"measures": {"x": LOSS | {"quantity": "los"}}}, ["measures.x.quantity", "did you mean 'loss'"]),
    ("relative to", {"measures": {"x": LOSS | {"relative_to": "treshold"}}}, ["measures.x.relative_to", "'threshold'"]),
    ("empty window", {"measures": {"x": LOSS | {"window": {}}}}, ["measures.x.window", "either from and/or to"]),
    ("another optimizer", {"run": "exp8_2over50", "measures": {"x": {"quantity": "relative_progress", "statistic": "relation_error"}}}, ["grid.yaml (2/30, unit, 0)", "measures.x: relation_error", "sgd"]),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "fragments"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_a_mistake_is_found_before_anything_runs(sections: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        sweeps.run(write(changed(**sections)), jobs=1)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []
    assert not Path("stages").exists()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        sweeps.run(Path("nowhere.yaml"), jobs=1)

"""A recorded run keeps its own settings, whatever params.yaml says since, and it is told where they differ."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from eosrepro.cli import main
from eosrepro.config.load import load, read_params
from eosrepro.figures import _style
from eosrepro.records import store
from eosrepro.records.dataset import DATA, DATA_SETTINGS, load_dataset
from eosrepro.records.files import load_json, load_table, save_json, sha256
from eosrepro.records.places import FIGURES, REPORT, VERIFY, train_folder
from eosrepro.records.runs import Record, load_origin, load_record
from eosrepro.records.snapshots import last_snapshot
from eosrepro.stages import data as stage
from eosrepro.stages import outdated, track
from eosrepro.stages.data import make_data
from eosrepro.stages.figure import _ingredients
from eosrepro.stages.recorded import recorded
from eosrepro.stages.train import train
from eosrepro.views.mlflow.sync import About
from tests.project import ROOT, small_params, write_params, write_project
from tests.records import PAPER

PROBLEM, GD, SGD = "example4", "exp3_2over30", "exp8_2over50"
EXPERIMENT = {PROBLEM: "example4", "example3_product": "example3", GD: "exp3", SGD: "exp8"}


def params() -> dict[str, Any]:
    """A problem, with the claim and the figure of it, another, and two small networks."""
    written, whole = small_params(), read_params(ROOT / "params.yaml")
    problems = {name: whole["experiments"][name] for name in (PROBLEM, "example3")}
    written["experiments"] = {**problems, **{name: written["experiments"][name] for name in ("exp3", "exp8")}}
    written["figures"] = {name: whole["figures"][name] for name in (PROBLEM, "example3", "exp3")}
    written["figures"][PROBLEM]["title"] = "Example 4 at {step_size}"
    written["figures"]["example3"]["runs"] = {"example3_product": "(θ₁θ₂)²"}
    written["figures"]["exp3"] |= {"runs": [GD], "without": []}
    return written


def with_step_size(value: str) -> dict[str, Any]:
    """The same, and the network of that name at another step size."""
    written = params()
    written["experiments"]["exp3"]["vary"] = {"step_size": {"2over30": value}}
    return written


def write_claims(folder: Path) -> None:
    whole = read_params(PAPER / "claims.yaml")
    whole["claims"] = [
        {"source": "Example 4", "of": PROBLEM, "smoothness_final": {"published": 1, "bound": [0.9999, 1.0001]}},
        {"source": "Example 3", "of": "example3_product", "diverges": None},
        {"source": "Exp 3", "of": GD, "run_length": 951},
    ]
    write_params(folder, whole, "claims.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all of that trained, and no diagnostics taken."""
    folder = tmp_path_factory.mktemp("trained")
    write_project(folder)
    write_claims(folder / "papers/small")
    write_params(folder, params())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(track, "_is_worth_mlflow", lambda _started: False)
        make_data(load())
        for name, experiment in EXPERIMENT.items():
            train(load(), name if experiment == "exp3" else experiment, jobs=1)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(track, "_is_worth_mlflow", lambda _started: False)
    monkeypatch.setenv("EOSREPRO_JOBS", "1")  # to start others takes seconds
    return folder


def changed(folder: Path, setting: str, value: Any) -> None:
    """Set a key of params.yaml and train nothing."""
    written = params()
    *parents, last = setting.split(".")
    entry = written
    for key in parents:
        entry = entry[key]
    entry[last] = value
    write_params(folder, written)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def verdict(claim: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load_json(VERIFY / "claims.json")[claim]
    return found


def folder_of(name: str) -> Path:
    return train_folder(EXPERIMENT[name], name)


# --- run.json ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_run_says_all_that_it_was_made_with() -> None:
    written = json.loads((folder_of(GD) / "run.json").read_text("utf-8"))
    settings = written.pop("settings")
    assert settings == load().run(GD).settings
    assert (settings["name"], settings["step_size"]) == (GD, "2/30")
    assert settings["optimizer"] == {"name": "gd", "weight_decay": 0.0}
    assert settings["stop"] == {"max_steps": 10, "accuracy": 0.95, "loss_above": 100}  # as the profile caps it
    assert settings["snapshot_every"] == 5
    assert settings["compute"]["dtype"] == "float32"
    assert store.holds(written.pop("fingerprint"))
    assert written == {
        "data": "photo-patches, N = 100",
        "data_sha256": load_json(DATA / "provenance.json")["sha256"],
        "counts": "iterations",
        "preconditioned": False,
        "threshold_formula": "2/η",
        "table_sha256": sha256(folder_of(GD) / "trajectory.csv"),
    }
    assert load_origin(folder_of(SGD)).counts == "epochs"
    problem = load_origin(folder_of(PROBLEM))
    assert (problem.data, problem.data_sha256, problem.step_size) == ("", None, Fraction(2, 40))
    assert not (folder_of(GD) / "origin.json").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_a_record_is_loaded_from_its_folder_alone(
    inside: bool, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("diagnose", PROBLEM).exit_code == 0
    if not inside:
        monkeypatch.chdir(tmp_path)
    record = load_record(folder_of(PROBLEM) if inside else project / folder_of(PROBLEM))
    assert (record.name, set(record.thresholds), record.summary["steps"]) == (PROBLEM, {40}, 100)
    assert record.sharpness is not None
    assert record.sharpness["sharpness"].iloc[-1] == pytest.approx(40, rel=1e-2)


@pytest.mark.parametrize("command", ["figure example4", "verify", "report", "compare example4 exp3_2over30", "track"])
def test_a_record_of_an_earlier_version_is_told(command: str, project: Path) -> None:
    place = folder_of(PROBLEM)
    (place / "run.json").rename(place / "origin.json")
    done = run(*command.split())
    said = f"Error: {place} is of an earlier version, without run.json: `dvc repro` trains it anew\n"
    assert (done.exit_code, done.stderr, done.stdout) == (1, said, "")
    (place / "origin.json").unlink()
    assert f"{place}/run.json does not exist: run `dvc repro`" in run(*command.split()).stderr
    assert project.exists()


@pytest.mark.parametrize("step_size", ["two", "2/0", "-1", None, [2, 40]])
@pytest.mark.usefixtures("project")
def test_a_record_without_a_step_size_is_refused(step_size: Any) -> None:
    path = folder_of(PROBLEM) / "run.json"
    written = load_json(path)
    save_json(path, written | {"settings": written["settings"] | {"step_size": step_size}})
    done = run("verify")
    assert done.exit_code == 1
    assert done.stderr == f"Error: {path} does not hold the settings of a run: delete it and run `dvc repro`\n"


@pytest.mark.usefixtures("project")
def test_the_folder_of_another_run_is_not_taken_for_this_one() -> None:
    shutil.copy(folder_of(GD) / "run.json", folder_of(PROBLEM))
    shutil.copy(folder_of(GD) / "trajectory.csv", folder_of(PROBLEM))
    assert run("figure", PROBLEM).stderr.startswith(f"Error: {folder_of(PROBLEM)} holds the run '{GD}': delete it")


# --- params.yaml has another step size --------------------------------------------------------------------------------

OTHER = "trained with step_size 2/40, now 2/20"
WARNING = f"Warning: {PROBLEM}: {OTHER}. This is as it was recorded; `dvc repro` trains anew\n"


def test_a_verdict_is_that_of_the_recorded_run(project: Path) -> None:
    assert run("verify").stderr == ""
    before = verdict("example4_smoothness_final")
    assert (before["verdict"], before["measured"]) == ("holds", pytest.approx(1, abs=1e-4))
    changed(project, f"experiments.{PROBLEM}.step_size", "2/20")
    assert run("verify").stderr == WARNING
    after = verdict("example4_smoothness_final")
    assert after == {**before, "reason": f"{before['reason']}; {OTHER}"}


@pytest.mark.usefixtures("project")
def test_a_figure_is_that_of_the_recorded_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(_style, "save", lambda figure, *_: drawn.append(figure))
    changed(project, f"experiments.{PROBLEM}.step_size", "2/20")
    assert run("figure", PROBLEM).stderr == WARNING
    (figure,) = drawn
    (dashed,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert dashed.get_ydata() == [40, 40]
    assert figure.legends[0].get_texts()[0].get_text() == "η = 2/40"
    assert figure.get_suptitle() == "Example 4 at 2/40"


def test_report_and_compare_show_the_settings_of_the_recorded_run(project: Path) -> None:
    changed(project, f"experiments.{PROBLEM}.step_size", "2/20")
    assert run("report").exit_code == 0
    page = REPORT.read_text("utf-8")
    in_chart = page.replace("\\u002f", "/").replace("\\u03b7", "η")
    assert "2/η, η = 2/40" in in_chart
    assert in_chart.count("2/20") == 1  # in the note
    assert "<dt>step_size</dt><dd>2/40</dd>" in page
    assert f"{PROBLEM}, {OTHER}. Anew" in page
    done = run("compare", PROBLEM, GD, "--json")
    assert done.stderr.startswith(WARNING)
    assert json.loads(done.stdout)["settings"]["step_size"] == {PROBLEM: "2/40", GD: "2/30"}


def test_published_curves_are_laid_under_runs_that_were_trained_at_their_step_size(project: Path) -> None:
    changed(project, "profiles.quick.published", True)
    assert run("diagnose", GD).exit_code == 0

    def sources() -> set[str]:
        assert run("verify").exit_code == run("figure", "exp3").exit_code == 0
        assert "published" not in run("report").stderr
        figure = set(load_table(FIGURES / "exp3/table.csv")["source"])
        assert figure == set(load_table(VERIFY / "runs.csv")["source"])
        return figure

    assert sources() == {"ours", "published"}
    written = with_step_size("2/45")
    written["profiles"]["quick"]["published"] = True
    write_params(project, written)
    assert sources() == {"ours", "published"}
    assert run("train", GD).exit_code == run("diagnose", GD).exit_code == 0
    assert sources() == {"ours"}


def test_mlflow_is_shown_no_run_of_other_settings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Mapping[str, Any]] = []

    def sync_run(_name: str, resolved: Mapping[str, Any], *_args: Any, about: About, **_view: Any) -> bool:
        shown.append({"step_size": resolved["step_size"], "description": about.description})
        return True

    monkeypatch.setattr(track, "sync_run", sync_run)
    assert run("track", PROBLEM).exit_code == 0
    assert shown[0]["step_size"] == "2/40"
    assert "2/40, so that 2/η = 40" in shown[0]["description"]
    changed(project, f"experiments.{PROBLEM}.step_size", "2/20")
    done = run("track", PROBLEM)
    assert done.stderr.startswith(f"Warning: {PROBLEM} was {OTHER}: run `dvc repro`\n")
    assert (done.exit_code, len(shown)) == (1, 1)


def test_a_path_is_drawn_over_the_function_that_it_was_walked_on(project: Path) -> None:
    changed(project, "experiments.example3.vary.problem.product.name", "tanh_product")
    config = load()
    records = {"example3_product": recorded(config.run("example3_product"))}
    made = _ingredients(config, lambda functions: functions, records)
    point = torch.tensor([3.0, 2.0], dtype=torch.float64)
    assert made["functions"]["example3_product"](point) == 36  # (θ₁θ₂)², and not (θ₁ tanh θ₂)²


# --- claims -----------------------------------------------------------------------------------------------------------


def test_whether_a_run_diverges_is_asked_of_the_run_that_is_declared(project: Path) -> None:
    """Cut off after 3 steps, the run has not diverged; that it does so in 400 is not refuted by this."""
    name, claim = "example3_product", "example3_product_diverges"
    changed(project, "experiments.example3.stop.max_steps", 3)
    assert run("train", name).exit_code == 0
    write_params(project, params())
    done = run("verify")
    assert f"Warning: {name}: trained with stop.max_steps 3, now 400" in done.stderr
    found = verdict(claim)
    assert found["verdict"] == "not applicable"
    assert found["reason"].endswith("cut off before it could tell; trained with stop.max_steps 3, now 400")
    assert run("train", name).exit_code == 0
    assert run("verify").stderr == ""
    assert verdict(claim)["verdict"] == "holds"


def test_a_small_run_is_not_judged_as_the_papers_because_the_profile_is_changed(project: Path) -> None:
    written = params()
    written["profile"] = "paper"
    write_params(project, written)
    done = run("verify")
    assert f"Warning: {GD}, {SGD}: " not in done.stderr  # their lengths differ
    assert f"Warning: {GD}: trained with stop.max_steps 10, now 30000" in done.stderr
    found = verdict("exp3_2over30_run_length")
    assert found["verdict"] == "not applicable"
    assert found["reason"].endswith("trained with stop.max_steps 10, now 30000")


# --- other data, other code -------------------------------------------------------------------------------------------


def test_other_data_are_told_before_and_after_they_are_made(project: Path) -> None:
    changed(project, "profiles.quick.data.seed", 1)
    reason = "trained on data made with data.seed 0, now 1"
    assert f"Warning: {GD}, {SGD}: {reason}. This is" in run("verify").stderr
    assert run("data").exit_code == 0
    reason = "trained on other data than stages/data holds"
    assert f"Warning: {GD}, {SGD}: {reason}. This is" in run("verify").stderr


def test_the_same_data_from_another_place_are_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = {"name": "digits", "n_examples": 100, "n_test": 0, "seed": 0, "choose": "random", "classes": None}
    changed(project, "profiles.quick.data", digits)
    assert run("data").exit_code == run("train", GD).exit_code == run("train", SGD).exit_code == 0
    assert run("verify").stderr == ""
    written = load_json(DATA_SETTINGS)
    assert written == {"data": digits, "preprocessing": small_params()["profiles"]["quick"]["preprocessing"]}
    dataset = load_dataset(DATA)
    monkeypatch.setattr(stage, "dataset", lambda _profile: dataset)  # 16 levels, in whatever file they lie
    changed(project, "profiles.quick.data", digits | {"seed": 3})
    assert run("data").exit_code == 0
    assert run("verify").stderr == ""


def test_other_code_is_told(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setattr(outdated, "fingerprint", lambda *_: "of tomorrow")
    reason = "trained by other code than today's"
    assert (
        run("figure", PROBLEM).stderr
        == f"Warning: {PROBLEM}: {reason}. This is as it was recorded; `dvc repro` trains anew\n"
    )
    assert project.exists()


# --- diagnostics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "setting", "value", "wanted"),
    [
        (f"diagnose {PROBLEM}", f"experiments.{PROBLEM}.step_size", "2/20", f"{PROBLEM} was {OTHER}: `dvc repro train@example4` trains it"),
        (f"diagnose {PROBLEM}", f"experiments.{PROBLEM}.problem.curvatures", [20, 2], "problem.curvatures [20.0, 1.0], now [20.0, 2.0]"),
        (f"diagnose {GD}", "experiments.exp3.model.activation", "relu", "model.activation tanh, now relu"),
        (f"diagnose {GD}", "experiments.exp3.loss.name", "mse", "loss.name cross_entropy, now mse"),
        (f"diagnose {GD}", "experiments.exp3.vary.step_size", {"2over30": "2/45"}, "step_size 2/30, now 2/45: `dvc repro train@exp3`"),
        ("diagnose exp8", "experiments.exp8.vary.step_size", {"2over50": "2/45"}, "step_size 2/50, now 2/45"),
        (f"diagnose {SGD}", "experiments.exp8.optimizer.batch_size", 16, "optimizer.batch_size 32, now 16"),
        (f"diagnose {SGD}", "experiments.exp8.optimizer.seed", 1, "optimizer.seed 0, now 1"),
    ],
)  # fmt: skip
def test_a_diagnostic_refuses_the_settings_of_another_run(
    command: str, setting: str, value: Any, wanted: str, project: Path
) -> None:
    changed(project, setting, value)
    done = run(*command.split())
    assert done.exit_code == 1
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "stages/diagnostics").exists()


def test_a_diagnostic_refuses_other_data_than_the_run_was_trained_on(project: Path) -> None:
    changed(project, "profiles.quick.data.seed", 1)
    assert run("data").exit_code == 0
    done = run("diagnose", GD)
    assert done.exit_code == 1
    assert f"{GD} was trained on other data than stages/data holds: `dvc repro train@exp3`" in done.stderr
    assert not (project / "stages/diagnostics").exists()


def test_a_diagnostic_may_be_computed_otherwise(project: Path) -> None:
    changed(project, "compute.chunk_size", 7)
    assert run("diagnose", GD).exit_code == 0


def test_what_was_measured_at_another_step_size_is_not_taken_for_this_run(project: Path) -> None:
    """Its one snapshot, θ₀, is the same; the step from there is not."""

    def at(step_size: str) -> Record:
        written = with_step_size(step_size)
        written["profiles"]["quick"]["snapshot_every"] = 20
        write_params(project, written)
        assert run("train", GD).exit_code == 0
        return load_record(folder_of(GD))

    first = at("2/30")
    assert run("diagnose", GD).exit_code == 0
    measured = load_record(folder_of(GD)).measured["tau_scan"].table
    progress = first.trajectory["relative_progress"][0]
    assert measured["relative_progress_of_step"].tolist() == [pytest.approx(progress, rel=1e-4)]
    second = at("2/3")
    assert last_snapshot(first.snapshots) == last_snapshot(second.snapshots)
    assert second.measured == {}
    assert run("diagnose", GD).exit_code == 0
    measured = load_record(folder_of(GD)).measured["tau_scan"].table
    assert second.trajectory["relative_progress"][0] != pytest.approx(progress, rel=1e-2)
    progress = second.trajectory["relative_progress"][0]
    assert measured["relative_progress_of_step"].tolist() == [pytest.approx(progress, rel=1e-4)]

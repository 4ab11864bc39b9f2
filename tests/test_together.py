"""Runs that are trained together: their rows beside those of each by itself, and studies that train theirs so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib.colors import LogNorm
from torch import Tensor, nn

from eosrepro.config.load import load
from eosrepro.core import together
from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.together import minimise_together, refuse_unless_batched
from eosrepro.core.training import minimise, outcome
from eosrepro.core.types import Dataset, Row, Stop
from eosrepro.errors import ConfigError, DataError
from eosrepro.figures import _style
from eosrepro.figures._map import heat_map
from eosrepro.losses.mse import mse
from eosrepro.models.mlp import mlp
from eosrepro.optimizers.gd import gd
from eosrepro.problems.product import product
from eosrepro.records import store
from eosrepro.records.files import load_json
from eosrepro.records.identity import batched_settings, fingerprint
from eosrepro.stages import batched, train
from eosrepro.tools import sweeps
from eosrepro.views.mlflow.connection import connect
from tests.conftest import small_dataset, small_problem
from tests.project import alone, small_params, write_params
from tests.test_device import Transfers, transfers  # noqa: F401

# Differences of numbers that nearly cancel: they are held to the size of what they are of.
CANCELLING = ("relative_progress", "directional_smoothness")


def of_numbers(dtype: torch.dtype, *, reduce_inputs: bool = False) -> tuple[Objective, Tensor]:
    """A regression; in the row space of its inputs it has 6 instead of 9 a unit."""
    images = small_dataset(6 if reduce_inputs else 40)
    targets = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(5))
    made = network_problem(
        partial(mlp, width=6, depth=2),
        mse(),
        Dataset(images.inputs, targets, 3, "numbers"),
        seed=0,
        dtype=dtype,
        device="cpu",
        chunk_size=40,
        reduce_inputs=reduce_inputs,
    )
    assert (made[0].row_space is not None) == reduce_inputs
    return made


def toy(dtype: torch.dtype) -> tuple[Objective, Tensor]:
    objective, start = function_problem(product(), [1.3, 0.3])
    return objective, start.to(dtype)


PROBLEMS: dict[str, Any] = {
    "toy": toy,
    "cross entropy": lambda dtype: small_problem(dtype=dtype),
    "ReLU": lambda dtype: small_problem("relu", dtype=dtype),
    "chunks": lambda dtype: small_problem(dtype=dtype, chunk_size=15),
    "mse of numbers": of_numbers,
    "row space": partial(of_numbers, reduce_inputs=True),
}
STEP_SIZES = [0.02, 0.05, 0.1, 0.3]


def by_itself(objective: Objective, start: Tensor, step_size: float, stop: Stop) -> list[Row]:
    return list(minimise(objective, start, gd(step_size=step_size), stop=stop))


def starts_near(start: Tensor, n: int) -> Tensor:
    noise = torch.randn(n, len(start), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return start + 0.05 * noise.to(start)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["64", "32"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_rows_are_those_of_each_run_by_itself(problem: str, dtype: torch.dtype, rel: float) -> None:
    objective, start = PROBLEMS[problem](dtype)
    starts, stop = starts_near(start, len(STEP_SIZES)), Stop(15)
    found = minimise_together(objective, starts, STEP_SIZES, stop=stop)
    for begins, step_size, ours in zip(starts, STEP_SIZES, found, strict=True):
        expected = by_itself(objective, begins, step_size, stop)
        assert len(ours) == len(expected) == 16
        for one, other in zip(ours, expected, strict=True):
            assert one.columns.keys() == other.columns.keys()
            steady, of_differences = (
                {key: value for key, value in row.columns.items() if key not in CANCELLING} for row in (one, other)
            )
            assert steady == pytest.approx(of_differences, rel=rel, abs=0, nan_ok=True)
            wide = 1e-9 if dtype == torch.float64 else 5e-3
            assert one.relative_progress == pytest.approx(other.relative_progress, abs=wide, nan_ok=True)
            smooth = wide * other.stability_threshold
            assert one.directional_smoothness == pytest.approx(other.directional_smoothness, abs=smooth, nan_ok=True)


def test_runs_end_when_and_as_each_by_itself_does() -> None:
    """One reaches its accuracy, one passes the bound, and the others take all their steps."""
    objective, start = small_problem()
    starts = torch.stack([start, start, start, 1.2 * start])
    step_sizes, stop = [0.05, 1.0, 2000.0, 1.0], Stop(40, accuracy=0.8, loss_above=50)
    ends = ends_as_by_itself(objective, starts, step_sizes, stop)
    assert {reason for reason, _ in ends} == {"accuracy", "max_steps", "diverged"}
    assert ends[2] == ("diverged", 1)
    at_start = Stop(40, accuracy=objective.value(start)[1])
    assert ends_as_by_itself(objective, starts[:2], [0.05, 1.0], at_start) == [("accuracy", 0)] * 2


def test_runs_that_overflow_end_at_their_last_finite_iterate() -> None:
    objective, start = toy(torch.float64)
    starts, step_sizes = torch.stack([start, 10 * start, 1e3 * start]), [0.02, 1.0, 1e300]
    ends = ends_as_by_itself(objective, starts, step_sizes, Stop(40))
    assert [reason for reason, _ in ends] == ["max_steps", "diverged", "diverged"]
    assert 0 == ends[2][1] < ends[1][1] < 40


def ends_as_by_itself(
    objective: Objective, starts: Tensor, step_sizes: list[float], stop: Stop
) -> list[tuple[str, int]]:
    """How they end, and when."""
    found = minimise_together(objective, starts, step_sizes, stop=stop)
    ours = [outcome(rows[-1], stop) for rows in found]
    own = [outcome(by_itself(objective, *each, stop)[-1], stop) for each in zip(starts, step_sizes, strict=True)]
    assert [(end.reason, end.steps) for end in ours] == [(end.reason, end.steps) for end in own]
    assert [[row.step for row in rows] for rows in found] == [[*range(end.steps + 1)] for end in ours]
    return [(end.reason, end.steps) for end in ours]


def test_a_step_too_small_for_its_parameters_is_lost_here_too() -> None:
    objective, start = small_problem(dtype=torch.float32)
    (rows,) = minimise_together(objective, start[None], [1e-9], stop=Stop(3))
    expected = by_itself(objective, start, 1e-9, Stop(3))
    assert [repr(row.directional_smoothness) for row in rows] == ["nan"] * 4
    assert [repr(row.directional_smoothness) for row in expected] == ["nan"] * 4


def test_a_step_of_all_runs_reads_numbers_once(transfers: Transfers) -> None:  # noqa: F811
    objective, start = small_problem()
    counted: list[int] = []
    transfers.count = 0

    def on_step(_step: int, _n_runs: int) -> None:
        counted.append(transfers.count)

    minimise_together(objective, starts_near(start, 5), [0.1] * 5, stop=Stop(10), on_step=on_step)
    assert {after - before for before, after in pairwise(counted)} == {1}
    assert counted[0] == 1


def test_what_no_run_could_begin_with_is_refused() -> None:
    objective, start = small_problem()
    with pytest.raises(ConfigError, match=r"above loss_above = 0\.1"):
        minimise_together(objective, start[None], [0.1], stop=Stop(3, loss_above=0.1))
    with pytest.raises(DataError, match="the loss at initialisation is nan"):
        minimise_together(objective, torch.stack([start, start * torch.nan]), [0.1] * 2, stop=Stop(3))
    numbers, start = of_numbers(torch.float64)
    with pytest.raises(ConfigError, match=r"stop at an accuracy of 0\.5, and has none"):
        minimise_together(numbers, start[None], [0.1], stop=Stop(3, accuracy=0.5))


def test_batch_statistics_that_are_kept_cannot_be_batched() -> None:
    refuse_unless_batched(small_problem()[0])
    data = small_dataset()
    for keeps in (False, True):
        norm = nn.BatchNorm1d(6, track_running_stats=keeps)
        model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), norm, nn.Tanh(), nn.Linear(6, 3))
        loss = nn.functional.cross_entropy
        objective = Objective.of(model, loss, data.inputs, data.targets, batch_statistics="whole")
        if not keeps:
            refuse_unless_batched(objective)
            continue
        with pytest.raises(ConfigError, match=r"cannot be evaluated together by torch\.func\.vmap"):
            refuse_unless_batched(objective)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([1.0, 3.0, 5.0, 7.0, nan, nan], (2.0, 6.0)),  # means of pairs; the last cell is not known
        ([1.0] * 6, None),
        ([nan] * 6, None),
        ([0.01, 0.03, 20.0, 40.0, 1.0, 1.0], (0.02, 30.0)),
        ([-1.0, 1.0, 0.0, 2.0, 5.0, 5.0], (0.0, 5.0)),
    ],
    ids=["averaged", "equal", "unknown", "decades", "signs"],
)
def test_a_map_shows_means(values: list[float], limits: tuple[float, float] | None, tmp_path: Path) -> None:
    table = pd.DataFrame({"x": ["a", "a", "b", "b", "long name", "long name"], "y": ["c"] * 6, "m": values})
    figure = heat_map(table, {"x": ["a", "b", "long name"], "y": ["c"]}, "m", title="Title", data_label="data")
    axis, bar = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), bar.get_ylabel()) == ("x", "y", "m")
    assert [text.get_text() for text in axis.get_xticklabels()] == ["a", "b", "long name"]
    (cells,) = axis.collections
    shown, expected = cells.get_array(), table.groupby("x", sort=False)["m"].mean().to_numpy(float)
    assert shown is not None
    assert shown.filled(nan).flatten().tolist() == pytest.approx(expected.tolist(), nan_ok=True)
    if limits:
        assert cells.get_clim() == pytest.approx(limits)
        assert isinstance(cells.norm, LogNorm) == (limits[1] == 30)
    _style.save(figure, tmp_path / "map.png", tmp_path / "map.svg")


# --- studies ----------------------------------------------------------------------------------------------------------

STUDY: dict[str, Any] = {
    "run": "exp3_2over30",
    "batched": True,
    "set": {"stop": {"max_steps": 6}},
    "vary": {
        "width": {"path": "model.width", "values": {"6": 6, "8": 8}},
        "step size": {"path": "step_size", "values": {"2/30": "2/30", "2/60": "2/60"}},
        "seed": {"path": "seed", "values": {"0": 0, "1": 1}},
    },
    "pooled": ["seed"],
    "measures": {"last loss": {"quantity": "loss", "statistic": "final"}},
    "map": {"x": "step size", "y": "width", "measure": "last loss"},
}
FOLDER = Path("stages/studies/grid")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    small = alone(small_params(), "exp3", "exp8", "example1")
    small["profiles"]["quick"]["data"] = {"name": "digits", "n_examples": 60}
    write_params(tmp_path, small)
    monkeypatch.chdir(tmp_path)
    sweeps._dataset.cache_clear()
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, Any]]:
    """The runs that MLflow is shown, and their settings."""
    found: dict[str, Mapping[str, Any]] = {}

    def sync_run(name: str, settings: Mapping[str, Any], *_args: Any, **_view: Any) -> bool:
        found[name] = settings
        return True

    monkeypatch.setattr(sweeps, "sync_run", sync_run)
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each batch has that is trained."""
    sizes: list[int] = []
    really = together.minimise_together

    def counted(objective: Objective, starts: Tensor, *given: Any, **more: Any) -> list[list[Row]]:
        sizes.append(len(starts))
        return really(objective, starts, *given, **more)

    monkeypatch.setattr(batched, "minimise_together", counted)
    monkeypatch.setattr(train, "minimise", lambda *_given, **_more: pytest.fail("a run was trained by itself"))
    return sizes


def run(study: Mapping[str, Any]) -> pd.DataFrame:
    write_params(Path(), study, "grid.yaml")
    return pd.read_csv(sweeps.run(Path("grid.yaml"), jobs=1) / "table.csv", dtype={"width": str, "seed": str})


def with_seeds(*seeds: int) -> dict[str, Any]:
    seed = {"path": "seed", "values": {str(each): each for each in seeds}}
    return STUDY | {"vary": STUDY["vary"] | {"seed": seed}}


def keys() -> dict[str, str]:
    return {path.parent.name: load_json(path)["fingerprint"] for path in FOLDER.glob("runs/*/run.json")}


@pytest.mark.usefixtures("project")
def test_a_batched_study_finds_what_the_study_does_and_keeps_it_apart(shown: dict[str, Any]) -> None:
    made = run(STUDY)
    together_keys = keys()
    assert {str(settings["batched"]["runs"]) for settings in shown.values()} == {"4"}
    assert len({settings["batched"]["together"] for settings in shown.values()}) == 2
    assert all(fingerprint(shown[name], sweeps_data().provenance) == key for name, key in together_keys.items())
    assert all((FOLDER / name).stat().st_size > 10_000 for name in ("map.png", "map.svg"))
    assert not [*Path("stages").rglob("*.safetensors")]

    alone_ = run({key: value for key, value in STUDY.items() if key not in ("batched", "map")})
    assert made.drop(columns="last loss").equals(alone_.drop(columns="last loss"))
    assert made["last loss"].tolist() == pytest.approx(alone_["last loss"].tolist(), rel=1e-5)
    assert "batched" not in next(iter(shown.values()))
    assert together_keys.keys() == keys().keys()
    assert not {*together_keys.values()} & {*keys().values()}
    assert all(map(store.holds, [*together_keys.values(), *keys().values()]))


def sweeps_data() -> Dataset:
    return sweeps._dataset(load().active.model_dump_json())


@pytest.mark.usefixtures("project", "shown")
def test_a_batch_is_trained_once_and_anew_with_another_run_in_it(trained: list[int]) -> None:
    first = run(STUDY)
    assert trained == [4, 4]
    before = keys()
    assert run(STUDY).equals(first)
    assert trained == [4, 4]
    shutil.rmtree(store.STORE / before["grid_6_2over30_1"])  # one of them is gone: its batch is trained
    assert run(STUDY).equals(first)
    assert trained == [4, 4, 4]
    assert keys() == before
    run(with_seeds(0, 1, 2))
    assert trained == [4, 4, 4, 6, 6]
    after = keys()
    assert not {*before.values()} & {*after.values()}
    run(with_seeds(1, 0))  # in another order
    assert trained == [4, 4, 4, 6, 6, 4, 4]


def test_what_was_trained_together_and_in_which_order_is_in_the_fingerprint() -> None:
    model = {"name": "mlp"}
    common = {"model": model, "loss": {"name": "mse"}, "optimizer": {"name": "gd"}, "data": {"name": "digits"}}
    one, other, third = (common | {"name": name, "seed": seed} for seed, name in enumerate("abc"))
    data = {"sha256": "0"}
    found = [
        fingerprint(one, data),
        fingerprint(batched_settings([one])[0], data),
        fingerprint(batched_settings([one, other])[0], data),
        fingerprint(batched_settings([other, one])[1], data),
        fingerprint(batched_settings([one, third])[0], data),
    ]
    assert len({*found}) == 5
    elsewhere = [each | {"data": {"name": "imagefolder"}} for each in (one, other)]
    assert fingerprint(batched_settings(elsewhere)[0], data) == found[2]


@pytest.mark.usefixtures("project")
def test_starts_of_a_problem_are_trained_together(shown: dict[str, Any], trained: list[int]) -> None:
    study = {
        "run": "example1_2over39",
        "batched": True,
        "vary": {
            "η": {"path": "step_size", "values": {"2/39": "2/39", "2/41": "2/41"}},
            "θ₁": {"path": "start", "values": {"0": [0.0, 0.1], "1": [0.1, 0.1]}},
        },
        "pooled": [],
        "measures": {"passes 0.3 at": {"quantity": "loss", "statistic": "first_above", "level": 0.3}},
        "map": {"x": "η", "y": "θ₁", "measure": "passes 0.3 at"},
    }
    made = run(study).set_index(["η", "θ₁"])["passes 0.3 at"]
    assert trained == [4]
    assert made.notna().tolist() == [False, True, False, False]
    assert len(shown) == 4


SHARPNESS = {"measures": {"x": {"quantity": "sharpness", "statistic": "max"}}, "map": None}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("sgd", {"run": "exp8_2over50"}, r"grid_6_2over30_0: optimizer\.name is sgd.*Leave `batched` out"),
    ("momentum", {"set": {"optimizer": {"name": "momentum", "beta": 0.9}}}, "optimizer.name is momentum"),
    ("decay", {"set": {"optimizer": {"name": "gd", "weight_decay": 0.1}}}, "optimizer.weight_decay"),
    ("schedule", {"set": {"schedule": {"warm_up": 2}}}, "schedule: "),
    ("observe", {"set": {"observe": {"two_step": {}}}}, r"observe\.two_step: nothing is observed"),
    ("diagnostic", SHARPNESS, r"measures\.x takes the diagnostic sharpness of snapshots"),
    ("map of nothing", {"map": STUDY["map"] | {"measure": "last los"}}, r"map\.measure: .*did you mean 'last loss'"),
    ("map of one axis", {"map": STUDY["map"] | {"x": "width"}}, "map: x, y and those that are pooled should be"),
    ("map without an axis", {"pooled": []}, "map: x, y and those that are pooled should be width, step size, seed"),
]


@pytest.mark.usefixtures("project", "shown")
@pytest.mark.parametrize(("sections", "said"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_what_cannot_be_batched_is_refused_before_anything_runs(sections: dict[str, Any], said: str) -> None:
    changed = {key: value for key, value in (STUDY | sections).items() if value is not None}
    with pytest.raises(ConfigError, match=said):
        run(changed)
    assert not Path("stages").exists()


MODEL = """
import torch
from torch import nn

def {name}(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), {norm}, nn.Tanh(), nn.Linear(6, n_outputs))
            self.register_buffer("scale", {scale})
            self.batch_statistics = "whole"
        def forward(self, x):
            return self.layers(self.scale * x)
    return Model()
"""


@pytest.mark.usefixtures("shown")
def test_models_that_are_another_with_each_seed_or_keep_statistics_are_refused(project: Path) -> None:
    folder = project / "members/models"
    folder.mkdir(parents=True)
    (folder / "keeps.py").write_text(MODEL.format(name="keeps", norm="nn.BatchNorm1d(6)", scale="torch.ones(1)"))
    (folder / "drawn.py").write_text(MODEL.format(name="drawn", norm="nn.Identity()", scale="1 + torch.rand(1)"))
    vary = {axis: STUDY["vary"][axis] for axis in ("step size", "seed")}
    study = {key: value for key, value in STUDY.items() if key != "map"} | {"vary": vary}
    with pytest.raises(ConfigError, match=r"grid_2over30_0: runs of this model cannot be evaluated together"):
        run(study | {"set": STUDY["set"] | {"model": {"name": "keeps"}}})
    with pytest.raises(ConfigError, match="have different objectives: the model holds numbers that are drawn"):
        run(study | {"set": STUDY["set"] | {"model": {"name": "drawn"}}})
    assert not Path("stages").exists()


@pytest.mark.usefixtures("project")
def test_mlflow_says_that_a_run_was_batched(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(empty_store, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{Path('mlflow.db').resolve()}")
    run(STUDY | {"vary": STUDY["vary"] | {"width": {"path": "model.width", "values": {"6": 6}}}})
    client = connect(uri)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {each.data.tags["fingerprint"] for each in found} == {*keys().values()}
    assert {each.data.params["batched.runs"] for each in found} == {"4"}
    assert all(each.inputs.dataset_inputs for each in found)

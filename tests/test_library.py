"""`import eosrepro as eos`: its names, docs/library.md as it stands, and that it has the numbers of the stages."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

import eosrepro as eos
from eosrepro import catalog
from eosrepro.config.load import load
from eosrepro.core.types import Row
from eosrepro.errors import ConfigError, DataError, StoreError
from eosrepro.stages.build import problem
from eosrepro.stages.check import check
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.recorded import data_of
from eosrepro.stages.train import train
from tests.conftest import small_dataset, small_problem
from tests.project import ROOT, alone, small_params, write_params


def objective(dtype: torch.dtype = torch.float64) -> eos.Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    data = small_dataset()
    return eos.Objective.of(model, functional.cross_entropy, data.inputs, data.targets)


def test_the_page_is_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/library.md"
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```pycon\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    said: list[str] = []
    done = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert done.attempted > 20
    assert done.failed == 0, "".join(said)


def test_the_names_are_there_and_cost_nothing_before_they_are_used() -> None:
    program = (
        "import sys, eosrepro as eos\n"
        "print(*eos.__all__, eos.__version__)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'mlflow', 'pydantic'}\n"
        "print(heavy & set(sys.modules))\n"
        "print([name for name in eos.__all__ if not callable(getattr(eos, name))])\n"
        "print({'matplotlib', 'mlflow', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["set()", "[]", "set()"]
    assert set(eos.__all__) <= set(dir(eos))


def test_every_optimizer_is_a_name_and_no_other_is() -> None:
    for name in catalog.names("optimizers"):
        assert getattr(eos, name) is catalog.find("optimizers", name)
        assert getattr(eos, name)(0.1) is not None  # the step size needs no name
    with pytest.raises(AttributeError, match="module 'eosrepro' has no attribute 'adamm'"):
        eos.adamm  # noqa: B018


def test_a_run_is_that_of_the_stages_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"]["vary"] = {"step_size": ["2/30"]}
    write_params(tmp_path, params)
    config = load()
    check(config)
    make_data(config)
    train(config, "exp3", jobs=1)
    diagnose(config, "exp3", jobs=1)
    recorded = eos.load("stages/train/exp3/exp3_2over30")

    declared = config.run("exp3_2over30")
    f, start = problem(declared, data_of([declared]))
    run = eos.minimise(f, optimizer=eos.gd(float(declared.setting.step_size)), steps=10, keep_every=5)
    pd.testing.assert_frame_equal(run.table, recorded.table, check_exact=True)
    assert torch.equal(run.theta, recorded.theta)
    assert torch.equal(f.start, start)
    pd.testing.assert_frame_equal(run.sharpness(), recorded.sharpness(), check_exact=True)
    scan = run.diagnose("tau_scan", n_taus=100, tolerance=1e-4)
    pd.testing.assert_frame_equal(scan, recorded.diagnose("tau_scan"), check_exact=True)
    assert repr(run) == repr(recorded)
    drawn = eos.plot({"mine": run, "theirs": recorded}, ["loss", "sharpness"], title="Both")
    assert drawn.get_suptitle().startswith("Both\nphoto-patches, N = 100")
    with pytest.raises(ConfigError, match="spectrum was not found on this run before it was saved"):
        recorded.diagnose("spectrum")


def test_what_is_kept_is_every_so_many_and_the_last() -> None:
    f = objective()
    run = eos.minimise(f, optimizer=eos.gd(0.5), steps=7, keep_every=3)
    assert [at.step for at in run.snapshots] == [0, 3, 6, 7]
    assert [at.step for at in eos.minimise(f, optimizer=eos.gd(0.5), steps=7).snapshots] == [0, 7]
    assert [at.step for at in eos.minimise(f, optimizer=eos.gd(0.5), steps=0).snapshots] == [0]
    assert torch.equal(run.theta, eos.minimise(f, optimizer=eos.gd(0.5), steps=4, start=run.kept[1].theta).theta)


def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian() -> None:
    f = objective()
    run = eos.minimise(f, optimizer=eos.gd(0.5), steps=5)
    hvp = f.hvp(run.theta)
    dense = torch.stack([hvp(unit) for unit in torch.eye(f.n_params, dtype=torch.float64)])
    found = run.sharpness(k=2, rtol=1e-6).iloc[-1]
    assert [found["sharpness"], found["eigenvalue_2"]] == pytest.approx(
        torch.linalg.eigvalsh(dense).flip(0)[:2].tolist(), rel=1e-5
    )


def test_a_run_ends_as_it_is_told() -> None:
    f = objective()
    assert "accuracy at" in repr(eos.minimise(f, optimizer=eos.gd(1.0), steps=5000, accuracy=0.9))
    assert "diverged at" in repr(eos.minimise(f, optimizer=eos.gd(1e200), steps=50, loss_above=1e6))
    with pytest.raises(ConfigError, match=r"above loss_above = 0\.1"):
        eos.minimise(f, optimizer=eos.gd(0.1), steps=5, loss_above=0.1)
    with pytest.raises(DataError, match="the loss at initialisation is nan"):
        eos.minimise(f, optimizer=eos.gd(0.1), steps=5, start=f.start * torch.nan)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: eos.plot(run, ["sharpness"]), "run has no 'sharpness' yet: call its method diagnose('sharpness')"),
        (lambda run: eos.plot({"a": run}, ["los"]), "a has no 'los'; did you mean 'loss'? (there are: loss, "),
        (lambda run: run.diagnose("expected_progress"), "expected_progress is about runs with minibatches"),
    ],
)
def test_what_a_run_has_not_is_said_in_terms_of_the_library(ask: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3))
    assert words in str(caught.value)
    assert "params.yaml" not in str(caught.value)
    assert "eosrepro " not in str(caught.value)


def test_options_that_sharpness_has_are_as_there_in_other_diagnostics() -> None:
    run = eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3)
    effective = run.diagnose("effective_sharpness")  # which is the sharpness of gradient descent
    assert effective["effective_sharpness"].to_list() == run.sharpness()["sharpness"].to_list()
    asked = {"k": 1, "rtol": 3e-3, "max_products": 200, "audit_every": 10, "seed": 0}
    assert run.record.measured["effective_sharpness"].settings == asked
    assert "effective_eigenvalue_2" in run.diagnose("effective_sharpness", k=2)
    assert len(run.diagnose("alignment")) == 2


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("spectrum", {}, "spectrum needs the options n_probes and n_nodes: diagnose('spectrum', n_probes=..., n_nod"),
        ("spectrum", {"n_nodes": 5}, "spectrum needs the option n_probes: diagnose('spectrum', n_probes=...); see the"),
        ("test_split", {}, "diagnose('test_split', test=eos.Objective.of(model, loss, x_test, y_test))"),
        ("distance", {}, "distance needs the option to: diagnose('distance', to=another_run)"),
        ("sharpness", {"max_product": 9}, "sharpness has no option 'max_product'; did you mean 'max_products'? (there"),
        ("critical_step_size", {"nothing": 9}, "critical_step_size has no option 'nothing'"),
    ],
)
def test_an_option_that_is_missing_or_unknown_is_named(name: str, options: dict[str, Any], words: str) -> None:
    run = eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3)
    with pytest.raises(ConfigError) as caught:
        run.diagnose(name, **options)
    assert words in str(caught.value)


def test_the_test_split_is_an_objective_of_its_own() -> None:
    f = objective()
    found = eos.minimise(f, optimizer=eos.gd(0.5), steps=3).diagnose("test_split", test=f)
    assert found["test_loss"][0] == f.loss(f.start)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD([torch.zeros(1)], lr=0.1), eos.gd, "gd", None])
def test_optimizers_of_others_are_refused_with_those_that_there_are(optimizer: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        eos.minimise(objective(), optimizer=optimizer, steps=3)
    assert f"optimizer is of the type {type(optimizer).__name__}: it should be one of eosrepro" in str(caught.value)
    assert "as eos.gd(0.1) (there are: adam, " in str(caught.value)


def numbers() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A model of three outputs, inputs, and numbers as targets."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(20, 4), torch.randn(20, 3)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", [nn.MSELoss, nn.SmoothL1Loss, nn.CrossEntropyLoss])
def test_a_loss_module_of_pytorch_is_its_function(kind: Any, reduction: str) -> None:
    model, x, y = numbers()
    y = y.argmax(-1) if kind is nn.CrossEntropyLoss else y
    loss = kind(reduction=reduction)
    f = eos.Objective.of(model, loss, x, y)
    assert loss.reduction == reduction
    assert f.loss(f.start) == pytest.approx(kind()(model(x), y).item(), abs=1e-6)
    function = getattr(
        functional, {nn.MSELoss: "mse_loss", nn.SmoothL1Loss: "smooth_l1_loss"}.get(kind, "cross_entropy")
    )
    by_function = eos.Objective.of(model, partial(function, reduction=reduction), x, y)
    assert by_function.loss(f.start) == f.loss(f.start)


def test_weights_of_a_loss_module_are_those_it_had_and_the_mean_is_over_the_examples() -> None:
    model, x, y = numbers()
    classes, loss = y.argmax(-1), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    expected = functional.cross_entropy(model(x), classes, weight=loss.weight, reduction="none").mean().item()
    f = eos.Objective.of(model, loss, x, classes)
    assert loss.weight.dtype == torch.float32
    loss.weight.zero_()
    assert f.loss(f.start) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", [nn.MSELoss(reduction="sum"), partial(functional.mse_loss, reduction="sum")])
def test_a_loss_that_is_reduced_to_a_sum_is_refused(loss: Any) -> None:
    with pytest.raises(ConfigError, match=r"^the loss has reduction='sum', .*: make it 'mean' or 'none'$"):
        eos.Objective.of(*numbers()[:1], loss, *numbers()[1:])


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), functional.mse_loss, functional.l1_loss, lambda z, y: (z - y).square().mean(-1)]
)
def test_targets_that_would_be_broadcast_are_refused_with_both_shapes(loss: Any) -> None:
    model, x, y = numbers()
    model = nn.Sequential(model, nn.Linear(3, 1))
    with pytest.raises(ConfigError) as caught:
        eos.Objective.of(model, loss, x, y[:, 0])
    said = str(caught.value)
    assert "outputs have the shape (n, 1) and the targets (n,)" in said
    assert "y.reshape(-1, 1)" in said
    assert "chunk_size" not in said
    f = eos.Objective.of(model, loss, x, y[:, :1])
    assert f.loss(f.start) == pytest.approx(loss(model(x), y[:, :1]).mean().item(), abs=1e-6)


def test_equal_targets_do_not_hide_that_they_would_be_broadcast() -> None:
    model, x, _ = numbers()
    with pytest.raises(ConfigError, match=r"shape \(n, 1\) and the targets \(n,\)"):
        eos.Objective.of(nn.Sequential(model, nn.Linear(3, 1)), nn.MSELoss(), x, torch.linspace(0, 1, 20).sin() * 0)


def test_a_loss_of_several_numbers_an_example_is_told_to_take_their_sum_or_mean() -> None:
    model, x, y = numbers()
    with pytest.raises(ConfigError, match=r"returns shape \(2, 3\).* Take their sum or mean over each example$"):
        eos.Objective.of(model, lambda z, y: (z - y).square(), x, y)


def test_unknown_diagnostics_and_runs_are_named() -> None:
    run = eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3)
    with pytest.raises(LookupError, match="did you mean 'tau_scan'"):
        run.diagnose("tau_scn")
    with pytest.raises(StoreError, match="nowhere"):
        eos.load("nowhere")


def test_a_function_of_the_core_can_be_minimised_too() -> None:
    f, theta = small_problem()
    run = eos.minimise(f, optimizer=eos.gd(0.5), steps=3, start=theta)
    assert [*run.table] == [*Row(0, *[0.0] * 9).columns]
    assert torch.equal(run.kept[0].theta, theta)


def test_a_bar_is_drawn_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    eos.minimise(objective(), optimizer=eos.gd(0.5), steps=3)
    assert "3/3" in capsys.readouterr().err

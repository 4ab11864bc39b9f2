"""What varies in an experiment: the runs that it makes, what they are named, and what is refused."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from eosrepro.config.families import MOST_RUNS, value_name
from eosrepro.config.load import validate
from eosrepro.config.params import PARAMS
from eosrepro.config.runs import Run
from eosrepro.errors import ConfigError
from tests.project import alone, small_params


def params(vary: Any, **others: Any) -> dict[str, Any]:
    """The small project with exp3 alone, which varies in this."""
    content = alone(small_params(), "exp3")
    exp3 = content["experiments"]["exp3"]
    del exp3["diagnose"]
    exp3 |= {"step_size": "2/30", "vary": vary, **others}
    return content


def runs(vary: Any, **others: Any) -> dict[str, Run]:
    return dict(validate(params(vary, **others), PARAMS).runs)


def message(vary: Any, **others: Any) -> str:
    """What is wrong, without the place of the experiment."""
    with pytest.raises(ConfigError) as caught:
        validate(params(vary, **others), PARAMS)
    return str(caught.value).removeprefix("params.yaml: experiments.exp3.")


@pytest.mark.parametrize("vary", [{}, {"step_size": ["2/30"]}])
def test_what_does_not_vary_is_one_run(vary: dict[str, Any]) -> None:
    (run,) = runs(vary).values()
    assert run.name == ("exp3_2over30" if vary else "exp3")
    assert (run.experiment, run.varied) == ("exp3", {"step_size": "2/30"} if vary else {})


def test_runs_are_all_combinations_the_first_path_slowest() -> None:
    made = runs({"model.activation": ["tanh", "relu"], "step_size": ["2/30", 0.1], "seed": [7]})
    assert list(made) == ["exp3_tanh_2over30_7", "exp3_tanh_0p1_7", "exp3_relu_2over30_7", "exp3_relu_0p1_7"]
    for name, run in made.items():
        assert run.setting.model
        assert run.setting.model.options.items() >= {"width": 8, "activation": name.split("_")[1]}.items()
        assert run.setting.step_size == (Fraction(1, 10) if "0p1" in name else Fraction(2, 30))
        assert run.setting.seed == 7
    assert made["exp3_relu_0p1_7"].varied == {"model.activation": "relu", "step_size": "0.1", "seed": "7"}


def test_named_values_may_be_anything_and_are_called_by_their_names() -> None:
    made = runs(
        {"loss": {"squares": {"name": "mse"}, "cross_entropy": {"name": "cross_entropy"}}, "model.depth": {2: 2}}
    )
    assert list(made) == ["exp3_squares_2", "exp3_cross_entropy_2"]
    assert [run.settings["loss"]["name"] for run in made.values()] == ["mse", "cross_entropy"]
    assert made["exp3_cross_entropy_2"].varied["loss"] == "cross entropy"


def test_a_path_reaches_what_is_not_written_and_what_was_varied_before() -> None:
    other = {"name": "mlp", "width": 4, "depth": 1, "activation": "elu"}
    (run,) = runs(
        {"model": {"small": other}, "model.width": [5], "stop.loss_above": [9]}, stop={"max_steps": 3}
    ).values()
    assert run.settings["model"].items() >= (other | {"width": 5}).items()
    assert run.stop.loss_above == 9
    assert other["width"] == 4


def test_runs_share_nothing_that_one_of_them_could_change() -> None:
    first, second = runs({"step_size": ["2/10", "2/30"]}).values()
    assert first.setting.stop == second.setting.stop
    assert first.setting.stop is not second.setting.stop


@pytest.mark.parametrize(
    ("value", "name"),
    [("2/30", "2over30"), (-0.5, "m0p5"), (1e-7, "1em07"), (1e22, "1e22"), (True, "True"), (3, "3"), ("a b", "a_b")],
)
def test_values_in_names(value: Any, name: str) -> None:
    assert value_name(value) == name


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["2/30"], "vary: found a list of 1, should be a mapping of key paths"),
        (None, "vary: found nothing, should be a mapping of key paths"),
        ({3: [1]}, "vary.3: should be a key path such as model.width"),
        ({None: [1]}, "vary.None: should be a key path such as model.width"),
        ({"seed": 3}, "vary.seed: found 3, should be a list of values, or a mapping of names to values"),
        ({"seed": []}, "vary.seed: found a list of 0, should be a list of values, or a mapping of names to values"),
        ({"seed": {}}, "vary.seed: found a mapping of 0, should be a list of values, or a mapping of names to values"),
        ({"seed": {"a-b": 1}}, "vary.seed: 'a-b' should be made of letters, digits and _: it is a part of names of runs"),
        ({"seed": {"é": 1}}, "vary.seed: 'é' should be made of letters, digits and _: it is a part of names of runs"),
        ({"seed": [""]}, "vary.seed: '' should be made of letters, digits and _: it is a part of names of runs"),
        ({"seed": [1, 2, 1]}, "vary.seed: holds the same value twice"),
        ({"seed": {"1": 3, 1: 4}}, "vary.seed: holds the same value twice"),
        ({"model": [{"name": "mlp", "width": 3}]}, "vary.model: give each value a name, as in {name: value}: it is a part of the names of runs"),
        ({"start": [[0.1, 0.1]]}, "vary.start: give each value a name, as in {name: value}: it is a part of the names of runs"),
        ({"seed.of": [1]}, "vary.seed.of: there is no such key: seed is no mapping"),
        ({"seed.of.all": [1]}, "vary.seed.of.all: there is no such key: seed.of is no mapping"),
        ({"sead": [1]}, "vary.sead: is not a known key; did you mean 'seed'? (allowed: model, loss, seed, problem, start, optimizer, step_size, schedule, stop, snapshot_every, observe, diagnose)"),
        ({"vary.seed": [1]}, "vary.vary.seed: is not a known key"),
        ({"modle.width": [3]}, "vary.modle.width: is not a known key; did you mean 'model'"),
        ({"model.widht": [3]}, "vary.model.widht: is not a known key; did you mean 'width'"),
        ({"model.": [1]}, "vary.model.: is not a known key"),
        ({"model.width": [3, "wide"]}, "vary.model.width: found 'wide', should be a valid integer"),
        ({"model": {"a": {"name": "mlp", "width": 0}}}, "vary.model.width: found 0, should be greater than or equal to 1"),
        ({"model.width": [3], "model": {"a": {"name": "mlp", "width": 4}}}, "vary.model.width: model would replace it in every run: write model first"),
        ({"seed": list(range(101)), "model.width": list(range(1, 101))}, f"vary: makes 10,100 runs, should be at most {MOST_RUNS:,}"),
        ({"stop.accuracy": [0.9], "problem": {"p": {"name": "product"}}}, "holds loss, model, problem, seed: it should hold model, loss and seed (a network), or problem and start (a function)"),
    ],
)  # fmt: skip
def test_what_is_refused(vary: Any, said: str) -> None:
    found = message(vary)
    assert "\n" not in found
    assert found.removeprefix("params.yaml: experiments.exp3: ").startswith(said)


def test_findings_of_several_runs_stand_there_once_each() -> None:
    found = message({"step_size": [0, "2/30", -1], "seed": [1, 2]}, snapshot_every=0).splitlines()
    assert [line.rpartition("experiments.exp3.")[2].partition(", ")[0] for line in found] == [
        "vary.step_size: found 0",
        "snapshot_every: found 0",
        "vary.step_size: found -1",
    ]


@pytest.mark.parametrize("experiment", ["tanh", None, [], 3])
def test_an_experiment_that_is_no_mapping(experiment: Any) -> None:
    content = params({})
    content["experiments"]["exp3"] = experiment
    with pytest.raises(ConfigError, match=r"^params\.yaml: experiments\.exp3: found .*, should be a mapping$"):
        validate(content, PARAMS)

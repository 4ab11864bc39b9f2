"""Runs computed into the store by `farm` and `work`: what `dvc repro` would make, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from click.testing import CliRunner

import eosrepro.tools
from eosrepro.cli import main
from eosrepro.config.load import load, read_params
from eosrepro.errors import EosreproError
from eosrepro.records import presence, resuming, store
from eosrepro.records.places import train_folder
from eosrepro.stages import diagnose, track, train, work
from eosrepro.stages.data import make_data
from eosrepro.tools import farm, hand, listing
from eosrepro.tools.ticket import Answer, Ticket, answer_to, ticket
from tests.project import ROOT, alone, environment, small_params, write_params

TANH = "exp3_2over30"
OFTEN = environment() | {"EOSREPRO_CHECKPOINT_SECONDS": "0.2", "PYTHONPATH": str(ROOT)}
EOSREPRO = (sys.executable, "-c", "from eosrepro.cli import main; main(prog_name='eosrepro')")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: the data, exp3, and a run of exp2 whose sharpness is not found."""
    params = alone(small_params(), "exp2", "exp3")
    params["experiments"]["exp2"]["diagnose"] = {"sharpness": params["diagnose"]["sharpness"] | {"max_products": 1}}
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(track, "_is_worth_mlflow", lambda _started: False)
    monkeypatch.setattr(listing, "entries", lambda _config: [])  # DVC has run nothing here
    make_data(load())
    return tmp_path


def command(*arguments: str) -> tuple[int, str]:
    said = CliRunner().invoke(main, arguments)
    assert said.exception is None or isinstance(said.exception, SystemExit)
    return said.exit_code, said.stdout + "".join(re.findall(r"^Error: .*\n", said.stderr, re.MULTILINE))


def stored() -> dict[str, bytes]:
    """The finished runs, but for the times of their files."""
    files = [path for path in store.STORE.rglob("*") if path.is_file() and path.name != store.FILES]
    return {str(path.relative_to(store.STORE)): path.read_bytes() for path in files}


def by_stages(name: str) -> dict[str, bytes]:
    """The same, as the stages of the pipeline make them one after the other."""
    train.train(load(), name, jobs=1)
    diagnose.diagnose(load(), name, jobs=1)
    return stored()


def no_training(patch: pytest.MonkeyPatch) -> None:
    for module, name in ((train, "minimise"), (diagnose, "_look")):
        patch.setattr(module, name, lambda *_, **__: pytest.fail("it is computed again"))


# --- one run ----------------------------------------------------------------------------------------------------------


def test_work_makes_what_the_stages_would_and_they_find_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("work", "exp3") == (0, f"exp3_2over10 is computed\n{TANH} is computed\n")
    assert not (project / "mlflow.db").exists()
    assert not (project / "stages/train").exists()
    made = stored()
    assert {name.split(".")[1] for name in store.entries() if "." in name} == {"sharpness", "tau_scan"}

    (project / "stages/store").rename(project / "kept")
    assert by_stages("exp3") == made

    no_training(monkeypatch)
    assert command("work", TANH) == (0, f"{TANH} is up to date\n")
    assert by_stages("exp3") == made


def test_what_stands_in_the_way_of_work_is_one_message_and_an_exit_code(project: Path) -> None:
    code, said = command("work", "exp4")
    assert (code, "no experiment and no run 'exp4'" in said) == (2, True)
    code, said = command("work", "exp2")
    assert (code, "Raise max_products" in said) == (1, True)
    with resuming.unfinished(train_folder("exp3", TANH), "key"):
        code, said = command("work", TANH)
    assert (code, "another process works at" in said) == (1, True)
    params = read_params()
    params["profiles"]["quick"]["data"]["n_examples"] = 90
    write_params(project, params)
    said = "Error: stages/data was made with data.n_examples 100, now 90: `dvc repro data` makes it anew\n"
    assert command("work", TANH) == (1, said)
    (project / "stages/data.json").unlink()
    assert command("work", TANH) == (1, "Error: stages/data is not there: `dvc repro data` makes it\n")
    assert command("farm", TANH) == (1, "Error: stages/data is not there: `dvc repro data` makes it\n")


@pytest.mark.usefixtures("project")
def test_a_run_that_another_process_has_finished_meanwhile_is_not_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other was done between our look into the store and our lock."""
    assert command("work", TANH)[0] == 0
    holds, asked = store.holds, set[str]()

    def late(key: str) -> bool:
        first = key not in asked
        asked.add(key)
        return not first and holds(key)

    no_training(monkeypatch)
    monkeypatch.setattr(store, "holds", late)
    config = load()
    work.work(config, config.run(TANH), work.data_now(config, [config.run(TANH)]))
    assert len(asked) == 3
    assert not [*resuming.UNFINISHED.glob("*")]


# --- what a worker is asked -------------------------------------------------------------------------------------------


@pytest.fixture
def asked(project: Path) -> Iterator[Ticket]:
    """A ticket of a farm that is there."""
    assert project
    config = load()
    run = config.run(TANH)
    with presence.present() as here:
        yield ticket(config, read_params(), run, work.data_now(config, [run]), here)


def refusal(asked: Ticket, **changes: Any) -> str:
    answer = answer_to(dataclasses.replace(asked, **changes))
    assert answer.state == "refused"
    assert not [*store.entries()]
    return answer.said


def test_a_worker_with_other_code_or_libraries_refuses(asked: Ticket) -> None:
    assert {"the stages", "torch", "numpy", TANH, "sharpness", "tau_scan"} == asked.made_by.keys()
    for part, found in (("the stages", "other code of the stages"), (TANH, f"other code of {TANH}")):
        said = refusal(asked, made_by={**asked.made_by, part: "0"})
        assert said == f"has {found} (if the code has been changed since the farm began, start the farm again)"
    said = refusal(asked, made_by={**asked.made_by, "torch": "1.0"}, package="/elsewhere/eosrepro")
    assert re.fullmatch(r"has torch \S+ instead of 1.0 \(its eosrepro lies in .*, that of the farm in /else.*\)", said)
    said = refusal(asked, params={**asked.params, "new_section": {}})
    assert said.startswith("does not understand the farm's params.yaml")
    assert refusal(asked, key="0").startswith("finds other data in stages/data")


def test_a_worker_refuses_where_it_does_not_see_the_store_or_the_locks_of_the_farm(
    asked: Ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, word = asked.presence
    assert "not what the farm has just written to its store" in refusal(asked, presence=(name, word[1:]))
    assert "not what the farm has just written to its store" in refusal(asked, presence=("other", word))
    (store.STORE / ".free").write_text(word)
    assert "does not see the locks of the farm" in refusal(asked, presence=(".free", word))
    answer = hand.compute({**dataclasses.asdict(asked), "folder": "/not/there"})
    assert answer["state"] == "refused"
    assert "does not see /not/there" in answer["said"]
    # An edit of params.yaml after the farm began does not reach it.
    (Path(asked.folder) / "params.yaml").write_text("no: yaml: at all")
    monkeypatch.setattr(work, "work", lambda *_: None)
    assert answer_to(asked).state == "done"


def test_a_bug_in_a_member_is_told_with_its_place(project: Path) -> None:
    member = project / "members/losses/mine.py"
    member.parent.mkdir(parents=True)
    member.write_text("def mine():\n    return foo\n", encoding="utf-8")
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"]["loss"] = {"name": "mine"}
    write_params(project, params)
    config = load()
    run = config.run(TANH)
    with presence.present() as here:
        answer = answer_to(ticket(config, read_params(), run, work.data_now(config, [run]), here))
    assert answer.state == "failed"
    assert answer.said.startswith("members/losses/mine.py, line 2: NameError: name 'foo' is not defined (")


def test_whoever_left_a_presence_long_ago_is_forgotten(project: Path) -> None:
    old, young = (project / store.STORE / f".farm.{age}" for age in ("old", "young"))
    old.parent.mkdir()
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    with presence.present() as here:
        assert presence.look(here) == "here"
    assert presence.look(here) == "gone"
    assert [*old.parent.iterdir()] == [young]
    assert store.entries() == []


def test_how_a_process_of_a_worker_ends_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(program: str) -> dict[str, Any]:
        monkeypatch.setattr(hand, "PROGRAM", program)
        return hand.compute({"folder": str(tmp_path)})

    assert answer("import os; os.kill(os.getpid(), 9)")["state"] == "killed"
    crashed = answer("1 / 0")
    assert crashed["state"] == "failed"
    assert crashed["said"].endswith("ZeroDivisionError: division by zero")
    warned = answer("import sys; print('Warning: a\\nb', file=sys.stderr); print('{\"state\": \"done\"}')")
    assert (warned["state"], warned["told"]) == ("done", ["Warning: a"])


# --- all runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(project: Path) -> farm._State:
    assert project
    config = load()
    return farm._State(config, farm.due(config, []))


def test_a_run_that_others_work_at_is_waited_for_and_one_that_they_left_is_begun(state: farm._State) -> None:
    assert state.next(1) == ["exp2_2over300"]
    assert state.next(9) == ["exp3_2over10", TANH]
    with resuming.unfinished(train_folder("exp3", TANH), "key"):
        state.take(TANH, Answer("busy", "another process works at it: wait"))
        assert state.next(9) == []
    assert state.next(9) == [TANH]
    state.take(TANH, Answer("busy", "another process works at it: wait"))
    assert command("work", TANH)[0] == 0
    assert state.next(9) == []
    assert state.ended == {TANH: ""}


def test_a_run_that_is_killed_at_one_place_again_and_again_fails_and_an_interrupted_one_does_not(
    state: farm._State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.next(9)
    for _ in range(9):
        state.take(TANH, Answer("interrupted"))
        assert state.next(9) == [TANH]
    reached = iter([1, 1, 2, 3, 3, 3])
    monkeypatch.setattr(work, "how_far", lambda *_: next(reached))
    for _ in range(5):
        state.take(TANH, Answer("killed", "its worker died"))
        assert state.next(9) == [TANH]
    state.take(TANH, Answer("killed", "its worker died"))
    assert state.failures == [TANH]
    with pytest.raises(EosreproError, match="the worker on node3 has other code"):
        state.take(TANH, Answer("refused", "has other code", host="node3"))


def test_a_farm_computes_all_but_what_fails_and_the_stages_then_nothing(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = load()
    todo = farm.due(config, ["exp2", TANH])
    assert [run.name for run in todo.runs] == ["exp2_2over300", TANH]
    with pytest.raises(EosreproError, match=r"^1 of 2 runs failed: exp2_2over300$"):
        farm.farm(config, read_params(), todo, jobs=2, scheduler_file=None)
    said = capfd.readouterr().err
    assert re.search(r"^Error: exp2_2over300: .*Raise max_products", said, re.MULTILINE)
    assert "farm: run 2/2  running 0  failed 1" in said
    assert [run.name for run in farm.due(config, []).runs] == ["exp2_2over300", "exp3_2over10"]
    assert command("farm", TANH) == (0, "runs: 0 computed, 1 up to date; now `dvc repro` has nothing to train\n")
    assert not (project / "mlflow.db").exists()
    assert not [*store.STORE.glob(".*")]
    made = stored()
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        assert by_stages(TANH) == made
    (project / "stages/store").rename(project / "farmed")
    by_hand = by_stages(TANH)
    assert by_hand == {name: content for name, content in made.items() if name in by_hand}
    assert len({name.partition("/")[0] for name in by_hand}) == 3


def test_a_scheduler_that_is_not_there_is_one_message(project: Path) -> None:
    code, said = command("farm", "exp3", "--scheduler-file", str(project / "s.json"))
    assert code == 2
    assert said.startswith(f"Error: {project / 's.json'} is not there: start `dask scheduler")


@pytest.mark.parametrize(("address", "required"), [("tls://127.0.0.1:1", False), ("tcp://127.0.0.1:1", True)])
def test_a_scheduler_that_encrypts_where_the_farm_does_not_or_the_reverse_is_one_message(
    address: str, required: bool, project: Path
) -> None:
    (project / "s.json").write_text(json.dumps({"type": "Scheduler", "address": address}))
    with dask.config.set({"distributed.comm.require-encryption": required}):
        code, said = command("farm", "exp3", "--scheduler-file", "s.json")
    assert code == 1
    assert said.startswith("Error: the scheduler of s.json and this process do not agree on encryption (")
    assert said.endswith("): both must read the same ~/.config/dask/tls.yaml, see docs/cluster.md\n")


@pytest.mark.usefixtures("project")
def test_dry_prints_names_for_job_scripts() -> None:
    assert command("farm", "--dry", "exp3") == (0, f"exp3_2over10\n{TANH}\n")


@pytest.mark.usefixtures("project")
def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "eosrepro.tools.cluster", raising=False)
    monkeypatch.delattr(eosrepro.tools, "cluster", raising=False)
    code, said = command("farm", "exp3")
    assert (code, "pip install 'eosrepro[farm]'" in said) == (1, True)

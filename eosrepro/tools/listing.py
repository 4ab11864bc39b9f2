"""What params.yaml declares and how far each of it is.

DVC says what is up to date, by the checksums that `dvc repro` goes by. It is asked file by file: `dvc status` itself
reads params.yaml once a stage, which takes most of its time, and refuses to answer while a `dvc repro` runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eosrepro.config.load import read_params
from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.config.values import as_written
from eosrepro.errors import StoreError
from eosrepro.records import resuming
from eosrepro.records.places import CODE, diagnostics_folder, train_folder
from eosrepro.stages.check import digests

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

CHECK_STAGE = "check"  # runs each time; what hangs on it compares the digests in its output

Kind = Literal["experiment", "figure", "other"]
Word = Literal["up to date", "changed", "behind", "never made", "unfinished", "running"]


@dataclass(frozen=True)
class State:
    """What `dvc repro` would find of one stage."""

    word: Word
    detail: str = ""  # what has changed, what it waits for, how far it is

    def __str__(self) -> str:
        return f"{self.word}: {self.detail}" if self.detail else self.word


UNKNOWN = State("never made", "dvc.yaml has no such stage")


@dataclass(frozen=True)
class Entry:
    """An entry of params.yaml and the stages that make what it asks for."""

    kind: Kind
    name: str
    about: str  # its runs
    states: Mapping[str, State]  # by stage, as `dvc repro` takes it


def entries(declared: Config) -> list[Entry]:
    """All experiments and figures, and the stages that are of none of them.

    Raises:
        StoreError: DVC cannot read the project.
    """
    states = _states(declared)
    found = [
        Entry(kind, name, about, {stage: states.get(stage, UNKNOWN) for stage in stages})
        for kind, name, about, stages in _declared(declared)
    ]
    shown = {stage for entry in found for stage in entry.states}
    return found + [Entry("other", stage, "", {stage: states[stage]}) for stage in states if stage not in shown]


def tables(listed: Sequence[Entry]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """The same for a reader: title, head and rows of a table for each kind."""
    heads: Mapping[Kind, list[str]] = {
        "experiment": ["experiment", "runs", "training", "diagnostics"],
        "figure": ["figure", "runs", "state"],
        "other": ["stage", "", "state"],
    }
    for kind, head in heads.items():
        rows = [[entry.name, entry.about, *map(str, entry.states.values())] for entry in listed if entry.kind == kind]
        if rows:
            yield f"{len(rows)} {head[0]}{'s' * (len(rows) > 1)}", head, rows


def as_records(listed: Iterable[Entry]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {
            "kind": entry.kind,
            "name": entry.name,
            "about": entry.about,
            "stages": {stage: vars(state) for stage, state in entry.states.items()},
        }
        for entry in listed
    ]


def in_git(folder: Path) -> bool:
    """Whether it lies in a git repository."""
    return any((parent / ".git").exists() for parent in [folder.resolve(), *folder.resolve().parents])


@contextmanager
def project() -> Iterator[Repo]:
    """The project as DVC reads it.

    Raises:
        StoreError: DVC cannot read it, here or in the block.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo() as repo:
            yield repo
    except (DvcException, SCMError) as error:
        remedies = {
            NotDvcRepoError: ": run `dvc init`, or in a folder without git `dvc init --no-scm`",
            SCMError: ": run `git init`, or to go on without git `dvc config --local core.no_scm true`",
        }
        remedy = next((said for kind, said in remedies.items() if isinstance(error, kind)), "")
        raise StoreError(f"DVC cannot read this project ({' '.join(str(error).split())}){remedy}") from None


def _declared(declared: Config) -> Iterator[tuple[Kind, str, str, list[str]]]:
    for name, family in declared.experiments.items():
        runs = declared.select(name)
        about = f"{len(family)} run{'s' * (len(family) > 1)}: {', '.join(_what(run) for run in runs)}"
        yield "experiment", name, about, [f"train@{name}", f"diagnose@{name}"]
    for name, figure in declared.drawn.items():
        yield "figure", name, ", ".join(figure.runs), [f"figure@{name}"]


def _what(run: Run) -> str:
    """What tells a run from the others of its experiment."""
    return ", ".join(run.varied.values()) or f"η = {as_written(run.setting.step_size)}"


def _unfinished(declared: Config) -> dict[str, list[Path]]:
    """By stage, what `resuming` knows its unfinished work by."""
    found: dict[str, list[Path]] = {}
    for run in declared.runs.values():
        found.setdefault(f"train@{run.experiment}", []).append(train_folder(run.experiment, run.name))
        folder = diagnostics_folder(run.experiment, run.name)
        found.setdefault(f"diagnose@{run.experiment}", []).extend(folder / each for each in run.diagnose)
    return found


def _states(declared: Config) -> dict[str, State]:
    """Of all stages of the pipeline."""
    standings = resuming.standings()
    with project() as repo:
        stages, graph = repo.index.stages, repo.index.graph
        contents = {"params.yaml": read_params(), str(CODE): digests(declared)}
        own = {stage.addressing: _own_state(stage, contents) for stage in stages}
        for stage, places in _unfinished(declared).items():
            open_ = [standings[name] for name in (resuming.place_of(each).name for each in places) if name in standings]
            if stage in own and own[stage].word != "up to date" and open_:
                own[stage] = _going_on(open_[-1])
        inputs = {stage.addressing: [each.addressing for each in graph.successors(stage)] for stage in stages}
        return {stage: _after_others(stage, own, _needs(stage, inputs)) for stage in own}


def _needs(stage: str, inputs: Mapping[str, list[str]]) -> list[str]:
    """The stages that one hangs on, the nearest first."""
    found = dict.fromkeys(inputs[stage])
    waiting = [*found]
    for each in waiting:
        new = [one for one in inputs[each] if one not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return waiting


def _own_state(stage: Stage, contents: Mapping[str, Any]) -> State:
    if stage.addressing == CHECK_STAGE:
        return State("up to date")
    if not any(entry.hash_info for entry in (*stage.deps, *stage.outs)):
        exists = stage.outs and all(out.exists for out in stage.outs)
        return State("changed", "made without `dvc repro`") if exists else State("never made")
    changes = [*_changes(stage, contents)]
    return State("changed", ", ".join(changes)) if changes else State("up to date")


def _changes(stage: Stage, contents: Mapping[str, Any]) -> Iterator[str]:
    from dvc.dependency.param import ParamsDependency

    if stage.changed_stage():
        yield "its command"
    for entry in (*stage.deps, *stage.outs):
        if isinstance(entry, ParamsDependency):
            recorded = entry.hash_info.value or {}
            now = contents[entry.def_path]
            yield from (key for key in entry.params if _at(now, key) != recorded.get(key))
        else:
            yield from (path if how == "modified" else f"{path} {how}" for path, how in entry.status().items())


def _at(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _going_on(standing: resuming.Standing) -> State:
    where = "" if standing.step is None else f"at iteration {standing.step:,}"
    return State("running" if standing.running else "unfinished", where)


def _after_others(stage: str, own: Mapping[str, State], needs: Iterable[str]) -> State:
    """A stage whose own files are as they were is still behind where one that it hangs on is to run again."""
    if own[stage].word != "up to date":
        return own[stage]
    open_ = [each for each in needs if own[each].word != "up to date" and each != CHECK_STAGE]
    return State("behind", f"after {open_[-1]}") if open_ else own[stage]

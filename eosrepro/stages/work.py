"""One run with its diagnostics into the store, where `dvc repro` finds it: the unit of work of `eosrepro farm`.

It needs params.yaml, stages/data and the store; no DVC and no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.core.later import torch
from eosrepro.core.types import Dataset
from eosrepro.errors import StoreError
from eosrepro.records import code, resuming, store
from eosrepro.records.dataset import DATA, DATA_SETTINGS
from eosrepro.records.identity import code_version, fingerprint, members_of
from eosrepro.records.places import diagnostics_folder, train_folder
from eosrepro.stages import diagnose, train
from eosrepro.stages.outdated import data_differences, in_words
from eosrepro.stages.recorded import data_of, provenance_of

LIBRARIES = ("torch", "numpy")
REMEDY = "`dvc repro data` makes it"


def data_now(config: Config, runs: Sequence[Run]) -> Dataset | None:
    """The data that runs are trained on.

    Raises:
        StoreError: stages/data is missing, altered, or not what params.yaml says now.
    """
    if not any(run.has_examples for run in runs):
        return None
    if not (DATA_SETTINGS.exists() and (DATA / "provenance.json").exists()):
        raise StoreError(f"{DATA} is not there: {REMEDY}")
    if changed := data_differences(config.active):
        raise StoreError(f"{DATA} was made with {in_words(changed)}: {REMEDY} anew")
    return data_of(runs)


def key_of(run: Run, data: Dataset | None) -> str:
    """Its fingerprint: of a training on these data, its entry in the store."""
    return fingerprint(run.settings, provenance_of(data if run.has_examples else None))


def is_done(config: Config, run: Run, data: Dataset | None) -> bool:
    """Whether the store holds the run, and all that diagnostics find on it."""
    keys = [key_of(each, data) for each in (run, *_looked_at_beside(config, run))]
    if not all(store.holds(key) for key in keys):
        return False
    trained = store.STORE / keys[0]
    besides = _besides(config, run, data)
    return all(store.holds(diagnose.entry_of(run, each, trained, besides)) for each in run.diagnose)


def is_at_work(config: Config, run: Run) -> bool:
    """Whether a process works at it now, or at a run that its diagnostics need."""
    return any(map(resuming.is_at_work, _results(config, run)))


def how_far(config: Config, run: Run) -> tuple[int | None, ...]:
    """The last iteration that is kept of each part of it that is not finished."""
    standings = resuming.standings()
    places = [resuming.place_of(result).name for result in _results(config, run)]
    return tuple(standings[place].step for place in places if place in standings)


def _results(config: Config, run: Run) -> list[Path]:
    """Where stages put what `work` makes: by that it is known while it is made."""
    trained = [train_folder(each.experiment, each.name) for each in (run, *_looked_at_beside(config, run))]
    return trained + [diagnostics_folder(run.experiment, run.name) / each for each in run.diagnose]


def work(config: Config, run: Run, data: Dataset | None) -> None:
    """Train a run and take its diagnostics, unless the store holds them.

    Raises:
        BusyError: another process works at it.
    """
    for each in (run, *_looked_at_beside(config, run)):
        train.into_store(each, data if each.has_examples else None, key_of(each, data))
    trained = {run.name: store.STORE / key_of(run, data)}
    diagnose.into_store([run], trained, data, jobs=1, besides=_besides(config, run, data))


def made_by(config: Config, run: Run) -> dict[str, str]:
    """What two processes must agree in so that each makes what the other would: part → its digest or version."""
    found = {"the stages": code.digest_of([__name__]), "torch": torch.__version__, "numpy": np.__version__}
    for each in (run, *_looked_at_beside(config, run)):
        found[each.name] = code_version(each.settings)
    return found | {each: code.diagnostic_code(each, members_of(run.settings)) for each in run.diagnose}


def _looked_at_beside(config: Config, run: Run) -> list[Run]:
    """The runs that its diagnostics hold it to."""
    names = dict.fromkeys(each.to for each in run.diagnose.values() if each.to is not None)
    return [config.run(name) for name in names]


def _besides(config: Config, run: Run, data: Dataset | None) -> Mapping[str, diagnose.Beside]:
    return {
        other.name: diagnose.Beside(other, store.STORE / key_of(other, data))
        for other in _looked_at_beside(config, run)
    }

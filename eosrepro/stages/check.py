"""Stage `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eosrepro.config.params import Config
from eosrepro.records import code, identity
from eosrepro.records.files import save_json
from eosrepro.records.places import CODE, FIGURES, diagnostics_folder, train_folder


def check(config: Config) -> None:
    """Stage `check`: digests of the code behind every experiment and figure, for the other stages to depend on."""
    # Stages depend on these, also where there are no experiments, no figures and no curves.
    curves = [Path(config.paper, "curves")] if config.paper else []
    for folder in (train_folder(""), diagnostics_folder(""), FIGURES, *curves):
        folder.mkdir(parents=True, exist_ok=True)
    save_json(CODE, digests(config))


def digests(config: Config) -> dict[str, Any]:
    """Of the code behind each stage, as DVC looks them up: `train.exp3.exp3_2over30`."""
    train: dict[str, Any] = {}
    diagnose: dict[str, Any] = {}
    for run in config.runs.values():
        train.setdefault(run.experiment, {})[run.name] = code.training_code(identity.members_of(run.settings))
        diagnose.setdefault(run.experiment, {})[run.name] = {
            each: code.diagnostic_code(each, identity.members_of(run.settings)) for each in run.diagnose
        }
    figures = {name: code.figure_code(figure.name) for name, figure in config.figures.items()}
    views = {stage: code.stage_code(stage, {}) for stage in ("verify", "report", "track")}
    views["data"] = code.stage_code("data", {"data": [config.active.data.name]})
    return {"train": train, "diagnose": diagnose, "figure": figures, **views}

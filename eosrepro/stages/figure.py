"""Stage `figure`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eosrepro import catalog
from eosrepro.config.members import Member
from eosrepro.config.params import Config
from eosrepro.core.types import Function
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.files import remove_leftovers, save_table
from eosrepro.records.places import FIGURES
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.build import member
from eosrepro.stages.recorded import published_curves, recorded, worded_figure


def draw(config: Config, name: str) -> Path:
    """Stage `figure`: one figure from recorded tables, as PNG and SVG, with the table it shows."""
    from eosrepro.figures._style import nothing_to_draw, save

    if name not in config.figures:
        raise ConfigError(f"params.yaml has no figure {name!r}{catalog.did_you_mean(name, list(config.figures))}")
    figure = config.drawn[name]
    function = catalog.find("figures", figure.name)
    records = {run: recorded(config.run(run)) for run in figure.runs}
    outdated.warn(config, records.values())
    worded = worded_figure(config, figure, records)
    if records:
        drawn, table = function(**_ingredients(config, function, records), runs=worded.runs, **worded.options)
    else:  # those that it names are not among the values that vary now
        declared = config.figures[name]
        missing = ", ".join(declared.runs) or f"of {declared.of} but {', '.join(declared.without)}"
        drawn, table = nothing_to_draw(worded.options.get("title", name), f"there is no run {missing} now")
    folder = FIGURES / name
    remove_leftovers(folder)
    save(drawn, folder / f"{name}.png", folder / f"{name}.svg")
    save_table(folder / "table.csv", table)
    return folder


def _ingredients(config: Config, function: Callable[..., Any], records: Mapping[str, Record]) -> dict[str, Any]:
    """What a figure is drawn from: those of the following that its function takes."""
    made: dict[str, Callable[[], Any]] = {
        "records": lambda: [*records.values()],
        "data_label": lambda: "; ".join(sorted({record.origin.data for record in records.values()} - {""})),
        "published": lambda: published_curves(config, records),
        "functions": lambda: {
            name: _function(record) for name, record in records.items() if "problem" in record.origin.settings
        },
    }
    return {name: made[name]() for name in inspect.signature(function).parameters if name in made}


def _function(record: Record) -> Function:
    """The problem that a run was trained on."""
    options = dict(record.origin.settings["problem"])
    try:
        f: Function = member("problems", Member(options.pop("name"), options))()
        return f
    except (LookupError, TypeError) as error:
        raise StoreError(f"{record.name} was trained on a problem that is no more ({error}): run `dvc repro`") from None

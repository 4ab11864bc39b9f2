"""Recorded runs side by side: the settings in which they differ, what characterises them, and their curves overlaid.

The picture lies below stages/compare, which no stage of dvc.yaml reads: to compare makes nothing out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eosrepro.config.params import Config
from eosrepro.errors import ConfigError
from eosrepro.figures import _style
from eosrepro.figures.trajectories import trajectories
from eosrepro.records.files import save_table
from eosrepro.records.flat import differences
from eosrepro.records.places import STAGES
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.recorded import recorded
from eosrepro.verdicts import characteristics
from eosrepro.views import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = STAGES / "compare"
LONGEST_NAME = 120  # of a file; many runs together have a longer one
FARTHEST_RP = 2.0  # shown: a single epoch of SGD may reach 100, and would flatten all else


@dataclass(frozen=True)
class Compared:
    """What is the same and what is not, by run."""

    runs: list[str]
    settings: Mapping[str, Mapping[str, Any]]  # key in dots → run → value; of those that differ; None: it has none
    ended: Mapping[str, str]  # run → why and at which iteration
    measures: Mapping[str, Mapping[str, float]]  # as `comparison.MEASURES` → run → value
    figure: Path  # PNG; beside it SVG and the table of what is drawn


def compare(config: Config, names: Sequence[str]) -> Compared:
    """Compare two runs of params.yaml, or more, and write the picture of them.

    Raises:
        ConfigError: there is no such run, or not two different ones.
        StoreError: one has not been trained.
    """
    if len(names) < 2 or len({*names}) < len(names):
        raise ConfigError("name two runs or more, each once")
    records = [recorded(config.run(name)) for name in names]
    outdated.warn(config, records)
    _warn_of_unmeasured(records)
    place = FOLDER / _joined(names)
    settings = differences({record.name: record.origin.settings for record in records})
    drawn, table = draw(records, settings)
    _style.save(drawn, place / f"{place.name}.png", place / f"{place.name}.svg")
    save_table(place / "table.csv", table)
    measured = {record.name: characteristics.measures(record) for record in records}
    return Compared(
        runs=[*names],
        settings=settings,
        ended={record.name: record.ended for record in records},
        measures={measure: {name: measured[name][measure] for name in names} for measure in characteristics.MEASURES},
        figure=place / f"{place.name}.png",
    )


def draw(records: Sequence[Record], settings: Collection[str]) -> tuple[Figure, pd.DataFrame]:
    """Loss, RP, and L and sharpness in units of the threshold of each run, and the table of what is drawn.

    `settings` are those that differ, for the title.
    """
    data = sorted({record.origin.data for record in records} - {""})
    progress = pd.concat([record.trajectory["relative_progress"] for record in records])
    is_cut = bool((progress.abs() > FARTHEST_RP).any())
    panels = ["loss", "relative_progress", "directional_smoothness"]
    if all(record.sharpness is not None for record in records):
        panels.append("sharpness")
    cut = {"relative_progress": (-FARTHEST_RP, FARTHEST_RP)} if is_cut else None
    return trajectories(
        records,
        "; ".join(data),
        {},
        title=_title(settings) + (f"; relative progress cut at ±{FARTHEST_RP:g}" if is_cut else ""),
        runs={record.name: record.name for record in records},
        panels=panels,
        limits=cut,
        units="threshold",
    )


def _title(settings: Collection[str]) -> str:
    if not settings:
        return "Runs of equal settings"
    return f"Runs that differ in {', '.join(settings) if len(settings) <= 4 else f'{len(settings)} settings'}"


def tables(compared: Compared) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """For a reader: title, head and rows of a table of settings, and of one of measures."""
    settings = [[key, *map(_shown, by_run.values())] for key, by_run in compared.settings.items()]
    yield (
        f"{len(settings)} setting{'s differ' if len(settings) != 1 else ' differs'}",
        ["setting", *compared.runs],
        settings,
    )
    measures = [[name, *map(markdown.number, by_run.values())] for name, by_run in compared.measures.items()]
    yield "Measures", ["measure", *compared.runs], [["ended by", *compared.ended.values()], *measures]


def _warn_of_unmeasured(records: Sequence[Record]) -> None:
    for record in records:
        if record.sharpness is None:
            found = f"the sharpness of {record.name} has not been measured since it was trained"
            print(f"Warning: {found}: run `eosrepro diagnose {record.name}`", file=sys.stderr)


def _joined(names: Sequence[str]) -> str:
    joined = "_".join(names)
    return joined if len(joined) <= LONGEST_NAME else f"{names[0]}_and_{len(names) - 1}_more"


def _shown(value: Any) -> str:
    return "" if value is None else str(value)

"""Stage `report`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eosrepro.config.params import Config
from eosrepro.records.dataset import DATA
from eosrepro.records.files import load_json, load_table, remove_leftovers, save_text
from eosrepro.records.places import FIGURES, REPORT, VERIFY
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.recorded import published_runs, recorded_runs, worded_figure
from eosrepro.verdicts import claims
from eosrepro.views.papers import Paper, about

if TYPE_CHECKING:
    from eosrepro.views.report.chart import Part


Loaded = TypeVar("Loaded")


def report(config: Config) -> Path:
    """Stage `report`: all that is recorded as one page, and of what is not the command that makes it."""
    from eosrepro.views.report.page import page

    verdicts = _optional(load_json, VERIFY / "claims.json")
    records = recorded_runs(config.runs.values())
    published = published_runs(config, records)
    text = page(
        [_part(config, name, records, published) for name, figure in config.drawn.items() if figure.runs],
        None if verdicts is None else claims.from_json(verdicts, VERIFY / "claims.json"),
        _optional(load_table, VERIFY / "runs.csv"),
        paper=_paper(config),
        profile={"name": config.profile, **config.active.model_dump(mode="json")},
        data=_optional(load_json, DATA / "provenance.json"),
        versions={name: metadata.version(name) for name in ("eosrepro", "torch", "plotly")},
    )
    remove_leftovers(REPORT.parent, REPORT.name)
    save_text(REPORT, text)
    return REPORT


def _paper(config: Config) -> Paper | None:
    if config.claims_file is None:
        return None
    folder = config.claims_file.parent
    return about(folder.name, (folder / "README.md").read_text("utf-8") if (folder / "README.md").exists() else "")


def _optional(load: Callable[[Path], Loaded], path: Path) -> Loaded | None:
    """What is in a file; None where it was not made yet."""
    return load(path) if path.exists() else None


def _part(config: Config, name: str, all_records: Mapping[str, Record], published: Mapping[str, Record]) -> Part:
    """A figure for the report."""
    from eosrepro.views.report.chart import Part

    figure, folder = config.drawn[name], FIGURES / name
    records = {run: all_records[run] for run in figure.runs if run in all_records}
    pictures = [path for path in (folder / f"{name}.png", folder / f"{name}.svg") if path.exists()]
    limits = figure.options.get("limits")
    worded = worded_figure(config, figure, records)
    return Part(
        name=name,
        title=worded.options.get("title", name),
        runs=worded.runs,
        limits=limits if isinstance(limits, Mapping) else {},
        pictures=pictures,
        drawn=_optional(load_table, folder / "table.csv"),
        records=records,
        published={run: published[run] for run in figure.runs if run in published},
        settings={run: _settings(config, run, records) for run in figure.runs},
        step="epoch" if all(record.origin.counts == "epochs" for record in records.values()) else "iteration",
        notes=[*_missing(config, name, records, pictures), *_notes_of_outdated(config, records)],
    )


def _settings(config: Config, run: str, records: Mapping[str, Record]) -> dict[str, Any]:
    """All that determines a run, less its name: as it was recorded, or else as it would be trained now."""
    settings = records[run].origin.settings if run in records else config.run(run).settings
    return {key: value for key, value in settings.items() if key != "name"}


def _missing(config: Config, name: str, records: Mapping[str, Record], pictures: Sequence[Path]) -> Iterator[str]:
    """What of a figure was not made yet, and what makes it."""
    if not pictures:
        yield f"The figure has not been drawn: `dvc repro figure@{name}`"
    for run in config.drawn[name].runs:
        if run not in records:
            yield f"{run} has not been run: `dvc repro train@{config.run(run).experiment}`"
        elif records[run].sharpness is None:
            command = f"`dvc repro diagnose@{config.run(run).experiment}`"
            yield f"The sharpness of {run} has not been measured since it was trained: {command}"


def _notes_of_outdated(config: Config, records: Mapping[str, Record]) -> Iterator[str]:
    for reason, runs in outdated.by_reason(config, records.values()).items():
        yield f"Not of params.yaml, data and code as they are now: {', '.join(runs)}, {reason}. Anew: `dvc repro`"

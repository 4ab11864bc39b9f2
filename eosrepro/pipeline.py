"""The stages of dvc.yaml as functions of the configuration: read files, call the core, write files, show MLflow.

Everything below takes what it uses; here the settings of params.yaml are handed out.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from eosrepro import catalog, claims, comparison, describing, measuring, resuming, sizes, store, tracking
from eosrepro.config import Config, Figure, Member, Toy, counts_epochs, step_size_text
from eosrepro.errors import ConfigError
from eosrepro.problems import dataset, member, optimizer, problem
from eosrepro.progress import progress
from eosrepro.training import minimise, outcome
from eosrepro.types import Dataset, Outcome, Row, stability_threshold

if TYPE_CHECKING:  # a training need not load what the report is made with
    from eosrepro.report import Part

Loaded = TypeVar("Loaded")

SHORT = 10.0  # seconds

# --- stages -----------------------------------------------------------------------------------------------------------


def stamp(config: Config, path: Path) -> None:
    """Stage `check`: a file that says that params.yaml is valid, for other stages to depend on.

    Raises:
        ConfigError: a member of another package is used, and dvc.yaml looks for its file in this project.
    """
    for kind, name in sorted(config.members()):
        file, own = catalog.file(kind, name), Path("eosrepro", kind, f"{name.replace('-', '_')}.py")
        if file.parent != Path(__file__).parent / kind and not own.exists():
            raise ConfigError(
                f"{name} of params.yaml lies in {file}, where DVC would not see it change: put a copy at {own}, or run "
                "without DVC (`eosrepro train RUN`, and so on; see `eosrepro --help`)"
            )
    store.FIGURES.mkdir(exist_ok=True)  # stages depend on it, also where params.yaml has no figures
    store.save_text(path, "params.yaml is valid\n")


def make_data(config: Config) -> Dataset:
    """Stage `data`: the images of the profile, preprocessed, as one verified file."""
    made = dataset(config.active)
    shutil.rmtree(store.DATA, ignore_errors=True)
    store.save_dataset(store.DATA, made)
    return made


def train(config: Config, name: str) -> Outcome:
    """Stage `train`: one run from start to end, with its trajectory, summary and snapshots; followed live in MLflow."""
    run, data = config.run(name), _data_of(config, name)
    resolved, provenance = config.resolved(name), _provenance(data)
    made_by = tracking.fingerprint(resolved, provenance)
    folder = store.train_folder(run.folder, name)
    started = time.monotonic()
    tags = _reproduction(config, name)
    with ExitStack() as stack:

        def open_run() -> tracking.LiveRun:
            return stack.enter_context(tracking.open_run(name, resolved, provenance, tags=tags, **_view(config)))

        ended = train_into(folder, config, name, data, fingerprint=made_by, observe=_live(open_run, started))
    _sync_unless_short(config, name, data, started)
    return ended


def diagnose(config: Config, name: str, *, jobs: int = 1) -> pd.DataFrame:
    """Stage `diagnose`: the sharpness on the snapshots of a run, as a table."""
    started = time.monotonic()
    run, data = config.run(name), _data_of(config, name)
    snapshots = store.train_folder(run.folder, name) / "snapshots"
    table = diagnose_into(store.diagnostics_folder(run.folder, name), snapshots, config, name, data, jobs=jobs)
    _sync_unless_short(config, name, data, started)
    return table


def measure(config: Config, name: str, *, jobs: int = 1) -> pd.DataFrame:
    """Stage `measure`: a declared diagnostic on the snapshots of its run, as a table."""
    started = time.monotonic()
    measurement = config.measurement(name)
    run, data = config.run(measurement.run), _data_of(config, measurement.run)
    snapshots = store.train_folder(run.folder, measurement.run) / "snapshots"
    made = store.snapshot_paths(snapshots)
    chosen = [path for path in made if int(path.stem) % measurement.every == 0]
    diagnostic = measurement.diagnostic
    settings = {**diagnostic.options, "every": measurement.every}
    folder = store.diagnostics_folder(run.folder, measurement.run)
    if len(chosen) == 1 < len(made):
        print(
            f"Warning: {name} is measured at iteration 0 alone: of the snapshots of {measurement.run}, one in "
            f"{config.snapshot_every(measurement.run)} iterations, no other is divided by every: {measurement.every}",
            file=sys.stderr,
        )
    with _measured(folder, config, measurement.run, diagnostic, chosen, data, jobs) as table:
        store.save_measured(folder, diagnostic.name, store.Measured(table, settings), snapshots)
    _sync_unless_short(config, measurement.run, data, started)
    return table


def plot(config: Config, name: str) -> Path:
    """Stage `figure`: one figure from recorded tables, as PNG and SVG, with the table it shows."""
    from eosrepro.figures._style import save

    if name not in config.figures:
        raise ConfigError(f"params.yaml has no figure {name!r}{catalog.did_you_mean(name, list(config.figures))}")
    figure = config.figures[name]
    draw = catalog.find("figures", figure.name)
    drawn, table = draw(**_ingredients(config, figure, draw), runs=_labels(config, figure), **figure.options)
    folder = store.FIGURES / name
    store.remove_leftovers(folder)
    save(drawn, folder / f"{name}.png", folder / f"{name}.svg")
    store.save_table(folder / "table.csv", table)
    return folder


def verify(config: Config) -> list[claims.Verdict]:
    """Stage `verify`: a verdict on every declared claim, and what characterises the runs of networks."""
    verdicts = _verdicts(config, config.runs)
    trained = [_record(config, name) for name in config.experiments if _is_trained(config, name)]
    compared = comparison.table(trained, _published_runs(config))
    store.remove_leftovers(store.VERIFY)
    store.save_json(store.VERIFY / "claims.json", claims.as_json(verdicts))
    store.save_json(store.VERIFY / "summary.json", claims.counts(verdicts))
    store.save_text(store.VERIFY / "claims.md", claims.as_markdown(verdicts, about=_about_data(config, trained)))
    store.save_table(store.VERIFY / "runs.csv", compared)
    store.save_text(store.VERIFY / "runs.md", comparison.as_markdown(compared))
    return verdicts


def report(config: Config) -> Path:
    """Stage `report`: all that is recorded as one page, and of what is not the command that makes it."""
    from eosrepro.report import page

    data = recorded_provenance()
    verdicts = _optional(store.load_json, store.VERIFY / "claims.json")
    published = _published_runs(config)
    text = page(
        [_part(config, name, published, data) for name in config.figures],
        None if verdicts is None else claims.from_json(verdicts, store.VERIFY / "claims.json"),
        _optional(store.load_table, store.VERIFY / "runs.csv"),
        profile={"name": config.profile, **config.active.model_dump(mode="json")},
        data=data,
        versions={name: metadata.version(name) for name in ("eosrepro", "torch", "plotly")},
    )
    store.remove_leftovers(store.REPORT.parent, store.REPORT.name)
    store.save_text(store.REPORT, text)
    return store.REPORT


def sync(config: Config, name: str | None = None) -> bool:
    """Stage `track`: bring MLflow up to date from the recorded files of one run, or of all with figures and verdicts.

    Returns:
        Whether MLflow now has everything.
    """
    names = [name] if name else [run for run in config.runs if _is_trained(config, run)]
    data = store.load_dataset(store.DATA) if config.experiments.keys() & names else None
    figures = [figure for figure, entry in config.figures.items() if set(entry.runs) <= set(names)]
    done = [
        _sync(config, run, data if run in config.experiments else None, figures=figures)
        for run in reversed(names)  # MLflow lists the newest first
    ]
    if name is None:
        text = describing.experiment(config.mlflow.paper, _verdicts(config, config.runs))
        done.append(tracking.describe(config.mlflow.experiment, text))
    return all(done)


# --- what the stages, and sweeps, are made of -------------------------------------------------------------------------


def train_into(
    folder: Path,
    config: Config,
    name: str,
    data: Dataset | None,
    *,
    fingerprint: str,
    observe: Callable[[Row], None] = lambda _row: None,
) -> Outcome:
    """Train a run and write trajectory.csv, summary.json and snapshots/ to `folder`; `observe` sees every row."""
    run, stop, snapshot_every = config.run(name), config.stop(name), config.snapshot_every(name)
    objective, theta = problem(config, name, data)
    determined_by = [config.resolved(name), fingerprint, stop, snapshot_every, config.compute, theta.device]
    with (
        resuming.unfinished(folder, determined_by) as place,
        resuming.training(place, snapshot_every) as so_far,
    ):
        if data is not None:
            sizes.announce(config, name, objective, theta, done=len(so_far.rows), folder=place)
        store.remove_leftovers(folder)
        for row in so_far.rows:
            observe(row)
        start = so_far.position(theta)
        with progress(f"train {name}", stop.max_steps, threshold=stability_threshold(run.step_size)) as report:
            for row in minimise(objective, start, optimizer(run), stop=stop, on_iterate=so_far.keep):
                so_far.rows.append(row)
                observe(row)
                shown = {"loss": row.loss, "accuracy": row.accuracy}
                report(row.step, **shown, RP=row.relative_progress, L=row.directional_smoothness)
        ended = outcome(so_far.rows[-1], stop)
        store.place_snapshots(place / "snapshots", folder / "snapshots")
        store.save_trajectory(folder, so_far.rows, ended, data=str(data or ""), fingerprint=fingerprint)
    return ended


def diagnose_into(
    folder: Path, snapshots: Path, config: Config, name: str, data: Dataset | None, *, jobs: int = 1
) -> pd.DataFrame:
    """Measure the sharpness on a folder of snapshots and write what `store.save_sharpness` says to `folder`."""
    settings = config.sharpness.model_dump()
    diagnostic = Member("sharpness", settings)
    with _measured(folder, config, name, diagnostic, store.snapshot_paths(snapshots), data, jobs) as table:
        store.save_sharpness(folder, store.Measured(table, settings), snapshots)
    return table


def is_current(config: Config, record: store.Record, data: Mapping[str, Any] | None) -> bool:
    """Whether a run was trained with the settings, data (by their provenance) and code of now."""
    of_data = None if isinstance(config.run(record.name), Toy) else data or {"sha256": None}
    return bool(record.origin["fingerprint"] == tracking.fingerprint(config.resolved(record.name), of_data))


def recorded_provenance() -> Mapping[str, Any] | None:
    """That of the recorded data; None where there are none yet."""
    return _optional(store.load_json, store.DATA / "provenance.json")


# --- helpers ----------------------------------------------------------------------------------------------------------


@contextmanager
def _measured(
    folder: Path,
    config: Config,
    name: str,
    diagnostic: Member,
    snapshots: Sequence[Path],
    data: Dataset | None,
    jobs: int,
) -> Iterator[pd.DataFrame]:
    """What a diagnostic finds, for the block to write to `folder`: until then an interrupted one can go on."""
    determined_by = [config.resolved(name), diagnostic, config.compute, _provenance(data)]
    with resuming.unfinished(folder / diagnostic.name, determined_by) as place:
        store.remove_leftovers(folder, diagnostic.name)
        yield measuring.measure(config, name, diagnostic, snapshots, data, jobs=jobs, place=place)


def _data_of(config: Config, name: str) -> Dataset | None:
    return None if isinstance(config.run(name), Toy) else store.load_dataset(store.DATA)


def _provenance(data: Dataset | None) -> Mapping[str, Any] | None:
    return None if data is None else data.provenance


def _is_trained(config: Config, name: str) -> bool:
    return (store.train_folder(config.run(name).folder, name) / "summary.json").exists()


def _record(config: Config, name: str) -> store.Record:
    run = config.run(name)
    return store.load_record(name, run.folder, run.step_size)


def _ingredients(config: Config, figure: Figure, draw: Callable[..., Any]) -> dict[str, Any]:
    """What a figure is drawn from: those of the following that its function takes."""
    records = [_record(config, run) for run in figure.runs]
    made: dict[str, Callable[[], Any]] = {
        "records": lambda: records,
        "data_label": lambda: "; ".join(sorted({record.origin["data"] for record in records} - {""})),
        "published": lambda: _published(config, figure),
        "functions": lambda: {
            name: member("toys", run.toy)() for name, run in config.toys.items() if name in figure.runs
        },
    }
    return {name: made[name]() for name in inspect.signature(draw).parameters if name in made}


def _about_data(config: Config, records: Sequence[store.Record]) -> str:
    data = sorted({record.origin["data"] for record in records})
    return f"Profile `{config.profile}`, on {'; '.join(data) or 'no data yet'}"


def _labels(config: Config, figure: Figure) -> dict[str, str]:
    """Those of the figure, but never with another step size than that of the run, which `-S` may have changed."""
    labels = {}
    for run, label in figure.runs.items():
        step_size = config.run(run).step_size
        found = re.search(r"η = (\d+/\d+)", label)
        wrong = found and Fraction(found[1]) != step_size
        labels[run] = label.replace(found[0], f"η = {step_size_text(step_size)}") if found and wrong else label
    return labels


def _optional(load: Callable[[Path], Loaded], path: Path) -> Loaded | None:
    """What is in a file; None where it was not made yet."""
    return load(path) if path.exists() else None


def _part(config: Config, name: str, published: Mapping[str, store.Record], data: Mapping[str, Any] | None) -> Part:
    """A figure for the report."""
    from eosrepro.report import Part

    figure, folder = config.figures[name], store.FIGURES / name
    records = {run: _record(config, run) for run in figure.runs if _is_trained(config, run)}
    pictures = [path for path in (folder / f"{name}.png", folder / f"{name}.svg") if path.exists()]
    limits = figure.options.get("limits")
    return Part(
        name=name,
        title=figure.options.get("title", name),
        runs=_labels(config, figure),
        limits=limits if isinstance(limits, Mapping) else {},
        pictures=pictures,
        drawn=_optional(store.load_table, folder / "table.csv"),
        records=records,
        published={run: published[run] for run in figure.runs if run in published},
        settings={run: _settings(config, run) for run in figure.runs},
        step="epoch" if all(counts_epochs(config.run(run)) for run in figure.runs) else "iteration",
        notes=[*_missing(config, name, records, pictures), *_outdated(config, records, data)],
    )


def _settings(config: Config, run: str) -> dict[str, Any]:
    """All that determines a run, less its name."""
    return {key: value for key, value in config.resolved(run).items() if key != "name"}


def _missing(config: Config, name: str, records: Mapping[str, store.Record], pictures: Sequence[Path]) -> Iterator[str]:
    """What of a figure was not made yet, and what makes it."""
    if not pictures:
        yield f"The figure has not been drawn: `dvc repro figure@{name}`"
    for run in config.figures[name].runs:
        if run not in records:
            yield f"{run} has not been run: `dvc repro {config.stage('train', run)}`"
        elif records[run].sharpness is None:
            command = f"`dvc repro {config.stage('diagnose', run)}`"
            yield f"The sharpness of {run} has not been measured since it was trained: {command}"


def _outdated(config: Config, records: Mapping[str, store.Record], data: Mapping[str, Any] | None) -> Iterator[str]:
    """The runs that are not those of params.yaml as it is now: the settings on the page are not theirs."""
    if changed := [run for run, record in records.items() if not is_current(config, record, data)]:
        yield f"Trained with other settings, data or code than those of now: {', '.join(changed)}. Anew: `dvc repro`"


def _published(config: Config, figure: Figure) -> dict[str, dict[str, pd.DataFrame]]:
    return {
        panel: {run: store.load_table(store.REFERENCE / f"{file}.csv") for run, file in files.items()}
        for panel, files in _published_files(config, figure).items()
    }


def _published_runs(config: Config) -> dict[str, store.Record]:
    """The curves that figures lay under the runs of networks, by run."""
    curves: dict[str, dict[str, str]] = {}
    for figure in config.figures.values():
        for quantity, files in _published_files(config, figure).items():
            for name, file in files.items():
                curves.setdefault(name, {})[quantity] = file
    return {name: store.load_published(name, files) for name, files in curves.items() if name in config.experiments}


def _published_files(config: Config, figure: Figure) -> dict[str, dict[str, str]]:
    """Panel → run → published curve; none where the run has another step size than the published one."""
    return {
        panel: {
            run: file for run, file in files.items() if store.published_run(file).step_size == config.run(run).step_size
        }
        for panel, files in (figure.reference if config.active.published else {}).items()
    }


def _view(config: Config) -> dict[str, Any]:
    return {"experiment": config.mlflow.experiment, "window": config.mlflow.window, "profile": config.profile}


def _reproduction(config: Config, name: str) -> dict[str, str]:
    """The tag `reproduction` of a run: the paper, and what in it the claims about this run are about."""
    sources = {claim.source for claim in config.claims.values() if claim.run == name}
    return {"reproduction": describing.reproduction(config.mlflow.paper, sources)}


def _colour(config: Config, name: str) -> str | None:
    """The colour that a run has in the first figure that draws it; None where none does."""
    from matplotlib.colors import to_hex

    from eosrepro.figures._style import colours

    for figure in config.figures.values():
        if name in figure.runs:
            return to_hex(colours(figure.runs)[name])
    return None


def _about(config: Config, name: str, record: store.Record, figures: Collection[str]) -> tracking.About:
    verdicts = _verdicts(config, [name])
    run = config.run(name)
    trained, measured = store.train_folder(run.folder, name), store.diagnostics_folder(run.folder, name)
    drawn = [store.FIGURES / figure for figure in figures if name in config.figures[figure].runs]
    tables = [trained / "trajectory.csv", *(measured / f"{diagnostic}.csv" for diagnostic in record.measured)]
    summary = comparison.summary(record)
    of = _reproduction(config, name)
    return tracking.About(
        tags={**of, **describing.counts(verdicts)},
        description=describing.run(config.resolved(name), of["reproduction"], record, summary, verdicts),
        colour=_colour(config, name) if drawn else None,
        summary=summary,
        artifacts={
            "tables": tables,
            **{f"figures/{folder.name}": sorted(folder.iterdir()) for folder in drawn if folder.exists()},
        },
    )


def _verdicts(config: Config, names: Collection[str]) -> list[claims.Verdict]:
    """Verdicts on all claims about these runs."""
    declared = {key: claim for key, claim in config.claims.items() if claim.run in names}
    runs = {claim.run for claim in declared.values()}
    records = {run: _record(config, run) for run in runs if _is_trained(config, run)}
    return [
        claims.check(
            key,
            claim,
            records.get(claim.run),
            at_paper_scale=config.active.published or claim.run in config.toys,
        )
        for key, claim in declared.items()
    ]


def _is_worth_mlflow(started: float) -> bool:
    # To load MLflow takes seconds. Where DVC runs the pipeline, short stages leave it to the last one, `track`.
    return "DVC_STAGE" not in os.environ or time.monotonic() - started > SHORT


def _live(open_run: Callable[[], tracking.LiveRun], started: float) -> Callable[[Row], None]:
    """Take the rows of a training, and hand them to its MLflow run as soon as that is worth opening."""
    waiting: list[Row] = []
    opened: list[tracking.LiveRun] = []

    def observe(row: Row) -> None:
        waiting.append(row)
        if not opened and _is_worth_mlflow(started):
            opened.append(open_run())
        if opened:
            for each in waiting:
                opened[0].observe(each)
            waiting.clear()

    return observe


def _sync_unless_short(config: Config, name: str, data: Dataset | None, started: float) -> None:
    if _is_worth_mlflow(started):
        _sync(config, name, data)


def _sync(config: Config, name: str, data: Dataset | None, *, figures: Collection[str] = ()) -> bool:
    resolved, record = config.resolved(name), _record(config, name)
    if not is_current(config, record, _provenance(data)):
        print(f"Warning: {name} was trained with other settings, data or code: run `dvc repro`", file=sys.stderr)
        return False
    about = _about(config, name, record, figures)
    return tracking.sync_run(name, resolved, _provenance(data), record, about=about, **_view(config))

"""The command line: one short command a stage. A failure with a known cause is one message, not a traceback."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eosrepro import __version__
from eosrepro.errors import EosreproError
from eosrepro.tools import many, options
from eosrepro.tools.completion import names
from eosrepro.tools.messages import Group
from eosrepro.tools.weights import weights
from eosrepro.views import terminal

if TYPE_CHECKING:
    from eosrepro.config.params import Config

# Each command imports what it needs when it runs: importing torch takes a second, mlflow another.


@click.group(cls=Group)
@click.version_option(__version__, prog_name="eosrepro")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Reproduce, trust and vary edge-of-stability experiments.

    `dvc repro` runs the stages below in order, as params.yaml declares them.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how schedulers and containers say Ctrl-C
    if {"DVC_STAGE", "TORCHELASTIC_RUN_ID"} & os.environ.keys():
        from eosrepro.stages.processes import die_with_parent

        die_with_parent()
    options.follow_as_another_rank(ctx)


for command in (many.farm, many.work, weights):
    main.add_command(command)

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _echo_json(content: Any) -> None:
    from eosrepro.records import files

    click.echo(files.as_json(content, ascii_only=not terminal.shows_all()))


@main.command()
def data() -> None:
    """Write the training data of the profile as one verified file."""
    from eosrepro.config.load import load
    from eosrepro.core.types import is_classes
    from eosrepro.stages.data import make_data

    dataset = make_data(load())
    of = f"{dataset.n_outputs} classes" if is_classes(dataset.targets) else "targets are numbers"
    shape = " × ".join(map(str, dataset.inputs.shape[1:]))
    click.echo(f"{dataset.label}: {len(dataset)} examples of {shape}, {of}")


@main.command()
@options.jobs
@options.ranks
@click.argument("runs", shell_complete=options.RUNS)
def train(runs: str, jobs: int | None, ranks: int) -> None:
    """Train RUNS of params.yaml: an experiment, one run, or the first part of the names of some."""
    from eosrepro.config.load import load
    from eosrepro.stages import ranked
    from eosrepro.stages import train as stage
    from eosrepro.tools import messages

    loaded = load()
    selected = loaded.select(runs)
    with ranked.shared_by(selected, ranks) as size:
        outcomes = stage.train(loaded, runs, jobs=options.processes(loaded, jobs, size, selected))
    for run, ended in outcomes.items():
        end = f"ended by {ended.reason} after {ended.steps} steps at loss {ended.loss:.4g}"
        click.echo(f"{run}: {end}; {messages.snapshots(loaded.run(run))}")


@main.command()
@options.jobs
@options.ranks
@click.argument("runs", shell_complete=options.RUNS)
def diagnose(runs: str, jobs: int | None, ranks: int) -> None:
    """Take the diagnostics of RUNS on their snapshots; RUNS as in `train`."""
    from eosrepro.config.load import load
    from eosrepro.stages import diagnose as stage
    from eosrepro.stages import ranked
    from eosrepro.tools import messages

    loaded = load()
    selected = loaded.select(runs)
    with ranked.shared_by(selected, ranks) as size:
        found = stage.diagnose(loaded, runs, jobs=options.processes(loaded, jobs, size, selected))
    for run, tables in found.items():
        others = [f"{name} at {len(table)} snapshots" for name, table in tables.items() if name != "sharpness"]
        if "sharpness" in tables:
            others.insert(0, messages.sharpness(tables["sharpness"]))
            messages.warn_of_audits(run, tables["sharpness"], loaded.run(run).diagnose["sharpness"].options["rtol"])
        click.echo(f"{run}: {'; '.join(others) or 'no diagnostics are declared'}")


@main.command()
@click.argument("figure", shell_complete=names("figures"))
def figure(figure: str) -> None:
    """Draw FIGURE of params.yaml from recorded tables."""
    from eosrepro.config.load import load
    from eosrepro.stages import figure as stage

    click.echo(f"wrote {stage.draw(load(), figure)}")


@main.command()
@_as_json
def verify(as_json: bool) -> None:
    """Say of each declared claim whether the recorded runs bear it out."""
    from eosrepro.config.load import load
    from eosrepro.records.places import VERIFY
    from eosrepro.stages import verify as stage
    from eosrepro.verdicts import claims

    verdicts = stage.verify(load())
    if as_json:
        _echo_json(claims.as_json(verdicts))
        return
    counts = claims.counts(verdicts)
    summary = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    click.echo(f"claims: {summary}; see {VERIFY / 'claims.md'}")


@main.command()
def report() -> None:
    """Write all that is recorded as one HTML page that needs no network."""
    from eosrepro.config.load import load
    from eosrepro.stages import report as stage

    click.echo(f"wrote {stage.report(load())}")


@main.command()
@click.argument("runs", nargs=-1, metavar="RUN RUN...", shell_complete=options.RUNS)
@_as_json
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare two or more recorded RUNS: settings that differ, what characterises them, and their curves."""
    from eosrepro.config.load import load
    from eosrepro.tools import compare

    compared = compare.compare(load(), runs)
    if as_json:
        _echo_json({**vars(compared), "figure": str(compared.figure)})
        return
    for title, head, rows in compare.tables(compared):
        terminal.show_table(title, head, rows)
    click.echo(f"wrote {compared.figure}")


@main.command()
@click.argument("runs", required=False, shell_complete=options.RUNS)
@click.option(
    "--stamp", type=click.Path(path_type=Path), help="Write FILE if MLflow has everything; the last stage of dvc.yaml."
)
def track(runs: str | None, stamp: Path | None) -> None:
    """Bring the MLflow store up to date from recorded files (of RUNS, or of all)."""
    from eosrepro.config.load import load
    from eosrepro.records.files import save_text
    from eosrepro.stages import track as stage

    loaded = load()
    if stamp:
        stamp.unlink(missing_ok=True)
    if not stage.track(loaded, runs):
        raise EosreproError("MLflow does not have everything: see the warnings above")
    if stamp:
        save_text(stamp, "MLflow is up to date with the recorded files\n")
    click.echo("MLflow is up to date with the recorded files")


@main.command()
@_as_json
def doctor(as_json: bool) -> None:
    """Check environment, params.yaml, data, MLflow, DVC and disk, and say how to mend what is wrong."""
    try:
        from eosrepro.tools import doctor

        checks = doctor.examine()
    except ImportError as error:
        raise EosreproError(f"{error}: `make setup` installs what is missing") from None
    if as_json:
        _echo_json([vars(check) for check in checks])
    else:
        rows = [[check.state, check.name, check.found] for check in checks]
        terminal.show_table("", ["state", "of", "found, and what to do"], rows)
    if any(check.state == "problem" for check in checks):
        raise SystemExit(1)


@main.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """List experiments, their runs and figures, and say what of each is up to date."""
    from eosrepro.config.load import load
    from eosrepro.tools import listing

    listed = listing.entries(load())
    if as_json:
        _echo_json(listing.as_records(listed))
        return
    for title, head, rows in listing.tables(listed):
        terminal.show_table(title, head, rows)
    if any(state.word != "up to date" for entry in listed for state in entry.states.values()):
        click.echo("`dvc repro` brings all of it up to date; `dvc repro STAGE`, such as figure@exp3, a part")


@main.command()
@options.jobs
@click.argument("file", type=click.Path(path_type=Path))
def sweep(file: Path, jobs: int | None) -> None:
    """Run the variants of a run that FILE declares, and tabulate them."""
    from eosrepro.tools import sweeps

    click.echo(f"wrote {sweeps.run(file, jobs=jobs or 1)}")


@main.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on the loopback interface."
)
def ui(port: int) -> None:
    """Open the MLflow UI on this project's runs, after bringing it up to date from recorded files."""
    from eosrepro.views.mlflow.server import serve

    serve(port, _catch_up)


def _catch_up() -> None:
    from eosrepro.config.load import load
    from eosrepro.stages import track

    try:
        track.track(load())
    except (EosreproError, OSError) as error:  # the runs that MLflow has can be looked at all the same
        click.echo(f"Warning: {error}", err=True)


@main.group(cls=Group)
def config() -> None:
    """Look at params.yaml as the program reads it."""


@config.command()
@click.argument("run", shell_complete=options.RUNS)
@_as_json
def show(run: str, as_json: bool) -> None:
    """Print all that determines the training of RUN."""
    import yaml

    from eosrepro.config.load import load

    found = load().run(run)
    if as_json:
        _echo_json(found.settings)
    else:
        click.echo(yaml.safe_dump(found.settings, sort_keys=False, allow_unicode=terminal.shows_all()), nl=False)
    for line in found.limits:
        click.echo(line, err=True)


@config.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml (the committed params.schema.json)."""
    from eosrepro.config.load import schema

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=not terminal.shows_all()))


@config.command()
def members() -> None:
    """Print all that a `name` in params.yaml may be, with its options (the committed docs/members.md)."""
    from eosrepro.tools.members import page

    click.echo(page(), nl=False)


@config.command("check")
def config_check() -> None:
    """Validate params.yaml and do nothing else."""
    from eosrepro.config.load import load

    click.echo(_valid(load()))


def _valid(loaded: Config) -> str:
    counts = f"{len(loaded.runs)} runs, {len(loaded.figures)} figures, {len(loaded.claims)} claims"
    others = f" (not among the runs now: {', '.join(loaded.left_out)})" if loaded.left_out else ""
    return f"params.yaml is valid: {counts}{others}"


@main.command()
def check() -> None:
    """Validate params.yaml, and digest the code behind every stage for DVC."""
    from eosrepro.config.load import load
    from eosrepro.stages import check as stage

    loaded = load()
    stage.check(loaded)
    click.echo(_valid(loaded))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--paper", default="ahn2022", show_default=True, help="What it reproduces, to begin with.")
def new(folder: Path, paper: str) -> None:
    """Write a project into FOLDER, ready for `dvc repro`."""
    from eosrepro.tools import new

    new.new(folder, paper)
    click.echo(f"wrote {folder}: `cd {folder}`, then `dvc repro`")


@main.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--write", type=click.Path(path_type=Path), help="Write papers.md into this folder, with its pictures.")
@_as_json
def papers(folders: tuple[Path, ...], write: Path | None, as_json: bool) -> None:
    """List the papers that a project can begin with; or of finished projects in FOLDERS, what they found."""
    from eosrepro.tools import papers

    told = papers.tell(folders, write)
    if as_json:
        _echo_json(told.records)
        return
    terminal.show_table("", told.head, told.rows)
    click.echo(told.note)


@main.command()
def gc() -> None:
    """Remove from stages/store what no profile of params.yaml asks for."""
    from eosrepro.config.load import load
    from eosrepro.tools import gc

    click.echo(gc.collect(load()))

"""The command line: one short command a stage. A failure with a known cause is one message, not a traceback."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eosrepro import __version__
from eosrepro.errors import EosreproError
from eosrepro.tools.completion import names
from eosrepro.tools.messages import Group
from eosrepro.views import terminal

if TYPE_CHECKING:
    from eosrepro.config.params import Config

# Each command imports what it needs when it runs: importing torch takes a second, mlflow another.


@click.group(cls=Group)
@click.version_option(__version__, prog_name="eosrepro")
def main() -> None:
    """Reproduce, trust and vary edge-of-stability experiments.

    `dvc repro` runs the stages below in order, as params.yaml declares them.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how schedulers and containers say Ctrl-C
    if "DVC_STAGE" in os.environ:
        from eosrepro.stages.processes import die_with_parent

        die_with_parent()


_RUNS = names("experiments", "toys")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _echo_json(content: Any) -> None:
    from eosrepro.records import files

    click.echo(files.as_json(content, ascii_only=not terminal.shows_all()))


@main.command()
def data() -> None:
    """Write the training data of the profile as one verified file."""
    from eosrepro.config.load import load
    from eosrepro.stages.data import make_data

    dataset = make_data(load())
    shape = " × ".join(map(str, dataset.inputs.shape[1:]))
    click.echo(f"{dataset.label}: {len(dataset)} examples of {shape}, {dataset.n_classes} classes")


def _for_each_run(command: Callable[..., None]) -> Callable[..., None]:
    """A command on one RUN of params.yaml, or on all toys in one process."""

    @click.argument("run", required=False, shell_complete=_RUNS)
    @click.option("--toys", is_flag=True, help="All toys.")
    @functools.wraps(command)
    def on_runs(run: str | None, *, toys: bool, **options: Any) -> None:
        if (run is None) != toys:
            raise click.UsageError("name one RUN, or say --toys")
        from eosrepro.config.load import load
        from eosrepro.records.places import diagnostics_folder, train_folder

        loaded = load()
        if toys:  # DVC looks for their folder where there are none too
            folder_of = {"train": train_folder, "diagnose": diagnostics_folder}[command.__name__]
            folder_of("toys", "").mkdir(parents=True, exist_ok=True)
        for name in loaded.toys if run is None else [run]:
            command(loaded, name, **options)

    return on_runs


@main.command()
@_for_each_run
def train(config: Config, run: str) -> None:
    """Train the experiment or toy RUN of params.yaml."""
    from eosrepro.stages import train as stage

    ended = stage.train(config, run)
    click.echo(f"{run}: ended by {ended.reason} after {ended.steps} steps at loss {ended.loss:.4g}")


_jobs = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share the snapshots."
)


@main.command()
@_jobs
@_for_each_run
def diagnose(config: Config, run: str, jobs: int) -> None:
    """Measure the sharpness on the snapshots of RUN."""
    from eosrepro.stages import diagnose as stage

    table = stage.diagnose(config, run, jobs=jobs)
    first, last, products = table["sharpness"].iloc[0], table["sharpness"].iloc[-1], table["products"].mean()
    largest = table["sharpness"].max()
    ends = " → ".join("not finite" if isnan(value) else f"{value:.4g}" for value in (first, last))
    click.echo(f"{run}: sharpness {ends}, at most {largest:.4g}; {products:.1f} Hessian products each")
    missed = table[table["sharpness"] < table["audit_sharpness"] * (1 - config.sharpness.rtol)]
    if len(missed):
        steps = ", ".join(map(str, missed["step"]))
        click.echo(
            f"Warning: the sharpness of {run} falls short of its audit by more than sharpness.rtol at step {steps}: "
            "lower rtol",
            err=True,
        )


@main.command()
@click.argument("measurement", shell_complete=names("measurements"))
@_jobs
def measure(measurement: str, jobs: int) -> None:
    """Make the MEASUREMENT of params.yaml on the snapshots of its run."""
    from eosrepro.config.load import load
    from eosrepro.stages.diagnose import measure as measure

    loaded = load()
    table = measure(loaded, measurement, jobs=jobs)
    declared = loaded.measurement(measurement)
    click.echo(f"{measurement}: {declared.diagnostic.name} of {declared.run} at {len(table)} snapshots")


@main.command()
@click.argument("figure", shell_complete=names("figures"))
def plot(figure: str) -> None:
    """Draw FIGURE of params.yaml from recorded tables."""
    from eosrepro.config.load import load
    from eosrepro.stages import figure as stage

    click.echo(f"wrote {stage.plot(load(), figure)}")


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
@click.argument("runs", nargs=-1, metavar="RUN RUN...", shell_complete=_RUNS)
@_as_json
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare two or more recorded RUNS: settings that differ, measures, and a picture of their curves."""
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
@click.argument("run", required=False, shell_complete=_RUNS)
@click.option(
    "--stamp", type=click.Path(path_type=Path), help="Write FILE if MLflow has everything; the last stage of dvc.yaml."
)
def sync(run: str | None, stamp: Path | None) -> None:
    """Bring the MLflow store up to date from recorded files (of RUN, or of all runs)."""
    from eosrepro.config.load import load
    from eosrepro.records.files import save_text
    from eosrepro.stages import track

    loaded = load()
    if stamp:
        stamp.unlink(missing_ok=True)
    if not track.sync(loaded, run):
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
    except ImportError as error:
        raise EosreproError(f"{error}: `make setup` installs what is missing") from None

    checks = doctor.examine()
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
    """List runs, measurements and figures, and say what of each is up to date."""
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
@click.argument("file", type=click.Path(path_type=Path))
def sweep(file: Path) -> None:
    """Run the variants of an experiment that FILE declares, and tabulate them."""
    from eosrepro.tools import sweeps

    click.echo(f"wrote {sweeps.run(file)}")


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
        track.sync(load())
    except (EosreproError, OSError) as error:  # the runs that MLflow has can be looked at all the same
        click.echo(f"Warning: {error}", err=True)


@main.group(cls=Group)
def config() -> None:
    """Look at params.yaml as the program reads it."""


@config.command()
@click.argument("run", shell_complete=_RUNS)
@_as_json
def show(run: str, as_json: bool) -> None:
    """Print the resolved settings of the experiment or toy RUN."""
    import yaml

    from eosrepro.config.load import load

    if as_json:
        _echo_json(load().resolved(run))
    else:
        written = yaml.safe_dump(load().resolved(run), sort_keys=False, allow_unicode=terminal.shows_all())
        click.echo(written, nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of params.yaml (the committed params.schema.json)."""
    from eosrepro.config.load import schema

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=not terminal.shows_all()))


@config.command()
@click.option(
    "--stamp", type=click.Path(path_type=Path), help="Write FILE if it is valid; the first stage of dvc.yaml."
)
def check(stamp: Path | None) -> None:
    """Validate params.yaml and do nothing else."""
    from eosrepro.config.load import load

    loaded = load()
    if stamp:
        from eosrepro.stages import check as stage

        stage.stamp(stamp)
    click.echo(
        f"params.yaml is valid: {len(loaded.runs)} runs, {len(loaded.figures)} figures, {len(loaded.claims)} claims"
    )

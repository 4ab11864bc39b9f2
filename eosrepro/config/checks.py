"""What no single entry of params.yaml can tell: names that are not there, settings that contradict each other."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import torch

from eosrepro import catalog
from eosrepro.catalog import did_you_mean
from eosrepro.config.members import Figure, annotation_of
from eosrepro.config.params import Config, counts_epochs
from eosrepro.config.sections import Experiment, Toy
from eosrepro.config.statements import BY_NEXT_GRADIENT, GRADIENT_STEPS, Statistic
from eosrepro.config.values import STEP_SIZE, spelt_step_size
from eosrepro.config.words import Finding, unknown_name
from eosrepro.config.yaml import LARGEST
from eosrepro.core.lanczos import lowest_rtol
from eosrepro.core.types import DTYPES, Rtol


def contradictions(config: Config) -> Iterator[Finding]:
    if config.profile not in config.profiles:
        yield ("profile",), f"there is no profile {unknown_name(config.profile, config.profiles)}"
    # Audits are ten times as accurate as the solves.
    if complaint := _out_of_reach(config, config.sharpness.rtol, times=10):
        yield ("sharpness", "rtol"), complaint
    yield from _run_contradictions(config)
    yield from _measurement_contradictions(config)
    for name, figure in config.figures.items():
        yield from _figure_contradictions(config, name, figure)
    for name, claim in config.claims.items():
        if complaint := spelt_step_size(claim.claim):
            yield ("claims", name, "claim"), complaint
        if claim.run not in config.runs:
            yield ("claims", name, "run"), f"there is no run {unknown_name(claim.run, config.runs)}"
            continue
        known = config.quantities(claim.run)
        for key, quantity in (("quantity", claim.quantity), ("against", claim.against)):
            if quantity is not None and quantity not in known:
                yield ("claims", name, key), f"{claim.run} has no {unknown_name(quantity, known)}"
        if complaint := supposes_another_optimizer(config.runs[claim.run], claim):
            yield ("claims", name), complaint


def _out_of_reach(config: Config, rtol: float, *, times: int = 1) -> str | None:
    """Why an eigenvalue cannot be found to `rtol` in the precision of `compute`, if it cannot."""
    least = times * lowest_rtol(DTYPES[config.compute.dtype])
    return f"found {rtol:g}, should be at least {least:.2g} in {config.compute.dtype}" if rtol < least else None


def _run_contradictions(config: Config) -> Iterator[Finding]:
    for name in config.experiments.keys() & config.toys.keys():
        yield ("toys", name), "an experiment has this name too, and names of runs are unique"
    places = {f"{run.folder}/{name}": name for name, run in config.runs.items()}
    for name, run in config.runs.items():
        section = "toys" if isinstance(run, Toy) else "experiments"
        if (run.folder.split("/")[0] == "toys") != isinstance(run, Toy):
            yield (section, name, "folder"), f"found {run.folder!r}, but toys, and nothing else, lie below toys/"
        if isinstance(run, Toy) and (complaint := _refused(run)):
            yield (section, name, "start"), complaint
        if isinstance(run, Toy) and counts_epochs(run):
            yield (section, name, "optimizer"), f"{run.optimizer.name} takes minibatches, and a toy has no examples"
        for place, other in places.items():
            if f"{run.folder}/".startswith(f"{place}/"):
                yield (section, name, "folder"), f"found {run.folder!r}, which lies in the outputs of the run {other!r}"


def _refused(toy: Toy) -> str | None:
    """Why the function of the toy does not take its start, if it does not."""
    f = catalog.find("toys", toy.toy.name)(**toy.toy.options)
    try:
        value = f(torch.tensor(toy.start, dtype=torch.float64))
    except (RuntimeError, ValueError, IndexError) as error:
        return f"{toy.toy.name} cannot be evaluated at the {len(toy.start)} numbers of start: {error}"
    return None if value.ndim == 0 else f"{toy.toy.name} has {value.numel()} values there, and a toy has one"


def supposes_another_optimizer(run: Experiment | Toy, measure: Statistic) -> str | None:
    """What a statistic takes for granted and the optimizer of the run does not give it, if anything."""
    optimizer = run.optimizer.name
    of_gd = {measure.quantity, measure.against, measure.statistic} & {"relation_error", BY_NEXT_GRADIENT}
    if of_gd and optimizer != "gd":
        return f"{of_gd.pop()} is about iterations θ − η∇f, and those of {optimizer} are others"
    return None


def _measurement_contradictions(config: Config) -> Iterator[Finding]:
    places: dict[tuple[str, str], str] = {}
    for name, measurement in config.measurements.items():
        run, diagnostic = measurement.run, measurement.diagnostic.name
        if diagnostic == "sharpness":
            found = "sharpness is measured on every run, as the section `sharpness` says: remove this"
            yield ("measurements", name, "diagnostic", "name"), found
        if run not in config.experiments:
            yield ("measurements", name, "run"), f"there is no experiment {unknown_name(run, config.experiments)}"
            continue
        experiment = config.experiments[run]
        if measurement.source != experiment.folder:
            found = f"found {measurement.source!r}, but the run {run!r} lies in {experiment.folder!r}"
            yield ("measurements", name, "source"), found
        member = catalog.find("diagnostics", diagnostic)
        takes, options = inspect.signature(member).parameters, measurement.diagnostic.options
        for key, value in options.items():
            if annotation_of(member, takes[key]) == Rtol and (complaint := _out_of_reach(config, value)):
                yield ("measurements", name, "diagnostic", key), complaint
        if options.get("k", 0) > options.get("max_products", LARGEST):
            found = f"asks for k = {options['k']} eigenvalues in max_products = {options['max_products']} products"
            yield ("measurements", name, "diagnostic"), found
        if "minibatches" in takes and not counts_epochs(experiment):
            found = f"{diagnostic} is about minibatches, and {experiment.optimizer.name} of {run} takes none"
            yield ("measurements", name, "diagnostic"), found
        if "step_size" in takes and experiment.optimizer.name not in GRADIENT_STEPS:
            found = f"{diagnostic} is about steps along −η∇f, and {experiment.optimizer.name} of {run} takes others"
            yield ("measurements", name, "diagnostic"), found
        if (other := places.setdefault((run, diagnostic), name)) != name:
            yield ("measurements", name), f"{other} measures {diagnostic} on {run} already"


def _figure_contradictions(config: Config, name: str, figure: Figure) -> Iterator[Finding]:
    for run in figure.runs:
        if run not in config.runs:
            yield ("figures", name, "runs", run), f"there is no run {unknown_name(run, config.runs)}"
        elif not f"{config.runs[run].folder}/".startswith(f"{figure.source}/"):
            folder = config.runs[run].folder
            yield ("figures", name, "source"), f"found {figure.source!r}, but the run {run!r} lies in {folder!r}"
    for heading, column in (figure.options.get("columns") or {}).items():
        for run in set(column) - figure.runs.keys():
            yield ("figures", name, "columns", heading), f"the figure has no run {unknown_name(run, figure.runs)}"
    for run in figure.runs.keys() & config.runs.keys() if figure.name == "smoothness_relation" else ():
        if (optimizer := config.runs[run].optimizer.name) != "gd":
            found = f"the relation is about iterations θ − η∇f, and those of {optimizer} are others"
            yield ("figures", name, "runs", run), found
    panels = figure.options.get("panels", ())
    for where, text in figure.texts:
        if complaint := spelt_step_size(text):
            yield ("figures", name, *where), complaint
    labels = [label for label in figure.runs.values() if STEP_SIZE not in label]
    for what, names in (("panels", list(panels)), ("runs", labels)):
        if twice := {each for each in names if names.count(each) > 1}:
            yield ("figures", name, what), f"{', '.join(sorted(twice))!r} stands there twice"
    if "accuracy" in panels and (toys := figure.runs.keys() & config.toys.keys()):
        yield ("figures", name, "panels"), f"accuracy: the toy {min(toys)!r} has none"
    for key, (low, high) in (figure.options.get("limits") or {}).items():
        if not low < high:
            yield ("figures", name, "limits", key), f"found [{low:g}, {high:g}], should be the lower and the higher end"
        if panels and key not in panels:
            yield ("figures", name, "limits", key), f"the figure has no panel {unknown_name(key, panels)}"
    named = _published_curves(figure)
    for panel, curves in figure.reference.items():
        if panel not in named:
            yield ("figures", name, "reference", panel), f"the figure has no panel {unknown_name(panel, named)}"
        for run in curves.keys() - figure.runs.keys():
            yield ("figures", name, "reference", panel, run), f"the figure has no run {unknown_name(run, figure.runs)}"


def _published_curves(figure: Figure) -> Iterable[str]:
    """What the keys of `reference` may be: those in the type of the figure's `published`, or else its panels."""
    draw = catalog.find("figures", figure.name)
    takes = inspect.signature(draw).parameters.get("published")
    key, *_ = (takes and get_args(annotation_of(draw, takes))) or (str,)
    return get_args(key) or figure.options.get("panels", ())


def missing_references(config: Config, folder: Path) -> Iterator[Finding]:
    known = {path.stem for path in folder.glob("*.csv")}
    for name, figure in config.figures.items():
        for panel, curves in figure.reference.items():
            for run, curve in curves.items():
                if curve not in known:
                    near = did_you_mean(curve, sorted(known))
                    yield ("figures", name, "reference", panel, run), f"there is no {folder / curve}.csv{near}"

"""What no single entry of params.yaml can tell: names that are not there, settings that contradict each other."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields

import numpy as np

from eosrepro import catalog
from eosrepro.config.members import Diagnosis, Figure, annotation_of, is_foreign
from eosrepro.config.params import ALL, Config
from eosrepro.config.runs import Run, run_name
from eosrepro.config.statements import BY_NEXT_GRADIENT, Statistic
from eosrepro.config.values import STEP_SIZE, spelt_step_size
from eosrepro.config.words import Finding, unknown_name
from eosrepro.config.yaml import LARGEST
from eosrepro.core.lanczos import LOWEST_RTOL
from eosrepro.core.later import torch
from eosrepro.core.quantities import compared_with_threshold
from eosrepro.core.types import Row, Rtol
from eosrepro.errors import ConfigError


def contradictions(config: Config) -> Iterator[Finding]:
    """What is wrong in params.yaml, and where."""
    if config.profile not in config.profiles:
        yield ("profile",), f"there is no profile {unknown_name(config.profile, config.profiles)}"
        return  # no run is known without one
    yield from _ambiguous_names(config)
    for name, diagnosis in config.diagnose.items():
        if diagnosis.of is not None:
            yield ("diagnose", name, "of"), "this is of all experiments: write it in one of them, under `diagnose`"
    for experiment, family in config.experiments.items():
        own = [run.name for run in config.runs.values() if run.experiment == experiment]
        asked = (
            (name, each) for variant in family for name, of in variant.setting.diagnose.items() for each in of.of or ()
        )
        for name, each in dict.fromkeys(asked):
            if not config.chosen(own, each) and not config.may_be(each, experiment):
                place = ("experiments", experiment, "diagnose", name, "of")
                yield place, f"{experiment} has no run {unknown_name(each, own)}"
    found: dict[Finding, None] = {}
    for run in config.runs.values():
        found |= dict.fromkeys(_run_contradictions(config, run))
    yield from found
    if not found:
        for name, figure in config.figures.items():
            yield from _figure_contradictions(config, name, figure)


def _ambiguous_names(config: Config) -> Iterator[Finding]:
    """Names that would stand for two runs, or for a run and for another experiment."""
    names = [
        (experiment, run_name(experiment, variant)) for experiment, of in config.experiments.items() for variant in of
    ]
    times = Counter(name for _, name in names)
    for experiment, name in names:
        if times[name] > 1:
            yield (
                ("experiments", experiment),
                f"two runs would be named {name}: rename an experiment or a value that varies",
            )
        elif name != experiment and name in config.experiments:
            yield ("experiments", experiment), f"a run would have the name of the experiment {name}: rename one of them"


def _run_contradictions(config: Config, run: Run) -> Iterator[Finding]:
    place, setting = ("experiments", run.experiment), run.setting
    if not run.has_examples and (complaint := _refused(run)):
        yield (*place, "start"), complaint
    if not run.has_examples and run.counts == "epochs":
        yield (*place, "optimizer"), f"{setting.optimizer.name} takes minibatches, and a problem has no examples"
    for name, diagnosis in run.diagnose.items():
        of_all = name in config.diagnose and name not in setting.diagnose
        at = ("diagnose", name) if of_all else (*place, "diagnose", name)
        yield from (((*at, *where), words) for where, words in _diagnosis_contradictions(config, run, name, diagnosis))
    yield from ((place, words) for words in _found_twice(run))


def _found_twice(run: Run) -> Iterator[str]:
    """Quantities that two members find, or one and every training: a figure or claim would be about either."""
    by = {column.name: "every run" for column in fields(Row)}
    for kind, members in (("observations", run.setting.observe), ("diagnostics", run.diagnose)):
        for name, of in members.items():
            for column in catalog.quantities(name, of.options, kind):
                if column in by:
                    yield f"{name} finds {column}, and so does {by[column]}: give it another name in one of them"
                by.setdefault(column, name)


def _diagnosis_contradictions(config: Config, run: Run, name: str, diagnosis: Diagnosis) -> Iterator[Finding]:
    member = catalog.find("diagnostics", name)
    takes, options, optimizer = inspect.signature(member).parameters, diagnosis.options, run.setting.optimizer.name
    for key, value in options.items() if not is_foreign(name) else ():
        # Audits are ten times as accurate as the solves.
        times = 10 if "audit_every" in options else 1
        if annotation_of(member, takes[key]) == Rtol and (complaint := _out_of_reach(config, value, times=times)):
            yield (key,), complaint
    if options.get("k", 0) > options.get("max_products", LARGEST):
        yield (), f"asks for k = {options['k']} eigenvalues in max_products = {options['max_products']} products"
    if "minibatches" in takes and run.counts != "epochs":
        yield (), f"{name} is about minibatches, and {optimizer} of {run.name} takes none"
    if "test" in takes and not (run.has_examples and run.profile.data.options.get("n_test", 1)):
        yield (), f"{name} is about a test split, and {run.name} has none: write n_test beside n_examples of its data"
    if diagnosis.to is not None and (complaint := _no_run_beside(config, run, diagnosis.to)):
        yield ("to",), complaint
    if "optimizer" in takes and (complaint := catalog.refusal(name, run.method)):
        yield (), f"{complaint} ({run.name} is by {optimizer})"
    if "step_size" in takes and not run.method.takes_gradient_steps:
        yield (), f"{name} is about steps along −η∇f, and {optimizer} of {run.name} takes others"


def _no_run_beside(config: Config, run: Run, to: str) -> str | None:
    """Why a run cannot be held to another one, if it cannot."""
    own = {each.name: each for each in config.runs.values() if each.experiment == run.experiment}
    if to not in own:
        return f"{run.experiment} has no run {unknown_name(to, own)}"
    if own[to].counts != run.counts:
        return f"{to} is one of {own[to].counts}, and {run.name} of {run.counts}: write `of` beside it"
    sizes = [each.setting.optimizer.options.get("batch_size") for each in (run, own[to])]
    if run.counts == "epochs" and sizes[0] != sizes[1]:
        return f"an epoch of {to} is of other minibatches than one of {run.name}: they have no equal times"
    return None


def _out_of_reach(config: Config, rtol: float, *, times: int = 1) -> str | None:
    """Why an eigenvalue cannot be found to `rtol` in the precision of `compute`, if it cannot."""
    least = times * LOWEST_RTOL * float(np.finfo(config.compute.dtype).eps)
    return f"found {rtol:g}, should be at least {least:.2g} in {config.compute.dtype}" if rtol < least else None


def _refused(run: Run) -> str | None:
    """Why the function of a problem does not take its start, if it does not."""
    problem, start = run.setting.problem, run.setting.start
    assert problem
    assert start
    cannot = f"{problem.name} cannot be evaluated at the {len(start)} numbers of start"
    if (takes := catalog.takes(problem.name, problem.options, len(start))) is not None:
        return None if takes else cannot
    f = catalog.find("problems", problem.name)(**problem.options)
    try:
        value = f(torch.tensor(start, dtype=torch.float64))
    except (RuntimeError, ValueError, IndexError) as error:
        return f"{cannot}: {error}"
    return None if value.ndim == 0 else f"{problem.name} has {value.numel()} values there, and a problem has one"


def supposes_another_optimizer(run: Run, of: Statistic) -> str | None:
    """What a statistic takes for granted and the optimizer of the run does not give it, if anything."""
    optimizer = run.setting.optimizer.name
    of_gd = {of.quantity, of.against, of.statistic} & {"relation_error", BY_NEXT_GRADIENT}
    if of_gd and not (run.method.takes_gradient_steps and run.counts == "iterations"):
        return f"{of_gd.pop()} is about iterations θ − η∇f, and those of {optimizer} are others"
    if of.relative_to and not run.method.threshold_formula:
        return f"{optimizer} has no stability threshold"
    if of.relative_to and run.method.preconditioned and not compared_with_threshold(of.quantity, preconditioned=True):
        return f"the threshold of {optimizer} is one of the effective sharpness, not of {of.quantity}"
    return None


def claim_contradictions(config: Config) -> Iterator[Finding]:
    """The same of the claims of a valid params.yaml; where they stand in claims.yaml."""
    for claim in config.claims.values():
        place = ("statements", claim.statement)
        if complaint := spelt_step_size(claim.claim):
            yield (*place, "claim"), complaint
        asked = [("quantity", claim.quantity, claim.run), ("against", claim.against, claim.beside or claim.run)]
        for key, quantity, run in asked:
            if quantity is not None and quantity not in (known := config.quantities(run)):
                yield (*place, key), f"{run} has no {_unknown_quantity(quantity, known)}"


def _unknown_quantity(name: str, known: list[str]) -> str:
    """What is said of a quantity that a run does not have: which member finds one of that name, if any does."""
    with suppress(ConfigError, LookupError, TypeError):
        if of := [found for found in catalog.quantities(name) if found in known]:
            return f"{name!r}: it is a diagnostic, which finds {', '.join(of)}: name what should be shown"
    for kind, key in (("diagnostics", "diagnose"), ("observations", "observe")):
        for member in () if any(each.startswith(f"{name}_") for each in known) else catalog.names(kind):
            with suppress(ConfigError, LookupError, TypeError):  # one of the project's own may not load
                for found in catalog.quantities(member, kind=kind):
                    if f"{found}_".startswith(f"{name}_"):
                        return f"{name!r}: write {member}, which finds {found}, into `{key}` of the experiment"
    return unknown_name(name, known)


def _figure_contradictions(config: Config, name: str, figure: Figure) -> Iterator[Finding]:
    place = ("figures", name)
    if figure.of not in (*config.experiments, ALL):
        yield (*place, "of"), f"there is no experiment {unknown_name(figure.of, [*config.experiments, ALL])}"
        return
    own = [run.name for run in config.runs.values() if figure.of in (run.experiment, ALL)]
    columns = figure.options.get("columns") or {}
    drawn, panels = config.drawn[name], figure.options.get("panels", ())
    for key, each in [("runs", each) for each in figure.runs] + [("without", each) for each in figure.without]:
        if not config.chosen(own, each) and not config.may_be(each, figure.of):
            where = "there is no run" if figure.of == ALL else f"{figure.of} has no run"
            yield (*place, key), f"{where} {unknown_name(each, own)}"
    for heading, names in columns.items():
        for each in names:
            unknown = not config.chosen(own, each) and not config.may_be(each, figure.of)
            if not config.chosen(drawn.runs, each) and (unknown or each in figure.without):
                yield (*place, "columns", heading), f"the figure shows no run {unknown_name(each, drawn.runs)}"
    of_whole = [each for each in figure.without if each in config.experiments]
    if own and not drawn.runs and set(own) <= {run for each in of_whole for run in config.chosen(own, each)}:
        yield place, "shows no run"
    runs = {run: config.runs[run] for run in drawn.runs}
    for at, text in figure.texts:
        if complaint := spelt_step_size(text):
            yield (*place, *at), complaint
    labels = [label for label in drawn.runs.values() if STEP_SIZE not in label]
    for what, texts in (("panels", list(panels)), ("runs", labels)):
        if twice := {each for each in texts if texts.count(each) > 1}:
            yield (*place, what), f"{', '.join(sorted(twice))!r} stands there twice"
    for shown in runs if figure.name == "trajectories" else ():
        for panel in {*panels} - {*config.quantities(shown)}:
            yield (*place, "panels"), f"{shown} has no {_unknown_quantity(panel, config.quantities(shown))}"
    yield from (((*place, "limits", *where), words) for where, words in _limit_contradictions(figure, panels))


def _limit_contradictions(figure: Figure, panels: Iterable[str]) -> Iterator[Finding]:
    for key, (low, high) in (figure.options.get("limits") or {}).items():
        if not low < high:
            yield (key,), f"found [{low:g}, {high:g}], should be the lower and the higher end"
        if panels and key not in panels:
            yield (key,), f"the figure has no panel {unknown_name(key, panels)}"

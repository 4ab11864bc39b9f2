"""params.yaml: what is read, what is refused, and in which words."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

import eosrepro.optimizers
from eosrepro import catalog
from eosrepro.config.load import load, read_params, schema, validate
from eosrepro.config.members import _keys_of, _MemberKeys
from eosrepro.config.params import Config
from eosrepro.config.sections import Experiment, Sharpness, Toy
from eosrepro.config.statements import Claim
from eosrepro.config.values import step_size_text
from eosrepro.core.types import Stop
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.errors import ConfigError
from eosrepro.verdicts.statistics import STATISTICS
from tests.conftest import small_problem
from tests.project import PARAMS, ROOT, all_params

TEXT = PARAMS.read_text(encoding="utf-8")


def edited(old: str, new: str, *, after: str = "") -> str:
    """The committed params.yaml with the first `old` behind `after` replaced."""
    start = TEXT.index(after)
    assert old in TEXT[start:], f"{old!r} is no longer in params.yaml behind {after!r}"
    return TEXT[:start] + TEXT[start:].replace(old, new, 1)


def in_exp3(old: str, new: str) -> str:
    return edited(old, new, after="\n  exp3_2over30:\n")


def in_toy(old: str, new: str) -> str:
    return edited(old, new, after="\n  example1_2over39:\n    folder")


def in_figure(old: str, new: str) -> str:
    return edited(old, new, after="\n  exp3:\n    name")


def with_claim(**changes: str | None) -> str:
    """The committed file and one more claim, `extra`, changed as stated; None leaves a key out."""
    claim: dict[str, str | None] = {
        "claim": "RP oscillates near 0",
        "source": "Exp 3",
        "run": "exp3_2over30",
        "quantity": "relative_progress",
        "statistic": "mean",
        "bound": "{max: 0.1}",
    }
    entries = [f"    {key}: {value}\n" for key, value in (claim | changes).items() if value is not None]
    return TEXT + "  extra:\n" + "".join(entries)


EXP3 = "experiments.exp3_2over30"
CLAIM = "claims.extra"

# (what is wrong, the file's text or None for no file, what the message must hold): each is given to the command line, in
# tests/test_cli.py.
BROKEN: list[tuple[str, str | None, list[str]]] = [
    # the file
    ("missing file", None, ["params.yaml does not exist", "folder of the project"]),
    ("empty file", "", ["params.yaml is empty", "experiments"]),
    ("only comments", "# nothing\n", ["params.yaml is empty", "profile"]),
    ("a list", "- profile\n- quick\n", ["a list of 2", "should be a mapping of profile, profiles"]),
    ("a sentence", "edge of stability\n", ["'edge of stability'", "should be a mapping"]),
    ("not YAML", "profile: [quick\n", ["not valid YAML", "line 2"]),
    ("tab", "profile: quick\n\tprofiles: {}\n", ["not valid YAML", "line 2"]),
    ("control character", "profile: qu\x07ick\n", ["not valid YAML", "special characters are not allowed"]),
    ("unknown anchor", edited("*figure1", "*figur1"), ["not valid YAML", "line", "figur1"]),
    ("two documents", TEXT + "---\nprofile: paper\n", ["not valid YAML", "line", "another document"]),
    ("python tag", "profile: !!python/name:os.system\n", ["not valid YAML", "line 1", "python/name"]),
    ("deeply nested", "profile: " + "[" * 5000, ["not valid YAML"]),
    ("contains itself", edited("profile: quick", "profile: &p [*p]"), ["more than 100,000 values: an alias"]),
    ("an anchor twice", edited("profile: quick", "profile: &tanh quick"), ["found duplicate anchor 'tanh'"]),
    ("a code tag", edited("profile: quick", "profile: !!python/object/apply:os.getcwd []"), ["line 1", "python/object"]),
    ("aliases that multiply", edited("templates:", "templates:\n  a0: &a0 [1, 2]\n" + "".join(
        f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))), ["more than 100,000 values: an alias"]),
    ("duplicate experiment", edited("  exp1_relu:\n", "  exp1_tanh:\n"), ["duplicate key 'exp1_tanh'", "line"]),
    ("duplicate key", in_exp3("step_size: 2/30", "step_size: 2/30\n    step_size: 2/31"), ["duplicate key 'step_size'", "line"]),
    ("duplicate merge", in_exp3("<<: *exp3", "<<: *exp3\n    <<: *exp2"), ["duplicate key '<<'", "line"]),
    ("endless number", edited("threads: 2", f"threads: {'9' * 5000}"), ["not valid YAML", "more digits than can be read"]),
    # sections
    ("unknown section", TEXT + "experimentz: {}\n", ["experimentz", "did you mean 'experiments'", "profiles"]),
    ("missing section", edited("mlflow: {experiment: eosrepro, paper: Ahn 2022, window: 20}", ""), ["mlflow", "is missing"]),
    ("empty section", re.sub(r"(?s)\nfigures:\n.*?\nclaims:", "\nfigures:\nclaims:", TEXT), ["figures", "found nothing"]),
    ("unknown profile", edited("profile: quick", "profile: quik"), ["profile", "'quik'", "'quick'", "paper", "jpeg"]),
    ("profile not text", edited("profile: quick", "profile: 3"), ["profile: found 3", "valid string"]),
    # profiles
    ("unknown data", edited("name: photo-patches", "name: photopatches"), ["profiles.quick.data.name", "'photo-patches'", "cifar10"]),
    ("data by file name", edited("name: photo-patches", "name: photo_patches"), ["profiles.quick.data.name", "'photo-patches'"]),
    ("data option", edited("n_examples: 200", "n_example: 200"), ["profiles.quick.data.n_example", "'n_examples'", "seed"]),
    ("data option missing", edited("n_examples: 200, ", ""), ["profiles.quick.data.n_examples", "is missing"]),
    ("negative data", edited("n_examples: 200", "n_examples: -200"), ["profiles.quick.data.n_examples", "-200", "greater than 0"]),
    ("data as text", edited("n_examples: 200", 'n_examples: "200"'), ["profiles.quick.data.n_examples", "'200'", "valid integer"]),
    ("scale", edited("scale: unit", "scale: units"), ["profiles.quick.preprocessing.scale", "'units'", "did you mean 'unit'", "'symmetric'"]),
    ("scale is a number", edited("scale: unit", "scale: 255"), ["profiles.quick.preprocessing.scale: found 255", "'unit'"]),
    ("scale key", edited("scale: unit", "scale: {zero: 0, on: 1}"), ["preprocessing.scale.on:", "did you mean 'one'"]),
    ("scale of width 0", edited("scale: unit", "scale: {zero: 1, one: 1}"), ["preprocessing.scale: zero and one are both 1"]),
    ("standardise", edited("standardise: none", "standardise: per_chanel"), ["preprocessing.standardise", "did you mean 'per_channel'"]),
    ("statistics", edited("statistics: subset", "statistics: all"), ["preprocessing.statistics", "'all'", "'subset' or 'source'"]),
    ("cap of 0", edited("max_steps: 600 ", "max_steps: 0 "), ["profiles.quick.max_steps", "found 0", "greater than 0"]),
    ("published as text", edited("published: false", "published: no"), ["profiles.quick.published", "'no'", "valid boolean"]),
    ("profile key", edited("published: false", "publish: false"), ["profiles.quick.publish", "did you mean 'published'"]),
    ("epochs of 0", edited("max_epochs: 100 ", "max_epochs: 0 "), ["profiles.quick.max_epochs", "found 0", "greater than 0"]),
    ("eq. 4.3 of SGD", with_claim(run="exp8_2over50", statistic="relation_error"), ["claims.extra: relation_error is about iterations θ − η∇f, and those of sgd are others"]),
    ("RP by the next gradient of SGD", with_claim(run="exp8_2over50", quantity="relative_progress_by_next_gradient"), ["claims.extra: relative_progress_by_next_gradient is about iterations θ − η∇f"]),
    ("against RP by the next gradient of SGD", with_claim(run="exp8_2over50", statistic="correlation", against="relative_progress_by_next_gradient"), ["claims.extra: relative_progress_by_next_gradient is about"]),
    ("relation of SGD drawn", edited("{exp6_two_hidden_2over30:", "{exp8_2over50: SGD, exp6_two_hidden_2over30:", after="\n  exp6_two_hidden_relation:"), ["figures.exp6_two_hidden_relation.runs.exp8_2over50: the relation is about iterations θ − η∇f, and those of sgd are others"]),
    # measurements
    ("measurement of no run", edited("run: exp3_2over60, source", "run: exp3_2over61, source"), ["measurements.exp5.run: there is no experiment 'exp3_2over61'; did you mean 'exp3_2over60'"]),
    ("measurement of a toy", edited("run: exp3_2over60, source", "run: example4, source"), ["measurements.exp5.run: there is no experiment 'example4'"]),
    ("measurement elsewhere", edited("source: tanh/unstable, diag", "source: tanh, diag"), ["measurements.exp5.source: found 'tanh', but the run 'exp3_2over60' lies in 'tanh/unstable'"]),
    ("unknown diagnostic", edited("name: tau_scan", "name: tau_scn"), ["measurements.exp5.diagnostic.name", "did you mean 'tau_scan'"]),
    ("diagnostic option", edited("n_taus: 100", "n_tau: 100"), ["measurements.exp5.diagnostic.n_tau:", "did you mean 'n_taus'"]),
    ("one tau", edited("n_taus: 100", "n_taus: 1"), ["measurements.exp5.diagnostic.n_taus", "found 1", "greater than or equal to 2"]),
    ("negative tolerance", edited("n_taus: 100, tolerance: 1e-4", "n_taus: 100, tolerance: -1e-4"), ["measurements.exp5.diagnostic.tolerance", "greater than or equal to 0"]),
    ("more eigenvalues than columns", edited("{name: spectrum, k: 3", "{name: spectrum, k: 6"), ["measurements.spectrum.diagnostic.k", "found 6"]),
    ("step size of a diagnostic", edited("n_taus: 100", "n_taus: 100, step_size: 2"), ["measurements.exp5.diagnostic.step_size: is not a known key"]),
    ("sharpness twice", edited("{name: tau_scan, n_taus: 100, tolerance: 1e-4}", "{name: sharpness, k: 1, rtol: 1e-2, max_products: 9, audit_every: 1, seed: 0}"), ["measurements.exp5.diagnostic.name: sharpness is measured on every run"]),
    ("minibatches of GD", edited("{name: tau_scan, n_taus: 100, tolerance: 1e-4}", "{name: expected_progress}"), ["measurements.exp5.diagnostic: expected_progress is about minibatches, and gd of exp3_2over60 takes none"]),
    ("measured twice", edited("run: exp8_2over50, source", "run: exp8_2over100, source"), ["exp8_2over50 measures expected_progress on exp8_2over100 already"]),
    ("measured never", edited("every: 5}", "every: 0}", after="\nmeasurements:"), ["measurements.exp5.every", "found 0", "greater than 0"]),
    ("minibatch of none", edited("batch_size: 32", "batch_size: 0"), ["optimizer.batch_size", "found 0", "greater than or equal to 1"]),
    ("toy by SGD", in_toy("optimizer: {name: gd}", "optimizer: {name: sgd}"), ["toys.example1_2over39.optimizer: sgd takes minibatches, and a toy has no examples"]),
    ("seed beyond 64 bits", edited("n_nodes: 20, rtol: 1e-2, max_products: 200, seed: 0", "n_nodes: 20, rtol: 1e-2, max_products: 200, seed: 18446744073709551616"), ["measurements.spectrum.diagnostic.seed: found 18446744073709551616, should be at most 9223372036854775807"]),
    ("negative seed of a diagnostic", edited("n_nodes: 20, rtol: 1e-2, max_products: 200, seed: 0", "n_nodes: 20, rtol: 1e-2, max_products: 200, seed: -1"), ["measurements.spectrum.diagnostic.seed: found -1", "greater than or equal to 0"]),
    ("rtol of a segment below float32", edited("points: 5, rtol: 1e-2", "points: 5, rtol: 1e-7"), ["measurements.corollary_1.diagnostic.rtol: found 1e-07, should be at least 3.6e-06 in float32"]),
    ("rtol of a spectrum below float32", edited("n_nodes: 20, rtol: 1e-2", "n_nodes: 20, rtol: 3e-6"), ["measurements.spectrum.diagnostic.rtol: found 3e-06, should be at least 3.6e-06 in float32"]),
    ("rtol of 0", edited("points: 5, rtol: 1e-2", "points: 5, rtol: 0"), ["measurements.corollary_1.diagnostic.rtol: found 0, should be at least 3.6e-06"]),
    ("rtol above 1", edited("points: 5, rtol: 1e-2", "points: 5, rtol: 2"), ["measurements.corollary_1.diagnostic.rtol: found 2", "less than or equal to 1"]),
    ("more eigenvalues than products allowed", edited("n_nodes: 20, rtol: 1e-2, max_products: 200", "n_nodes: 20, rtol: 1e-2, max_products: 2"), ["measurements.spectrum.diagnostic: asks for k = 3 eigenvalues in max_products = 2 products"]),
    ("as many taus as nobody can hold", edited("n_taus: 100", "n_taus: 1000000000000000000"), ["measurements.exp5.diagnostic.n_taus: found 1000000000000000000", "less than or equal to 1000000"]),
    # compute, sharpness, mlflow
    ("device", edited("device: auto", "device: gpu"), ["compute.device", "'gpu'", "'cpu' or 'cuda'"]),
    ("dtype", edited("dtype: float32", "dtype: flaot32"), ["compute.dtype", "did you mean 'float32'"]),
    ("no threads", edited("threads: 2", "threads: 0"), ["compute.threads", "found 0", "greater than 0"]),
    ("threads", edited("threads: 2", "threads: 1000000000"), ["compute.threads", "found 1000000000", "less than or equal to 1024"]),
    ("half a thread", edited("threads: 2", "threads: 1.5"), ["compute.threads", "found 1.5", "valid integer"]),
    ("true thread", edited("threads: 2", "threads: true"), ["compute.threads", "found True", "valid integer"]),
    ("compute key", edited("chunk_size", "chunksize"), ["compute.chunksize", "did you mean 'chunk_size'"]),
    ("rtol", edited("rtol: 3e-3", "rtol: 2"), ["sharpness.rtol", "found 2", "less than 1"]),
    ("rtol below float32", edited("rtol: 3e-3", "rtol: 1e-6"), ["sharpness.rtol: found 1e-06, should be at least 3.6e-05 in float32"]),
    ("rtol as text", edited("rtol: 3e-3", 'rtol: "1e-3"'), ["sharpness.rtol", "'1e-3'", "valid number"]),
    ("rtol nan", edited("rtol: 3e-3", "rtol: .nan"), ["sharpness.rtol", "found nan", "finite"]),
    ("more eigenvalues than products", edited("{k: 1,", "{k: 201,"), ["sharpness: asks for k = 201 eigenvalues in max_products = 200"]),
    ("no eigenvalues", edited("{k: 1,", "{k: 0,"), ["sharpness.k", "found 0"]),
    ("negative seed", edited("audit_every: 10, seed: 0", "audit_every: 10, seed: -1"), ["sharpness.seed", "found -1"]),
    ("half a character", edited("experiment: eosrepro", 'experiment: "\\ud83d"'), [r"mlflow.experiment: found '\ud83d', which holds half a character"]),
    ("mlflow name", edited("experiment: eosrepro", "experiment: ''"), ["mlflow.experiment", "found ''", "should have at least 1 character"]),
    # experiments
    ("name of a run", edited("  exp1_relu:\n", "  exp1-relu:\n"), ["experiments.exp1-relu", "letters, digits and _"]),
    ("numeric name", edited("  exp1_relu:\n", "  12:\n"), ["experiments.12", "valid string"]),
    ("experiment is text", edited("\n  exp3_2over30:\n", "\n  extra: tanh\n  exp3_2over30:\n"), ["experiments.extra", "'tanh'", "mapping"]),
    ("folder above", in_exp3("<<: *exp3", "<<: *exp3\n    folder: ../elsewhere"), [f"{EXP3}.folder", "'../elsewhere'", "relative"]),
    ("absolute folder", in_exp3("<<: *exp3", "<<: *exp3\n    folder: /tmp"), [f"{EXP3}.folder", "'/tmp'", "relative"]),
    ("folder in a run", in_exp3("<<: *exp3", "<<: *exp3\n    folder: exp1/exp1_tanh"), [f"{EXP3}.folder", "'exp1_tanh'"]),
    ("model contains itself", in_exp3("model: {<<: *tanh}", "model: &m {name: mlp, width: *m}"), ["more than 100,000 values: an alias"]),
    ("unknown model", in_exp3("model: {<<: *tanh}", "model: {name: mpl}"), [f"{EXP3}.model.name", "did you mean 'mlp'"]),
    ("model without name", in_exp3("model: {<<: *tanh}", "model: {width: 3}"), [f"{EXP3}.model", "no name", "mlp"]),
    ("model as text", in_exp3("model: {<<: *tanh}", "model: mlp"), [f"{EXP3}.model", "'mlp'", "{name: mlp}"]),
    ("model option", in_exp3("{<<: *tanh}", "{<<: *tanh, widht: 3}"), [f"{EXP3}.model.widht", "did you mean 'width'", "depth"]),
    ("width of 0", in_exp3("{<<: *tanh}", "{<<: *tanh, width: 0}"), [f"{EXP3}.model.width", "found 0", "greater than or equal to 1"]),
    ("depth below 0", in_exp3("{<<: *tanh}", "{<<: *tanh, depth: -1}"), [f"{EXP3}.model.depth", "found -1"]),
    ("endless depth", in_exp3("{<<: *tanh}", "{<<: *tanh, depth: 1000000}"), [f"{EXP3}.model.depth", "found 1000000", "less than or equal to 10000"]),
    ("width as text", in_exp3("{<<: *tanh}", "{<<: *tanh, width: wide}"), [f"{EXP3}.model.width", "'wide'", "integer"]),
    ("activation", in_exp3("{<<: *tanh}", "{<<: *tanh, activation: tahn}"), [f"{EXP3}.model.activation", "did you mean 'tanh'", "'elu'"]),
    ("template", edited("depth: 2, activation: tanh", "detph: 2, activation: tanh"), [f"{EXP3}.model.detph", "did you mean 'depth'"]),
    ("unknown loss", in_exp3("name: cross_entropy", "name: cross_entopy"), [f"{EXP3}.loss.name", "did you mean 'cross_entropy'"]),
    ("loss option", in_exp3("name: cross_entropy", "name: cross_entropy, smoothing: 0.1"), [f"{EXP3}.loss.smoothing", "allowed: name"]),
    ("unknown optimizer", in_exp3("name: gd", "name: gdd"), [f"{EXP3}.optimizer.name", "did you mean 'gd'"]),
    ("step size beside gd", in_exp3("name: gd", "name: gd, step_size: 2/30"), [f"{EXP3}.optimizer.step_size", "not a known key"]),
    ("half a fraction", in_exp3("step_size: 2/30", "step_size: 2/"), [f"{EXP3}.step_size", "'2/'", "such as 2/60"]),
    ("division by 0", in_exp3("step_size: 2/30", "step_size: 2/0"), [f"{EXP3}.step_size", "'2/0'", "such as 2/60"]),
    ("words", in_exp3("step_size: 2/30", "step_size: two/60"), [f"{EXP3}.step_size", "'two/60'", "such as 2/60"]),
    ("negative fraction", in_exp3("step_size: 2/30", "step_size: -2/60"), [f"{EXP3}.step_size", "'-2/60'", "positive"]),
    ("negative step", in_exp3("step_size: 2/30", "step_size: -0.1"), [f"{EXP3}.step_size", "-0.1", "positive"]),
    ("step of 0", in_exp3("step_size: 2/30", "step_size: 0"), [f"{EXP3}.step_size", "found 0", "positive"]),
    ("step beyond float64", in_exp3("step_size: 2/30", 'step_size: "1e400"'), [f"{EXP3}.step_size", "'1e400'", "positive"]),
    ("step that is 0 in float64", in_exp3("step_size: 2/30", 'step_size: "1e-400"'), [f"{EXP3}.step_size", "'1e-400'", "positive"]),
    ("threshold beyond float64", in_exp3("step_size: 2/30", 'step_size: "1e-310"'), [f"{EXP3}.step_size", "'1e-310'", "positive"]),
    ("infinite step", in_exp3("step_size: 2/30", "step_size: .inf"), [f"{EXP3}.step_size", "found inf", "positive"]),
    ("step as list", in_exp3("step_size: 2/30", "step_size: [2, 30]"), [f"{EXP3}.step_size", "a list of 2", "such as 2/60"]),
    ("true step", in_exp3("step_size: 2/30", "step_size: true"), [f"{EXP3}.step_size", "found True", "positive"]),
    ("no step size", in_exp3("    step_size: 2/30\n", ""), [f"{EXP3}.step_size", "is missing"]),
    ("mistyped key", in_exp3("step_size: 2/30", "stepsize: 2/30"), [f"{EXP3}.stepsize", "did you mean 'step_size'", f"{EXP3}.step_size: is missing"]),
    ("seed as text", in_exp3("<<: *exp3", "<<: *exp3\n    seed: lucky"), [f"{EXP3}.seed", "'lucky'", "integer"]),
    ("huge seed", in_exp3("<<: *exp3", f"<<: *exp3\n    seed: {2**64}"), [f"{EXP3}.seed", "at most 9223372036854775807"]),
    ("snapshots", in_exp3("<<: *exp3", "<<: *exp3\n    snapshot_every: 0"), [f"{EXP3}.snapshot_every", "found 0"]),
    ("accuracy in %", in_exp3("{<<: *to_95_percent}", "{accuracy: 95, max_steps: 9}"), [f"{EXP3}.stop.accuracy", "found 95", "less than or equal to 1"]),
    ("stop without end", in_exp3("{<<: *to_95_percent}", "{accuracy: 0.95}"), [f"{EXP3}.stop.max_steps", "is missing"]),
    ("stop key", in_exp3("{<<: *to_95_percent}", "{max_step: 9}"), [f"{EXP3}.stop.max_step", "did you mean 'max_steps'", "accuracy"]),
    ("stop is a number", in_exp3("{<<: *to_95_percent}", "300"), [f"{EXP3}.stop", "found 300", "mapping"]),
    ("loss_above", in_exp3("{<<: *to_95_percent}", "{max_steps: 9, loss_above: -1}"), [f"{EXP3}.stop.loss_above", "found -1"]),
    # toys
    ("unknown toy", in_toy("name: quadratic", "name: quadratik"), ["toys.example1_2over39.toy.name", "did you mean 'quadratic'"]),
    ("toy option", in_toy("curvatures:", "curvature:"), ["toys.example1_2over39.toy.curvature", "did you mean 'curvatures'"]),
    ("curvatures", in_toy("[20, 1]", "[20, steep]"), ["toys.example1_2over39.toy.curvatures.1", "'steep'", "number"]),
    ("start", in_toy("start: [0.1, 0.1]", "start: [0.1, '0.1']"), ["toys.example1_2over39.start.1", "'0.1'", "number"]),
    ("start is a number", in_toy("start: [0.1, 0.1]", "start: 0.1"), ["toys.example1_2over39.start", "found 0.1", "valid list"]),
    ("empty start", in_toy("start: [0.1, 0.1]", "start: []"), ["toys.example1_2over39.start", "at least 1"]),
    ("start of three numbers", in_toy("start: [0.1, 0.1]", "start: [0.1, 0.1, 0.1]"), ["toys.example1_2over39.start: quadratic cannot be evaluated at the 3 numbers"]),
    ("no curvatures", in_toy("curvatures: [20, 1]", "curvatures: []"), ["toys.example1_2over39.start: quadratic cannot be evaluated at the 2 numbers"]),
    ("accuracy of a toy", in_toy("stop: {", "stop: {accuracy: 1, "), ["toys.example1_2over39.stop.accuracy", "allowed: max_steps, loss_above"]),
    ("model of a toy", in_toy("toy: {name: quadratic", "model: {name: quadratic"), ["toys.example1_2over39.model", "toys.example1_2over39.toy: is missing"]),
    ("one name twice", edited("\n  example1_2over39:\n    f", "\n  exp1_tanh:\n    f"), ["toys.exp1_tanh", "unique"]),
    # figures
    ("unknown figure", edited("name: trajectories", "name: trajectory"), ["figures.example4.name", "did you mean 'trajectories'"]),
    ("figure without name", edited("    name: toy_paths\n", ""), ["figures.example1", "no name", "trajectories"]),
    ("figure option", in_figure("panels:", "pannels:"), ["figures.exp3.pannels", "did you mean 'panels'", "limits", "figures.exp3.panels: is missing"]),
    ("unknown panel", in_figure("panels: [loss", "panels: [lost"), ["figures.exp3.panels.0", "did you mean 'loss'"]),
    ("limits", edited("limits: {loss: [0, 4], sharpness: [0, 160]}", "limits: {loss: [0]}"), ["figures.exp1.limits.loss.1", "is missing"]),
    ("limits upside down", edited("limits: {loss: [0, 4], sharpness: [0, 160]}", "limits: {loss: [4, 0]}"), ["figures.exp1.limits.loss: found [4, 0]", "lower and the higher end"]),
    ("limits of no panel", edited("limits: {loss: [0, 4], sharpness: [0, 160]}", "limits: {accuracy: [0, 1]}"), ["figures.exp1.limits.accuracy: the figure has no panel 'accuracy'"]),
    ("limits of one coordinate", edited("limits: {theta_1: [5, 14], theta_2: [-2, 2]}", "limits: {theta_1: [5, 14]}"), ["figures.example3.limits", "at least 2"]),
    ("steps below 0", edited("steps: 49", "steps: -49"), ["figures.example3.steps", "found -49"]),
    ("no panels", in_figure("panels: [loss, relative_progress, sharpness]", "panels: []"), ["figures.exp3.panels", "at least 1"]),
    ("panel twice", in_figure("panels: [loss, relative_progress, sharpness]", "panels: [loss, relative_progress, sharpness, loss]"), ["figures.exp3.panels: 'loss' stands there twice"]),
    ("label twice", edited("exp1_relu: ReLU", "exp1_relu: tanh"), ["figures.exp1.runs: 'tanh' stands there twice"]),
    ("step size in a label", in_figure("exp3_2over60: *eta", "exp3_2over60: η=2/60"), ["figures.exp3.runs.exp3_2over60: 'η=2/60' spells a step size", "write {step_size}"]),
    ("step size as a decimal", in_figure("exp3_2over60: *eta", "exp3_2over60: η = 0.05"), ["figures.exp3.runs.exp3_2over60: 'η = 0.05' spells a step size"]),
    ("step size in a title", edited("Example 2: η = {step_size}", "Example 2 at 2/39"), ["figures.example2.title: 'Example 2 at 2/39' spells a step size"]),
    ("step size in a column", edited("stable: [exp2_2over300,", "lr 1e-3: [exp2_2over300,"), ["figures.exp4.columns.lr 1e-3: 'lr 1e-3' spells a step size"]),
    ("step size in a claim", with_claim(claim="At η = 2/30 it diverges"), [f"{CLAIM}.claim: 'At η = 2/30 it diverges' spells a step size"]),
    ("empty column", edited("stable: [exp2_2over300, exp2_2over400, exp2_2over500]", "stable: []"), ["figures.exp4.columns.stable", "at least 1"]),
    ("accuracy panel of a toy", edited("panels: [directional_smoothness, relative_progress]", "panels: [accuracy]"), ["figures.example4.panels: accuracy: the toy 'example4' has none"]),
    ("figure without runs", edited("runs: {example4: *eta}", "runs: {}"), ["figures.example4.runs", "at least 1"]),
    ("unknown run", in_figure("exp3_2over30:", "exp3_2ovr30:"), ["figures.exp3.runs.exp3_2ovr30", "did you mean 'exp3_2over30'"]),
    ("source elsewhere", in_figure("source: tanh/unstable", "source: tanh/stable"), ["figures.exp3.source", "'tanh/stable'", "'tanh/unstable'"]),
    ("source half-named", in_figure("source: tanh/unstable", "source: tanh/unst"), ["figures.exp3.source", "'tanh/unst'", "'tanh/unstable'"]),
    ("column", edited("stable: [exp2_2over300,", "stable: [exp2_2over30,"), ["figures.exp4.columns.stable", "did you mean 'exp2_2over300'"]),
    ("reference panel", in_figure("      loss: {", "      lost: {"), ["figures.exp3.reference.lost", "did you mean 'loss'"]),
    ("reference run", in_figure("{exp3_2over30: exp3_loss", "{exp3_2over3: exp3_loss"), ["figures.exp3.reference.loss.exp3_2over3", "did you mean 'exp3_2over30'"]),
    ("reference file", in_figure("exp3_loss_2over30", "exp3_los_2over30"), ["figures.exp3.reference.loss.exp3_2over30", "exp3_los_2over30.csv", "did you mean 'exp3_loss_2over30'"]),
    ("reference curve", edited("directional_smoothness_mean: {", "directional_smoothness_meen: {"), ["figures.exp5.reference.directional_smoothness_meen", "did you mean 'directional_smoothness_mean'"]),
    ("reference by panel", edited("      expected_relative_progress: {exp8_2over100", "      expected_progress: {exp8_2over100"), ["figures.exp7.reference.expected_progress", "loss, expected_relative_progress, predicted_expected_progress"]),
    # claims
    ("run of a claim", with_claim(run="exp3_2over31"), [f"{CLAIM}.run", "'exp3_2over31'", "did you mean 'exp3_2over30'"]),
    ("quantity", with_claim(quantity="relativ_progress"), [f"{CLAIM}.quantity", "did you mean 'relative_progress'"]),
    ("θ of a network", with_claim(quantity="theta_1"), [f"{CLAIM}.quantity", "exp3_2over30 has no 'theta_1'", "sharpness"]),
    ("accuracy of a toy claimed", with_claim(run="example4", quantity="accuracy"), [f"{CLAIM}.quantity", "example4 has no 'accuracy'"]),
    ("eigenvalue", with_claim(quantity="eigenvalue_2"), [f"{CLAIM}.quantity", "'eigenvalue_2'"]),
    ("statistic", with_claim(statistic="meen"), [f"{CLAIM}.statistic", "did you mean 'mean'", "'run_length'"]),
    ("relative_to", with_claim(relative_to="treshold"), [f"{CLAIM}.relative_to", "'treshold'", "did you mean 'threshold'"]),
    ("no bound", with_claim(bound=None), [f"{CLAIM}.bound", "is missing"]),
    ("empty bound", with_claim(bound="{}"), [f"{CLAIM}.bound", "min, max or both"]),
    ("bound upside down", with_claim(bound="{min: 1, max: 0}"), [f"{CLAIM}.bound", "min 1 is above max 0"]),
    ("bound key", with_claim(bound="{mix: 1}"), [f"{CLAIM}.bound.mix", "did you mean 'min'"]),
    ("window", with_claim(window="{from: onset, last: 0.5}"), [f"{CLAIM}.window", "either from and/or to, or last"]),
    ("empty window", with_claim(window="{}"), [f"{CLAIM}.window", "either from and/or to, or last"]),
    ("window point", with_claim(window="{from: onzet}"), [f"{CLAIM}.window.from", "'onzet'", "onset or end"]),
    ("window before 0", with_claim(window="{to: -1}"), [f"{CLAIM}.window.to", "found -1", "step number"]),
    ("window backwards", with_claim(window="{from: 750, to: 250}"), [f"{CLAIM}.window: holds no step: from 750 is after to 250"]),
    ("window of a fact", with_claim(statistic="onset", window="{last: 0.5}"), [f"{CLAIM}: holds a window, and onset is of the whole run"]),
    ("unit of a fact", with_claim(statistic="run_length", relative_to="threshold"), [f"{CLAIM}: holds relative_to, and run_length has no unit"]),
    ("share above 1", with_claim(window="{last: 2}"), [f"{CLAIM}.window.last", "found 2", "less than or equal to 1"]),
    ("level", with_claim(level="1"), [f"{CLAIM}: holds a level", "not for mean"]),
    ("level of two", with_claim(statistic="correlation", against="loss", level="1"), [f"{CLAIM}: holds a level", "not for correlation"]),
    ("nothing against", with_claim(statistic="ratio"), [f"{CLAIM}: holds no `against`, which is for correlation, largest_difference, ratio"]),
    ("against nothing", with_claim(against="loss"), [f"{CLAIM}: holds `against`"]),
    ("against", with_claim(statistic="ratio", against="los"), [f"{CLAIM}.against: exp3_2over30 has no 'los'; did you mean 'loss'"]),
    ("unit of two", with_claim(statistic="ratio", against="loss", relative_to="threshold"), [f"{CLAIM}: holds relative_to", "ratio has no unit"]),
    ("not measured there", with_claim(quantity="expected_relative_progress"), [f"{CLAIM}.quantity: exp3_2over30 has no 'expected_relative_progress'"]),
    ("no level", with_claim(statistic="first_above"), [f"{CLAIM}: holds neither level nor relative_to", "first_above"]),
    ("no level outside", with_claim(statistic="first_outside"), [f"{CLAIM}: holds no level", "first_outside"]),
    ("published number as text", with_claim(published="about 0"), [f"{CLAIM}.published", "'about 0'", "number"]),
    ("needs", with_claim(needs="publised"), [f"{CLAIM}.needs", "did you mean 'published'"]),
    ("claim without words", with_claim(claim="''"), [f"{CLAIM}.claim", "at least 1 character"]),
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a params.yaml into a project of its own, which has the published curves."""
    (tmp_path / "reference").symlink_to(ROOT / "reference")

    def write(text: str) -> Path:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "params.yaml"

    return write


@pytest.fixture(scope="module")
def committed() -> Config:
    return validate(read_params(PARAMS), PARAMS, reference=ROOT / "reference")


def messages(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).splitlines()


# --- refused ----------------------------------------------------------------------------------------------------------


def test_the_names_of_the_broken_files_are_unique() -> None:
    assert len({name for name, _, _ in BROKEN}) == len(BROKEN)


def test_every_error_has_a_line_of_its_own(project: Callable[[str], Path]) -> None:
    text = (
        TEXT.replace("threads: 2", "threads: 0")
        .replace("window: 20", "window: 0")
        .replace("step_size: 2/39", "step_size: 1/0")
    )
    path = project(text)
    places = [line.removeprefix(f"{path}: ").split(":")[0] for line in messages(path)]
    assert places == [
        "compute.threads",
        "mlflow.window",
        "toys.example1_2over39.step_size",
        "toys.example2_quadratic.step_size",
        "toys.example2_tanh.step_size",
    ]


HEAVY_BALL = """
def heavy_ball(*, step_size: float): return Optimizer(lambda theta: theta, lambda at, m: (at.grad, m), None, "(2+2β)/η")
"""


def test_what_supposes_steps_along_the_gradient_is_refused_for_another_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heavy ball is stable below (2 + 2β)/η, and its steps are not η∇f."""
    folder = tmp_path / "members"
    folder.mkdir()
    (folder / "heavy_ball.py").write_text(f"from eosrepro.core.types import Optimizer\n{HEAVY_BALL}", encoding="utf-8")
    monkeypatch.setattr(eosrepro.optimizers, "__path__", [*eosrepro.optimizers.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "eosrepro.optimizers.heavy_ball", raising=False)
    params = all_params()
    run = params["experiments"]["exp3_2over60"]
    run["optimizer"] = {"name": "heavy_ball"}
    segment = {"name": "segment_sharpness", "points": 2, "rtol": 1e-2, "max_products": 9, "seed": 0}
    params["measurements"] = {
        "tau": params["measurements"]["exp5"],
        "segment": params["measurements"]["exp5"] | {"diagnostic": segment},
        "free": params["measurements"]["exp5"] | {"diagnostic": params["measurements"]["spectrum"]["diagnostic"]},
    }
    bound = {"claim": "a", "source": "b", "run": "exp3_2over60", "bound": {"max": 1.0}}
    mean = bound | {"quantity": "sharpness", "statistic": "mean"}
    params["claims"] = {
        "threshold": mean | {"relative_to": "threshold"},
        "relation": bound | {"quantity": "relative_progress", "statistic": "relation_error"},
        "unit": mean,
    }
    params["figures"] = {}
    with pytest.raises(ConfigError) as caught:
        validate(params, Path("params.yaml"), reference=ROOT / "reference")
    sys.modules.pop("eosrepro.optimizers.heavy_ball")
    assert str(caught.value).splitlines() == [
        "params.yaml: measurements.tau.diagnostic: tau_scan is about steps along −η∇f, and heavy_ball of exp3_2over60 takes others",
        "params.yaml: measurements.segment.diagnostic: segment_sharpness is about steps along −η∇f, and heavy_ball of exp3_2over60 takes others",
        "params.yaml: claims.relation: relation_error is about iterations θ − η∇f, and those of heavy_ball are others",
    ]


PLACES = {
    "models": "experiments.exp3_2over30.model",
    "losses": "experiments.exp3_2over30.loss",
    "optimizers": "experiments.exp3_2over30.optimizer",
    "toys": "toys.example1_2over39.toy",
    "data": "profiles.quick.data",
    "diagnostics": "measurements.exp5.diagnostic",
    "figures": "figures.exp3",
}
WHOLE_NUMBERS = [
    (kind, name, parameter.name)
    for kind in catalog.KINDS
    for name in catalog.names(kind)
    for parameter in inspect.signature(catalog.find(kind, name)).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY and re.search(r"\bint\b|Seed", str(parameter.annotation))
]


@pytest.mark.parametrize(("kind", "name", "option"), WHOLE_NUMBERS)
def test_no_whole_number_of_a_member_is_beyond_64_bits(kind: str, name: str, option: str) -> None:
    for number in (10**30, 2**64, 2**63, -(2**63)):
        params = all_params()
        *parents, last = PLACES[kind].split(".")
        entry = reduce(lambda content, key: content[key], parents, params)
        entry[last] = {"name": name, option: number}
        with pytest.raises(
            ConfigError, match=rf"^params\.yaml: {PLACES[kind]}\.{option}: found {number}, should be at"
        ):
            validate(params, Path("params.yaml"), reference=ROOT / "reference")


@pytest.mark.parametrize(
    ("kind", "name", "option"), [each for each in WHOLE_NUMBERS if each[2] == "seed" and each[1] != "sharpness"]
)
def test_every_seed_has_the_same_bounds(kind: str, name: str, option: str) -> None:
    schema = _keys_of(catalog.find(kind, name), name, _MemberKeys).model_json_schema()
    bounds = schema["properties"][option]
    assert (bounds["minimum"], bounds["maximum"]) == (0, 2**63 - 1)


def test_the_largest_seed_works() -> None:
    largest = 2**63 - 1
    assert len(catalog.find("data", "digits")(n_examples=3, seed=largest).pixels) == 3
    assert len(catalog.find("data", "photo-patches")(n_examples=10, seed=largest).pixels) == 10
    optimizer = catalog.find("optimizers", "sgd")(step_size=0.1, seed=largest, batch_size=largest)
    assert [len(batch) for batch in optimizer.minibatches(5, 0)] == [5]
    objective, theta = small_problem()
    (row,) = sharpness(objective, [(0, theta)], k=1, rtol=1e-3, max_products=100, audit_every=1, seed=largest)
    assert row["sharpness"] == pytest.approx(row["audit_sharpness"], rel=1e-3)


def test_what_rtol_may_be_hangs_on_the_precision(project: Callable[[str], Path]) -> None:
    text = edited("points: 5, rtol: 1e-2", "points: 5, rtol: 1e-7").replace("dtype: float32", "dtype: float64")
    assert load(project(text)).measurements["corollary_1"].diagnostic.options["rtol"] == 1e-7


def test_contradictions_are_listed_together(project: Callable[[str], Path]) -> None:
    path = project(with_claim(run="nothing").replace("profile: quick", "profile: fast"))
    assert len(messages(path)) == 2


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    assert messages(tmp_path / "params.yaml") == [f"{tmp_path}/params.yaml cannot be read: Is a directory"]


def test_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(TEXT.encode("utf-16"))
    assert messages(tmp_path / "params.yaml") == [
        f"{tmp_path}/params.yaml is not UTF-8 text (byte 0): save it as UTF-8"
    ]


def test_long_values_are_shortened(project: Callable[[str], Path]) -> None:
    line = messages(project(edited("profile: quick", f"profile: [{'a' * 500}]")))[0]
    assert len(line.split(": ", 1)[1]) < 100


# --- read -------------------------------------------------------------------------------------------------------------


def test_the_committed_file_declares_the_paper(committed: Config) -> None:
    assert committed.profile == "quick"
    assert {name.split("_")[0] for name in committed.runs} == {
        "example1", "example2", "example3", "example4", "figure1", "exp1", "exp2", "exp3", "exp6", "exp8", "exp9",
    }  # fmt: skip
    assert {claim.run for claim in committed.claims.values()} == set(committed.runs)


def test_every_run_but_the_remark_is_in_a_figure(committed: Config) -> None:
    drawn = {run for figure in committed.figures.values() for run in figure.runs}
    assert set(committed.runs) - drawn == {"exp3_2over10"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2/60", Fraction(2, 60)),
        ("1/3", Fraction(1, 3)),
        ("0.1", Fraction(1, 10)),
        ("'0.1'", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("1e-4", Fraction(1, 10000)),
        ("2", Fraction(2)),
    ],
)
def test_step_sizes_are_read_exactly(written: str, read: Fraction, project: Callable[[str], Path]) -> None:
    assert load(project(in_exp3("step_size: 2/30", f"step_size: {written}"))).run("exp3_2over30").step_size == read


@pytest.mark.parametrize(("step_size", "text"), [("2/60", "2/60"), ("1/10", "2/20"), ("3/7", "3/7"), ("4", "4")])
def test_step_sizes_print_as_the_paper_writes_them(step_size: str, text: str) -> None:
    assert step_size_text(Fraction(step_size)) == text


def test_numbers_are_those_of_yaml_1_2(project: Callable[[str], Path]) -> None:
    text = edited("rtol: 3e-3", "rtol: 1E-4").replace("experiment: eosrepro", "experiment: on")
    read = load(project(text))
    assert (read.sharpness.rtol, read.mlflow.experiment) == (1e-4, "on")


def test_dvc_reads_the_same(committed: Config) -> None:
    raw = load_yaml(PARAMS)
    assert Config.model_validate(raw) == committed


def test_merges_take_the_template_and_what_is_written_beside_it(project: Callable[[str], Path]) -> None:
    read = load(project(in_exp3("{<<: *tanh}", "{<<: *tanh, width: 7}"))).experiments["exp3_2over30"]
    assert read.model.options == {"width": 7, "depth": 2, "activation": "tanh"}
    assert (read.folder, read.snapshot_every) == ("tanh/unstable", 5)


def test_lists_become_tuples_and_defaults_of_the_member_are_filled_in(project: Callable[[str], Path]) -> None:
    read = load(project(in_toy("toy: {name: quadratic, curvatures: [20, 1]}", "toy: {name: quadratic}")))
    assert read.toys["example1_2over39"].toy.options == {"curvatures": (20.0, 1.0)}
    assert read.toys["example1_2over40"].toy.options == {"curvatures": (20.0, 1.0)}


def test_figures_hold_their_own_options_apart_from_the_common_keys(committed: Config) -> None:
    figure = committed.figures["exp1"]
    assert (figure.name, figure.source) == ("trajectories", "exp1")
    assert list(figure.runs) == ["exp1_tanh", "exp1_relu", "exp1_linear"]
    assert figure.reference["sharpness"] == {"exp1_tanh": "exp1_sharp_tanh", "exp1_relu": "exp1_sharp_relu"}
    assert figure.options["limits"] == {"loss": (0.0, 4.0), "sharpness": (0.0, 160.0)}
    assert not {"name", "source", "runs", "reference"} & figure.options.keys()


def test_an_options_schema_is_that_of_the_member_in_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, project: Callable[[str], Path]
) -> None:
    def cnn(_shape: tuple[int, ...], _n: int, *, channels: list[int], pool: bool = False) -> None: ...

    find: Callable[[str, str], Callable[..., Any]] = catalog.find
    monkeypatch.setattr(
        catalog, "names", lambda kind, names=catalog.names: [*names(kind), *["cnn"] * (kind == "models")]
    )
    monkeypatch.setattr(catalog, "find", lambda kind, name: cnn if name == "cnn" else find(kind, name))
    read = load(project(in_exp3("{<<: *tanh}", "{name: cnn, channels: [8, 16]}"))).experiments["exp3_2over30"]
    assert (read.model.name, read.model.options) == ("cnn", {"channels": [8, 16], "pool": False})
    assert (
        "experiments.exp3_2over30.model.channels: is missing"
        in messages(project(in_exp3("{<<: *tanh}", "{name: cnn}")))[0]
    )


def test_the_profile_caps_experiments_and_not_toys(project: Callable[[str], Path]) -> None:
    read = load(project(edited("max_steps: 600 ", "max_steps: 7 ")))
    assert read.stop("exp3_2over30") == Stop(max_steps=7, accuracy=0.95, loss_above=100)
    assert read.stop("example1_2over39") == Stop(max_steps=100)
    assert read.stop("exp8_2over50").max_steps == 100  # epochs
    fewer = load(
        project(
            edited("max_epochs: 100 ", "max_epochs: 9 ").replace("snapshot_every_epochs: 5", "snapshot_every_epochs: 3")
        )
    )
    assert (fewer.stop("exp8_2over50").max_steps, fewer.snapshot_every("exp8_2over50")) == (9, 3)
    assert (fewer.stop("exp3_2over30").max_steps, fewer.snapshot_every("exp3_2over30")) == (600, 20)
    paper = load(project(edited("profile: quick", "profile: paper")))
    assert (paper.stop("exp1_tanh").max_steps, paper.active.data.name) == (800, "cifar10")


def test_unknown_runs_are_named_with_the_nearest(committed: Config) -> None:
    assert isinstance(committed.run("exp3_2over30"), Experiment)
    assert isinstance(committed.run("example4"), Toy)
    with pytest.raises(ConfigError, match="no run 'exp3_30'; did you mean 'exp3_2over30'"):
        committed.run("exp3_30")


def test_resolved_is_json_and_holds_what_determines_the_run(committed: Config) -> None:
    resolved = committed.resolved("exp3_2over30")
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["step_size"] == "2/30"
    assert resolved["model"] == {"name": "mlp", "width": 200, "depth": 2, "activation": "tanh"}
    assert resolved["stop"] == {"max_steps": 600, "accuracy": 0.95, "loss_above": 100}
    assert resolved["data"] == {"name": "photo-patches", "n_examples": 200, "seed": 0}
    assert resolved["compute"]["dtype"] == "float32"
    assert json.loads(json.dumps(committed.resolved("example3_tanh")))["start"] == [13.0, 0.01]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("threads: 2", "threads: 1", True),
        ("n_examples: 200", "n_examples: 990", True),
        ("depth: 2, activation: tanh", "depth: 1, activation: tanh", True),
        ("window: 20", "window: 30", False),
        ("rtol: 3e-3", "rtol: 1e-4", False),
        ("folder: tanh/unstable", "folder: tanh/hot", False),
        ("n_examples: 5000", "n_examples: 4000", False),
    ],
)
def test_resolved_changes_with_what_determines_the_run_and_with_nothing_else(
    old: str, new: str, changes: bool, committed: Config, project: Callable[[str], Path]
) -> None:
    text = re.sub(r"(?m)^    source: tanh/unstable$", "    source: tanh", edited(old, new))
    if old.startswith("folder"):
        text = text.replace(old.replace("folder", "source"), new.replace("folder", "source"))
    resolved = load(project(text)).resolved("exp3_2over30")
    assert (resolved != committed.resolved("exp3_2over30")) is changes


def test_config_is_frozen(committed: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        committed.compute.threads = 4


def test_eigenvalues_can_be_claimed_about_when_they_are_measured(project: Callable[[str], Path]) -> None:
    text = with_claim(quantity="eigenvalue_2").replace("{k: 1,", "{k: 2,")
    assert load(project(text)).claims["extra"].quantity == "eigenvalue_2"


def test_pixels_may_be_scaled_by_two_values_of_ones_own(project: Callable[[str], Path]) -> None:
    read = load(project(edited("scale: unit", "scale: {zero: 120, one: 255.5}")))
    assert read.active.preprocessing.model_dump()["scale"] == {"zero": 120, "one": 255.5}


def test_sharpness_settings_are_those_of_the_measure() -> None:
    parameters = inspect.signature(sharpness).parameters.values()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == list(Sharpness.model_fields)


def test_statistics_are_those_that_exist() -> None:
    assert set(get_args(Claim.model_fields["statistic"].annotation)) == set(STATISTICS)


# --- `dvc exp run -S` -------------------------------------------------------------------------------------------------


def overridden(tmp_path: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "params.yaml"
    shutil.copy(PARAMS, path)
    apply_overrides(path, [f"{key}={value}" for key, value in overrides.items()])
    changed: dict[str, Any] = load_yaml(path)
    return changed


def test_dvc_overrides_reach_the_experiments_they_name_and_no_other(tmp_path: Path) -> None:
    # A mapping that is shared by an alias looks the same when read, and swallows an override.
    runs = ["figure1_tanh_2over50", "exp1_linear", "exp2_2over500", "exp3_2over30", "exp6_four_hidden_2over90"]
    expected, overrides = all_params(), {}
    for seed, run in enumerate(runs, start=90):
        experiment = expected["experiments"][run]
        experiment |= {"step_size": f"2/{seed}1", "seed": seed}
        experiment["model"]["width"] = experiment["stop"]["max_steps"] = seed
        experiment["loss"]["name"] = "mse"
        changes = {
            "step_size": f"2/{seed}1",
            "seed": seed,
            "model.width": seed,
            "stop.max_steps": seed,
            "loss.name": "mse",
        }
        overrides |= {f"experiments.{run}.{key}": value for key, value in changes.items()}
    assert overridden(tmp_path, overrides) == expected


def test_no_two_runs_share_a_mapping() -> None:
    raw = load_yaml(PARAMS)
    runs = [*raw["experiments"].values(), *raw["toys"].values()]
    mappings = [id(value) for run in runs for value in run.values() if isinstance(value, dict)]
    assert len(set(mappings)) == len(mappings)


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
    assert committed == schema(), "run `eosrepro config schema > params.schema.json`"


@pytest.mark.parametrize("path", [ROOT / "params.yaml", PARAMS], ids=["the one in use", "the one of the tests"])
def test_params_yaml_is_valid_and_satisfies_the_schema(path: Path) -> None:
    validate(read_params(path), path, reference=ROOT / "reference")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(load_yaml(path), schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "case", ["unknown section", "model option", "activation", "division by 0", "unknown data", "statistic", "figure option", "accuracy in %"]
)  # fmt: skip
def test_the_schema_refuses_what_an_editor_should_underline(case: str, project: Callable[[str], Path]) -> None:
    text = next(text for name, text, _ in BROKEN if name == case and text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(load_yaml(project(text)), schema(), jsonschema.Draft202012Validator)


# --- texts that name a step size --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "η=2/60", "η = 0.05", "tanh, η ≈ .05", "tanh, 2/60", "2 / 60", "(η: 1/30)", "η 1e-3", "η of 0.1", "η is 2", "𝜂 = 0.1",
        "eta=0.1", "lr 1e-3", "LR: 0.1", "step size 0.1", "step_size=0.1", "learning rate of 0.1", r"$\eta = 0.1$",
        r"$\eta = \frac{2}{60}$", "2/η = 40", r"$2/\eta = 40$", "step sizes 0.1 and {step_size}",
    ],
)  # fmt: skip
def test_a_text_that_spells_a_step_size_is_refused(text: str) -> None:
    params = all_params()
    params["figures"]["exp3"]["runs"]["exp3_2over60"] = text
    with pytest.raises(ConfigError, match=r"figures\.exp3\.runs\.exp3_2over60: .* spells a step size"):
        validate(params, PARAMS, reference=ROOT / "reference")


@pytest.mark.parametrize(
    "text",
    [
        "η = {step_size}", "{step_size}", r"$\eta = {step_size}$", "in units of 2/η", "2/η (3 seeds)", "L near 2/η, eq. 4.3",
        "RP ≈ -1 + (η/2) L", "20θ₁² + θ₂²", "η² and 3", "Figure 1/2", "N = 500", "layer 3", "zeta = 2", "batch 32", "step 7",
    ],
)  # fmt: skip
def test_other_numbers_may_stand_in_a_text(text: str) -> None:
    params = all_params()
    params["figures"]["exp3"]["runs"]["exp3_2over60"] = text
    validate(params, PARAMS, reference=ROOT / "reference")


def test_texts_of_a_figure_name_the_step_sizes_that_they_are_given() -> None:
    figure = validate(all_params(), PARAMS, reference=ROOT / "reference").figures["figure1"]
    figure = replace(figure, options=figure.options | {"title": "tanh at {step_size}"})
    tanh, relu = figure.options["columns"].values()
    figure = replace(figure, options=figure.options | {"columns": {"η = {step_size}": tanh, "ReLU": relu}})
    step_sizes = dict(zip(figure.runs, map(Fraction, ("1/20", "0.5", "1/20", "3/7")), strict=True))
    worded = figure.worded(step_sizes)
    assert [*worded.runs.values()] == ["tanh, η = 2/40", "tanh, η = 2/4", "ReLU, η = 2/40", "ReLU, η = 3/7"]
    assert worded.options["title"] == "tanh at 2/40, 2/4, 3/7"
    assert worded.options["columns"] == {"η = 2/40, 2/4": tanh, "ReLU": relu}
    assert worded.options["panels"] == figure.options["panels"]


def test_runs_that_come_to_have_one_label_are_told_apart() -> None:
    figure = validate(all_params(), PARAMS, reference=ROOT / "reference").figures["exp3"]
    step_sizes = dict(zip(figure.runs, map(Fraction, ("2/30", "2/45", "2/45")), strict=True))
    labels = figure.worded(step_sizes).runs
    assert [*labels.values()] == ["η = 2/30", "η = 2/45 (exp3_2over60)", "η = 2/45 (exp3_2over90)"]

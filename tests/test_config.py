"""params.yaml: what is read, what is refused, and in which words."""
# ruff: noqa: E501 (a case is one line of a table)

from __future__ import annotations

import copy
import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from eosrepro import catalog
from eosrepro.config.load import FIRST_EDITION, load, read_params, schema, validate
from eosrepro.config.members import _keys_of, _MemberKeys
from eosrepro.config.params import Config
from eosrepro.config.statements import Claim
from eosrepro.config.values import step_size_text, with_step_size
from eosrepro.core.types import Position, Stop
from eosrepro.diagnostics.sharpness import sharpness
from eosrepro.errors import ConfigError
from eosrepro.verdicts.statistics import STATISTICS
from tests.conftest import small_problem
from tests.plugins import Write, project_in
from tests.project import PARAMS, ROOT, RUNS, SMALL, alone, small_params

TEXT = PARAMS.read_text(encoding="utf-8")
TAU_SCAN = "tau_scan: {of: [exp3_2over30], every: 5, n_taus: 100, tolerance: 1e-4}"
MIDPOINT = "midpoint_sharpness: {k: 1, rtol: 3e-3, max_products: 200, audit_every: 10, seed: 0}"
SEGMENT = "segment_sharpness: {points: 5, rtol: 1e-2, max_products: 200, seed: 0}"
SPECTRUM = "spectrum: {k: 3, n_probes: 2, n_nodes: 20, rtol: 1e-2, max_products: 200, seed: 0}"


def edited(old: str, new: str, *, after: str = "", text: str = TEXT) -> str:
    """The small params.yaml with the first `old` behind `after` replaced."""
    start = text.index(after)
    assert old in text[start:], f"{old!r} is not in params.yaml behind {after!r}"
    return text[:start] + text[start:].replace(old, new, 1)


def in_exp3(old: str, new: str) -> str:
    return edited(old, new, after="\n  exp3:\n    model")


def in_example(old: str, new: str) -> str:
    return edited(old, new, after="\n  example1:\n    problem")


def in_figure(old: str, new: str, *, text: str = TEXT) -> str:
    return edited(old, new, after="\n  exp3:\n    name", text=text)


def diagnosed(by: str, old: str = "", new: str = "") -> str:
    """With this diagnostic of exp3, edited."""
    return in_exp3(TAU_SCAN, by.replace(old, new, 1) if old in by else "")


def stepping(step_size: str) -> str:
    return in_exp3("[2/10, 2/30]", f"[{step_size}]")


PAPER = "paper: papers/small\n"
EXP3 = "experiments.exp3"
STEP_SIZE = f"{EXP3}.vary.step_size"
START = "experiments.example1.start"
DIAGNOSE = f"{EXP3}.diagnose"
PROBLEM = "problem: {name: quadratic, curvatures: [20, 1]}"
PANELS = "panels: [loss, relative_progress, sharpness]"
RUNS_OF_3 = "without: [exp3_2over10]"
MODEL = "model: {name: mlp, width: 8, depth: 2, activation: tanh}"
STOP = "{accuracy: 0.95, max_steps: 30000, loss_above: 100}"

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
    ("unknown anchor", edited("profile: quick", "profile: *figur1"), ["not valid YAML", "line", "figur1"]),
    ("two documents", TEXT + "---\nprofile: paper\n", ["not valid YAML", "line", "another document"]),
    ("python tag", "profile: !!python/name:os.system\n", ["not valid YAML", "line 1", "python/name"]),
    ("deeply nested", "profile: " + "[" * 5000, ["not valid YAML"]),
    ("contains itself", edited("profile: quick", "profile: &p [*p]"), ["more than 100,000 values: an alias"]),
    ("an anchor twice", edited("profile: quick", "profile: &a quick", text=edited("dtype: float32", "dtype: &a float32")), ["found duplicate anchor 'a'"]),
    ("a code tag", edited("profile: quick", "profile: !!python/object/apply:os.getcwd []"), ["python/object"]),
    ("aliases that multiply", edited("experiments:", "aliases:\n  a0: &a0 [1, 2]\n" + "".join(
        f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)) + "experiments:"), ["more than 100,000 values: an alias"]),
    ("duplicate experiment", edited("\n  exp8:\n    model", "\n  exp3:\n    model"), ["duplicate key 'exp3'", "line"]),
    ("duplicate key", in_exp3("seed: 3", "seed: 3\n    seed: 4"), ["duplicate key 'seed'", "line"]),
    ("duplicate merge", edited("compute: {", "compute: {<<: {threads: 1}, <<: {threads: 2}, "), ["duplicate key '<<'", "line"]),
    ("endless number", edited("threads: 1", f"threads: {'9' * 5000}"), ["not valid YAML", "more digits than can be read"]),
    # sections
    ("unknown section", TEXT + "experimentz: {}\n", ["experimentz", "did you mean 'experiments'", "profiles"]),
    ("missing section", edited("mlflow: {experiment: eosrepro, paper: Ahn 2022, window: 20}", ""), ["mlflow", "is missing"]),
    ("empty section", TEXT[: TEXT.index("\nfigures:")] + "\nfigures:\n", ["figures", "found nothing"]),
    ("unknown profile", edited("profile: quick", "profile: quik"), ["profile", "'quik'", "'quick'", "paper"]),
    ("profile not text", edited("profile: quick", "profile: 3"), ["profile: found 3", "valid string"]),
    ("paper above", edited("paper: papers/small", "paper: ../small"), ["paper: found '../small'", "relative"]),
    ("absolute paper", edited("paper: papers/small", "paper: /tmp"), ["paper: found '/tmp'", "relative"]),
    # profiles
    ("unknown data", edited("name: photo-patches", "name: photopatches"), ["profiles.quick.data.name", "'photo-patches'", "cifar10"]),
    ("data by file name", edited("name: photo-patches", "name: photo_patches"), ["profiles.quick.data.name", "'photo-patches'"]),
    ("data option", edited("n_examples: 100", "n_example: 100"), ["profiles.quick.data.n_example", "'n_examples'", "seed"]),
    ("data option missing", edited("n_examples: 100, ", ""), ["profiles.quick.data.n_examples", "is missing"]),
    ("negative data", edited("n_examples: 100", "n_examples: -100"), ["profiles.quick.data.n_examples", "-100", "greater than 0"]),
    ("data as text", edited("n_examples: 100", 'n_examples: "100"'), ["profiles.quick.data.n_examples", "'100'", "valid integer"]),
    ("scale", edited("scale: unit", "scale: units"), ["profiles.quick.preprocessing.scale", "'units'", "did you mean 'unit'", "'symmetric'"]),
    ("scale is a number", edited("scale: unit", "scale: 255"), ["profiles.quick.preprocessing.scale: found 255", "'unit'"]),
    ("scale key", edited("scale: unit", "scale: {zero: 0, on: 1}"), ["preprocessing.scale.on:", "did you mean 'one'"]),
    ("scale of width 0", edited("scale: unit", "scale: {zero: 1, one: 1}"), ["preprocessing.scale: zero and one are both 1"]),
    ("standardise", edited("standardise: none", "standardise: per_chanel"), ["preprocessing.standardise", "did you mean 'per_channel'"]),
    ("statistics", edited("statistics: subset", "statistics: all"), ["preprocessing.statistics", "'all'", "'subset' or 'source'"]),
    ("cap of 0", edited("max_steps: 10\n", "max_steps: 0\n"), ["profiles.quick.max_steps", "found 0", "greater than 0"]),
    ("published as text", edited("published: false", "published: no"), ["profiles.quick.published", "'no'", "valid boolean"]),
    ("profile key", edited("published: false", "publish: false"), ["profiles.quick.publish", "did you mean 'published'"]),
    ("epochs of 0", edited("max_epochs: 10\n", "max_epochs: 0\n"), ["profiles.quick.max_epochs", "found 0", "greater than 0"]),
    # compute, mlflow
    ("device", edited("device: cpu", "device: gpu"), ["compute.device", "'gpu'", "'cpu' or 'cuda'", "did you mean 'cuda'"]),
    ("dtype", edited("dtype: float32", "dtype: flaot32"), ["compute.dtype", "did you mean 'float32'"]),
    ("no threads", edited("threads: 1", "threads: 0"), ["compute.threads", "found 0", "greater than 0"]),
    ("threads", edited("threads: 1", "threads: 1000000000"), ["compute.threads", "found 1000000000", "less than or equal to 1024"]),
    ("half a thread", edited("threads: 1", "threads: 1.5"), ["compute.threads", "found 1.5", "valid integer"]),
    ("true thread", edited("threads: 1", "threads: true"), ["compute.threads", "found True", "valid integer"]),
    ("compute key", edited("chunk_size", "chunksize"), ["compute.chunksize", "did you mean 'chunk_size'"]),
    ("half a character", edited("experiment: eosrepro", 'experiment: "\\ud83d"'), [r"mlflow.experiment: found '\ud83d', which holds half a character"]),
    ("mlflow name", edited("experiment: eosrepro", "experiment: ''"), ["mlflow.experiment", "found ''", "should have at least 1 character"]),
    # diagnostics of all runs
    ("diagnostics are text", edited("diagnose:\n  sharpness: {k: 1, rtol: 3e-3, max_products: 200, audit_every: 10, seed: 0}", "diagnose: sharpness"), ["diagnose: found 'sharpness', should be a mapping such as {alignment: {}}"]),
    ("of all runs of one", edited("{k: 1,", "{of: [exp3], k: 1,"), ["diagnose.sharpness.of: this is of all experiments: write it in one of them"]),
    ("rtol", edited("rtol: 3e-3", "rtol: 2"), ["diagnose.sharpness.rtol: found 2", "less than or equal to 1"]),
    ("rtol below float32", edited("rtol: 3e-3", "rtol: 1e-6"), ["diagnose.sharpness.rtol: found 1e-06, should be at least 3.6e-05 in float32"]),
    ("rtol as text", edited("rtol: 3e-3", 'rtol: "1e-3"'), ["diagnose.sharpness.rtol", "'1e-3'", "valid number"]),
    ("rtol nan", edited("rtol: 3e-3", "rtol: .nan"), ["diagnose.sharpness.rtol", "found nan", "finite"]),
    ("more eigenvalues than products", edited("{k: 1,", "{k: 201,"), ["diagnose.sharpness: asks for k = 201 eigenvalues in max_products = 200"]),
    ("no eigenvalues", edited("{k: 1,", "{k: 0,"), ["diagnose.sharpness.k", "found 0"]),
    ("negative seed", edited("audit_every: 10, seed: 0", "audit_every: 10, seed: -1"), ["diagnose.sharpness.seed", "found -1"]),
    # diagnostics of an experiment
    ("unknown diagnostic", diagnosed(TAU_SCAN, "tau_scan", "tau_scn"), [f"{DIAGNOSE}.tau_scn: no 'tau_scn' in diagnostics", "did you mean 'tau_scan'"]),
    ("diagnostic of no run", diagnosed(TAU_SCAN, "exp3_2over30", "ex3_2over30"), [f"{DIAGNOSE}.tau_scan.of: exp3 has no run 'ex3_2over30'; did you mean 'exp3_2over30'"]),
    ("diagnostic of another experiment", diagnosed(TAU_SCAN, "exp3_2over30", "exp2"), [f"{DIAGNOSE}.tau_scan.of: exp3 has no run 'exp2'"]),
    ("diagnostic without options", diagnosed("tau_scan: "), [f"{DIAGNOSE}.tau_scan: found nothing, should be a mapping of its options, {{}} where it has none"]),
    ("name of a diagnostic twice", diagnosed(TAU_SCAN, "every: 5", "name: spectrum"), [f"{DIAGNOSE}.tau_scan: found a mapping of 4, should be a mapping of its options"]),
    ("diagnostic option", diagnosed(TAU_SCAN, "n_taus", "n_tau"), [f"{DIAGNOSE}.tau_scan.n_tau:", "did you mean 'n_taus'"]),
    ("one tau", diagnosed(TAU_SCAN, "n_taus: 100", "n_taus: 1"), [f"{DIAGNOSE}.tau_scan.n_taus", "found 1", "greater than or equal to 2"]),
    ("distance to no run", diagnosed("distance: {to: exp3_2over3}"), [f"{DIAGNOSE}.distance.to: exp3 has no run 'exp3_2over3'; did you mean 'exp3_2over30'"]),
    ("distance to a run elsewhere", diagnosed("distance: {to: exp2_2over300}"), [f"{DIAGNOSE}.distance.to: exp3 has no run 'exp2_2over300'"]),
    ("distance to nothing", diagnosed("distance: {}"), [f"{DIAGNOSE}.distance.to: is missing"]),
    ("distance between epochs and iterations", edited("vary: {step_size: [2/10, 2/30]}", "step_size: 2/30\n    vary: {optimizer: {gd: {name: gd}, sgd: {name: sgd}}}",
        after="\n  exp3:\n    model", text=diagnosed("distance: {to: exp3_gd}")), [f"{DIAGNOSE}.distance.to: exp3_gd is one of iterations, and exp3_sgd of epochs: write `of` beside it"]),
    ("negative tolerance", diagnosed(TAU_SCAN, "1e-4", "-1e-4"), [f"{DIAGNOSE}.tau_scan.tolerance", "greater than or equal to 0"]),
    ("more eigenvalues than columns", diagnosed(SPECTRUM, "k: 3", "k: 6"), [f"{DIAGNOSE}.spectrum.k", "found 6"]),
    ("optimizer of a diagnostic", diagnosed(TAU_SCAN, "n_taus: 100", "n_taus: 100, optimizer: gd"), [f"{DIAGNOSE}.tau_scan.optimizer: is not a known key"]),
    ("step size of a diagnostic", diagnosed("expected_progress: {step_size: 2}"), [f"{DIAGNOSE}.expected_progress.step_size: is not a known key"]),
    ("minibatches of GD", diagnosed("expected_progress: {}"), [f"{DIAGNOSE}.expected_progress: expected_progress is about minibatches, and gd of exp3_2over10 takes none"]),
    ("never", diagnosed(TAU_SCAN, "every: 5", "every: 0"), [f"{DIAGNOSE}.tau_scan.every", "found 0", "greater than 0"]),
    ("seed beyond 64 bits", diagnosed(SPECTRUM, "seed: 0", f"seed: {2**64}"), [f"{DIAGNOSE}.spectrum.seed: found {2**64}, should be at most 9223372036854775807"]),
    ("negative seed of a diagnostic", diagnosed(SPECTRUM, "seed: 0", "seed: -1"), [f"{DIAGNOSE}.spectrum.seed: found -1", "greater than or equal to 0"]),
    ("rtol of a segment below float32", diagnosed(SEGMENT, "1e-2", "1e-7"), [f"{DIAGNOSE}.segment_sharpness.rtol: found 1e-07, should be at least 3.6e-06 in float32"]),
    ("rtol of a spectrum below float32", diagnosed(SPECTRUM, "1e-2", "3e-6"), [f"{DIAGNOSE}.spectrum.rtol: found 3e-06, should be at least 3.6e-06 in float32"]),
    ("rtol of 0", diagnosed(SEGMENT, "1e-2", "0"), [f"{DIAGNOSE}.segment_sharpness.rtol: found 0, should be at least 3.6e-06"]),
    ("more eigenvalues than products allowed", diagnosed(SPECTRUM, "200", "2"), [f"{DIAGNOSE}.spectrum: asks for k = 3 eigenvalues in max_products = 2 products"]),
    ("as many taus as nobody can hold", diagnosed(TAU_SCAN, "n_taus: 100", f"n_taus: {10**18}"), [f"{DIAGNOSE}.tau_scan.n_taus: found {10**18}", "less than or equal to 1000000"]),
    # experiments
    ("name of an experiment", edited("\n  exp8:\n    model", "\n  exp-8:\n    model"), ["experiments.exp-8", "letters, digits and _"]),
    ("numeric name", edited("\n  exp8:\n    model", "\n  12:\n    model"), ["experiments.12", "valid string"]),
    ("experiment is text", edited("\n  exp8:\n    model", "\n  extra: tanh\n  exp8:\n    model"), ["experiments.extra", "'tanh'", "mapping"]),
    ("model contains itself", in_exp3(MODEL, "model: &m {name: mlp, width: *m}"), ["more than 100,000 values: an alias"]),
    ("unknown model", in_exp3(MODEL, "model: {name: mpl}"), [f"{EXP3}.model.name", "did you mean 'mlp'"]),
    ("model without name", in_exp3(MODEL, "model: {width: 3}"), [f"{EXP3}.model", "no name", "mlp"]),
    ("model as text", in_exp3(MODEL, "model: mlp"), [f"{EXP3}.model", "'mlp'", "{name: "]),
    ("model option", in_exp3("width: 8", "widht: 8"), [f"{EXP3}.model.widht", "did you mean 'width'", "depth"]),
    ("width of 0", in_exp3("width: 8", "width: 0"), [f"{EXP3}.model.width", "found 0", "greater than or equal to 1"]),
    ("depth below 0", in_exp3("depth: 2", "depth: -1"), [f"{EXP3}.model.depth", "found -1"]),
    ("endless depth", in_exp3("depth: 2", "depth: 1000000"), [f"{EXP3}.model.depth", "found 1000000", "less than or equal to 10000"]),
    ("width as text", in_exp3("width: 8", "width: wide"), [f"{EXP3}.model.width", "'wide'", "integer"]),
    ("activation", in_exp3("activation: tanh", "activation: tahn"), [f"{EXP3}.model.activation", "did you mean 'tanh'", "'elu'"]),
    ("label noise of an experiment", in_exp3("seed: 3", "seed: 3\n    label_noise: 0.1"), [f"{EXP3}.label_noise: is not a known key: it belongs to the data of a profile, `profiles.<profile>.data`"]),
    ("test split of a model", in_exp3("width: 8", "width: 8, n_test: 10"), [f"{EXP3}.model.n_test: is not a known key: it belongs to the data of a profile"]),
    ("batch statistics in words", in_exp3(MODEL, "model: {name: cnn, batch_norm: all}"), [f"{EXP3}.model.batch_norm: found 'all', should be 'whole', or a whole number of at least 1"]),
    ("batch statistics of none", in_exp3(MODEL, "model: {name: cnn, batch_norm: 0}"), [f"{EXP3}.model.batch_norm: found 0, should be 'whole', or a whole number of at least 1"]),
    ("scales in words", in_exp3("width: 8", "width: 8, init_scale: [1, big]"), [f"{EXP3}.model.init_scale: found a list of 2, should be a number of at least 0, or a list, each entry a number of at least 0"]),
    ("choice as a key", in_exp3("{name: gd}", "{name: momentum, nesterov: true}"), [f"{EXP3}.optimizer.nesterov: is not a known key: it is a choice of kind, write `kind: nesterov`"]),
    ("prediction of GD", diagnosed("predicted_loss: {}"), [f"{DIAGNOSE}.predicted_loss: predicted_loss is about the optimizer central_flow: name its runs, `of: [...]` (exp3_2over10 is by gd)"]),
    ("unknown loss", in_exp3("name: cross_entropy", "name: cross_entopy"), [f"{EXP3}.loss.name", "did you mean 'cross_entropy'"]),
    ("loss option", in_exp3("name: cross_entropy", "name: cross_entropy, smoothing: 0.1"), [f"{EXP3}.loss.smoothing", "allowed: name"]),
    ("unknown optimizer", in_exp3("name: gd", "name: gdd"), [f"{EXP3}.optimizer.name", "did you mean 'gd'"]),
    ("minibatch of none", edited("batch_size: 32", "batch_size: 0"), ["optimizer.batch_size", "found 0", "greater than or equal to 1"]),
    ("step size beside gd", in_exp3("name: gd", "name: gd, step_size: 2/30"), [f"{EXP3}.optimizer.step_size", "not a known key"]),
    ("half a fraction", stepping("2/"), [f"{STEP_SIZE}: found '2/'", "such as 2/60"]),
    ("division by 0", stepping("2/0"), [f"{STEP_SIZE}: found '2/0'", "such as 2/60"]),
    ("words", stepping("two/60"), [f"{STEP_SIZE}: found 'two/60'", "such as 2/60"]),
    ("negative fraction", stepping("-2/60"), [f"{STEP_SIZE}: found '-2/60'", "positive"]),
    ("negative step", stepping("-0.1"), [f"{STEP_SIZE}: found -0.1", "positive"]),
    ("step of 0", stepping("0"), [f"{STEP_SIZE}: found 0", "positive"]),
    ("step beyond float64", stepping('"1e400"'), [f"{STEP_SIZE}: found '1e400'", "positive"]),
    ("step that is 0 in float64", stepping('"1e-400"'), [f"{STEP_SIZE}: found '1e-400'", "positive"]),
    ("threshold beyond float64", stepping('"1e-310"'), [f"{STEP_SIZE}: found '1e-310'", "positive"]),
    ("infinite step", stepping(".inf"), [f"{STEP_SIZE}: found inf", "positive"]),
    ("step as list", in_exp3("vary: {step_size: [2/10, 2/30]}", "step_size: [2, 30]"), [f"{EXP3}.step_size: found a list of 2", "such as 2/60"]),
    ("true step", stepping("true"), [f"{STEP_SIZE}: found True", "positive"]),
    ("no step size", in_exp3("    vary: {step_size: [2/10, 2/30]}\n", ""), [f"{EXP3}.step_size: is missing"]),
    ("mistyped key", in_exp3("seed: 3", "sead: 3"), [f"{EXP3}.sead", "did you mean 'seed'"]),
    ("seed as text", in_exp3("seed: 3", "seed: lucky"), [f"{EXP3}.seed", "'lucky'", "integer"]),
    ("huge seed", in_exp3("seed: 3", f"seed: {2**64}"), [f"{EXP3}.seed", "at most 9223372036854775807"]),
    ("snapshots", in_exp3("snapshot_every: 5", "snapshot_every: 0"), [f"{EXP3}.snapshot_every", "found 0"]),
    ("accuracy in %", in_exp3("accuracy: 0.95", "accuracy: 95"), [f"{EXP3}.stop.accuracy", "found 95", "less than or equal to 1"]),
    ("stop without end", in_exp3(STOP, "{accuracy: 0.95}"), [f"{EXP3}.stop.max_steps", "is missing"]),
    ("stop key", in_exp3("max_steps", "max_step"), [f"{EXP3}.stop.max_step", "did you mean 'max_steps'", "accuracy"]),
    ("stop is a number", in_exp3(STOP, "300"), [f"{EXP3}.stop", "found 300", "mapping"]),
    ("loss_above", in_exp3("loss_above: 100", "loss_above: -1"), [f"{EXP3}.stop.loss_above", "found -1"]),
    ("folder of the first edition", in_exp3("seed: 3", "seed: 3\n    folder: tanh"), [f"{EXP3}.folder: is not a known key"]),
    # what varies: see also tests/test_families.py
    ("mistyped path", in_exp3("{step_size: [", "{stepsize: ["), [f"{EXP3}.vary.stepsize: is not a known key; did you mean 'step_size'", f"{EXP3}.step_size: is missing"]),
    ("one name twice", edited("\n  exp2:\n    model", "\n  exp3_2over30:\n    seed: 1\n    <<: &m {model: {name: mlp, width: 8}, loss: {name: mse}, optimizer: {name: gd}, step_size: 1, stop: {max_steps: 9}}\n  exp2:\n    model"), ["experiments.exp3: two runs would be named exp3_2over30", "experiments.exp3_2over30: two runs"]),
    ("a run with the name of an experiment", edited("\n  exp2:\n    model", "\n  exp3_2over30:\n    seed: 1\n    <<: {model: {name: mlp, width: 8}, loss: {name: mse}, optimizer: {name: gd}, stop: {max_steps: 9}}\n    vary: {step_size: [1]}\n  exp2:\n    model"), ["experiments.exp3: a run would have the name of the experiment exp3_2over30"]),
    # problems
    ("unknown problem", in_example("name: quadratic", "name: quadratik"), ["experiments.example1.problem.name", "did you mean 'quadratic'"]),
    ("problem option", in_example("curvatures:", "curvature:"), ["experiments.example1.problem.curvature", "did you mean 'curvatures'"]),
    ("curvatures", in_example("[20, 1]", "[20, steep]"), ["experiments.example1.problem.curvatures.1", "'steep'", "number"]),
    ("start", in_example("start: [0.1, 0.1]", "start: [0.1, '0.1']"), [f"{START}.1", "'0.1'", "number"]),
    ("start is a number", in_example("start: [0.1, 0.1]", "start: 0.1"), [START, "found 0.1", "valid list"]),
    ("empty start", in_example("start: [0.1, 0.1]", "start: []"), [START, "at least 1"]),
    ("start of three numbers", in_example("start: [0.1, 0.1]", "start: [0.1, 0.1, 0.1]"), [f"{START}: quadratic cannot be evaluated at the 3 numbers"]),
    ("no curvatures", in_example("curvatures: [20, 1]", "curvatures: []"), [f"{START}: quadratic cannot be evaluated at the 2 numbers"]),
    ("accuracy of a problem", in_example("stop: {", "stop: {accuracy: 1, "), ["experiments.example1: stop.accuracy: a problem has no examples"]),
    ("model of a problem", in_example(PROBLEM, "model: {name: mlp, width: 8}"), ["experiments.example1: holds model, start: it should hold model, loss and seed (a network), or problem and start"]),
    ("neither network nor problem", in_example(f"{PROBLEM}\n    start: [0.1, 0.1]\n    ", ""), ["experiments.example1: holds neither: it should hold"]),
    ("problem by SGD", in_example("optimizer: {name: gd}", "optimizer: {name: sgd}"), ["experiments.example1.optimizer: sgd takes minibatches, and a problem has no examples"]),
    # figures
    ("unknown figure", in_figure("name: trajectories", "name: trajectory"), ["figures.exp3.name", "did you mean 'trajectories'"]),
    ("figure without name", in_figure("    name: trajectories\n", ""), ["figures.exp3", "no name", "trajectories"]),
    ("figure option", in_figure("panels:", "pannels:"), ["figures.exp3.pannels", "did you mean 'panels'", "limits", "figures.exp3.panels: is missing"]),
    ("figure of nothing", in_figure("of: exp3", "of: exp4"), ["figures.exp3.of: there is no experiment 'exp4'"]),
    ("figure of a run", in_figure("of: exp3", "of: exp3_2over30"), ["figures.exp3.of: there is no experiment 'exp3_2over30'"]),
    ("figure without experiment", in_figure("    of: exp3\n", ""), ["figures.exp3.of: is missing"]),
    ("unknown panel", in_figure("panels: [loss", "panels: [lost"), ["figures.exp3.panels", "did you mean 'loss'"]),
    ("limits", in_figure(PANELS, f"{PANELS}\n    limits: {{loss: [0]}}"), ["figures.exp3.limits.loss.1", "is missing"]),
    ("limits upside down", in_figure(PANELS, f"{PANELS}\n    limits: {{loss: [4, 0]}}"), ["figures.exp3.limits.loss: found [4, 0]", "lower and the higher end"]),
    ("limits of no panel", in_figure(PANELS, f"{PANELS}\n    limits: {{accuracy: [0, 1]}}"), ["figures.exp3.limits.accuracy: the figure has no panel 'accuracy'"]),
    ("limits of one coordinate", edited("limits: {theta_1: [-0.5, 0.5], theta_2: [-0.01, 0.15]}", "limits: {theta_1: [5, 14]}"), ["figures.example1.limits", "at least 2"]),
    ("steps below 0", edited("limits: {theta_1", "steps: -49, limits: {theta_1"), ["figures.example1.steps", "found -49"]),
    ("first part of a panel", in_figure("panels: [loss", "panels: [midpoint", text=diagnosed(MIDPOINT)), ["figures.exp3.panels", "no 'midpoint'; did you mean 'midpoint_sharpness'?"]),
    ("panel named after a diagnostic", in_figure("panels: [loss", "panels: [spectrum", text=diagnosed(SPECTRUM)), ["has no 'spectrum': it is a diagnostic, which finds top_eigenvalue_1, top_eigenvalue_2, top_eigenvalue_3,", "name what should be shown"]),
    ("panel of a diagnostic that is not there", in_figure("panels: [loss", "panels: [midpoint"), ["figures.exp3.panels: exp3_2over30 has no 'midpoint': write midpoint_sharpness, which finds midpoint_sharpness, into `diagnose` of the experiment"]),
    ("panel of an observation that is not there", in_figure("panels: [loss", "panels: [sharpness_by_grad_norm"), ["has no 'sharpness_by_grad_norm': write two_step, which finds sharpness_by_grad_norm, into `observe`"]),
    ("runs that are a number", in_figure(RUNS_OF_3, "runs: 3"), ["figures.exp3.runs: found 3, should be a mapping, each value text, or a list, each entry text"]),
    ("no panels", in_figure(PANELS, "panels: []"), ["figures.exp3.panels", "at least 1"]),
    ("panel twice", in_figure(PANELS, "panels: [loss, sharpness, loss]"), ["figures.exp3.panels: 'loss' stands there twice"]),
    ("label twice", in_figure(RUNS_OF_3, "runs: {exp3: tanh}"), ["figures.exp3.runs: 'tanh' stands there twice"]),
    ("step size in a label", in_figure(RUNS_OF_3, "runs: {exp3_2over30: η=2/30}"), ["figures.exp3.runs.exp3_2over30: 'η=2/30' spells a step size", "write {step_size}"]),
    ("step size in a title", in_figure("unstable regime", "at 2/30"), ["figures.exp3.title: 'Experiment 3: at 2/30, tanh' spells a step size"]),
    ("step size in a column", in_figure(PANELS, f"{PANELS}\n    columns: {{lr 1e-3: [exp3]}}"), ["figures.exp3.columns.lr 1e-3: 'lr 1e-3' spells a step size"]),
    ("empty column", in_figure(PANELS, f"{PANELS}\n    columns: {{stable: []}}"), ["figures.exp3.columns.stable", "at least 1"]),
    ("column of a run left out", in_figure(PANELS, f"{PANELS}\n    columns: {{hot: [exp3_2over10]}}"), ["figures.exp3.columns.hot: the figure shows no run 'exp3_2over10'"]),
    ("panel that a problem lacks", edited("name: toy_paths, of: example1", "name: trajectories, panels: [accuracy], of: example1", text=edited(", limits: {theta_1: [-0.5, 0.5], theta_2: [-0.01, 0.15]}", "")), ["figures.example1.panels: example1_2over39 has no 'accuracy'"]),
    ("unknown run drawn", in_figure(RUNS_OF_3, "runs: [ex3_2over30]"), ["figures.exp3.runs: exp3 has no run 'ex3_2over30'; did you mean 'exp3_2over30'"]),
    ("unknown run left out", in_figure(RUNS_OF_3, "without: [exp_3_2over10]"), ["figures.exp3.without: exp3 has no run 'exp_3_2over10'; did you mean 'exp3_2over10'"]),
    ("unknown run of several", in_figure("of: exp3", "of: .\n    runs: [exp4]"), ["figures.exp3.runs: there is no run 'exp4'"]),
    ("all runs left out", in_figure(RUNS_OF_3, "without: [exp3]"), ["figures.exp3: shows no run"]),
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files into a copy of the small project in the working folder."""
    shutil.copytree(SMALL, tmp_path, dirs_exist_ok=True)
    yield from project_in(tmp_path, monkeypatch)


@pytest.fixture
def read(project: Write) -> Callable[[str], Config]:
    """Reads the text of a params.yaml."""
    return lambda text: load(project("params.yaml", text))


@pytest.fixture(scope="module")
def committed() -> Config:
    """The params.yaml of the paper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load()
        assert config.claims  # read in the folder that they are in
        return config


def messages(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).splitlines()


def refused(content: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(content, Path("params.yaml"))
    return str(caught.value).splitlines()


# --- refused ----------------------------------------------------------------------------------------------------------


def test_the_names_of_the_broken_files_are_unique() -> None:
    assert len({name for name, _, _ in BROKEN}) == len(BROKEN)


def test_every_error_has_a_line_of_its_own(project: Write) -> None:
    text = TEXT.replace("threads: 1", "threads: 0").replace("window: 20", "window: 0").replace("2/39", "1/0")
    path = project("params.yaml", text.replace("[2/10, 2/30]", "[2/10, 1/0, 3/0]"))
    places = [line.removeprefix(f"{path}: ").split(": ")[0] for line in messages(path)]
    step_sizes = [f"experiments.{name}.vary.step_size" for name in ("exp3", "exp3", "example1")]
    assert places == ["compute.threads", "mlflow.window", *step_sizes]


def test_what_all_runs_of_an_experiment_have_is_said_once() -> None:
    params = small_params()
    params["experiments"]["exp3"]["model"]["width"] = 0
    params["experiments"]["exp2"]["stop"]["max_steps"] = 0
    assert [line.split(": ")[1] for line in refused(params)] == [
        "experiments.exp2.stop.max_steps",
        "experiments.exp3.model.width",
    ]


def test_a_file_of_the_first_edition_is_told_what_changed() -> None:
    first, *changes = refused(small_params() | {"toys": {}, "claims": {}})
    assert first == "params.yaml is written for the first edition of eosrepro. What has changed:"
    assert [line.split(":")[0].strip() for line in changes] == ["toys", "claims"]
    assert len(refused(dict.fromkeys(FIRST_EDITION))) == 1 + len(FIRST_EDITION)


HEAVY_BALL = """
from eosrepro.core.types import Geometry, Optimizer

def heavy_ball(*, step_size: float, batches: bool = False) -> Optimizer:
    return Optimizer(
        lambda theta: theta, lambda at, m: (at.grad, m), lambda m, grad: Geometry(3 / step_size), "3/η",
        (lambda n, step: []) if batches else None,
    )
"""


def test_what_supposes_steps_along_the_gradient_is_refused_for_another_optimizer(project: Write) -> None:
    """Heavy ball is stable below (2 + 2β)/η, and its steps are not η∇f."""
    project("members/optimizers/heavy_ball.py", HEAVY_BALL)
    params = alone(small_params(), "exp3")
    exp3 = params["experiments"]["exp3"]
    exp3["optimizer"] = {"name": "heavy_ball"}
    del params["experiments"]["exp3"]["vary"]["step_size"][0]
    exp3["diagnose"] |= {"segment_sharpness": {"points": 2, "rtol": 1e-2, "max_products": 9, "seed": 0}}
    validate(params, Path("params.yaml"))  # these look along its own steps

    exp3["optimizer"] |= {"batches": True}
    exp3["diagnose"] = {"expected_progress": {}}
    assert refused(params) == [
        "params.yaml: experiments.exp3.diagnose.expected_progress: expected_progress is about steps along −η∇f, "
        "and heavy_ball of exp3_2over30 takes others"
    ]


PLACES = {
    "models": "experiments.exp3.model",
    "losses": "experiments.exp3.loss",
    "optimizers": "experiments.exp3.optimizer",
    "problems": "experiments.example1.problem",
    "data": "profiles.quick.data",
    "diagnostics": "experiments.exp3.diagnose",
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
    by_name = kind == "diagnostics"
    place = f"{PLACES[kind]}.{name}" if by_name else PLACES[kind]
    for number in (10**30, 2**64, 2**63, -(2**63)):
        params = small_params()
        *parents, last = place.split(".")
        entry = reduce(lambda content, key: content[key], parents, params)
        entry[last] = {option: number} if by_name else {"name": name, option: number}
        said = [line for line in refused(params) if line.startswith(f"params.yaml: {place}.{option}: ")]
        assert [line for line in said if f"found {number}, should be at" in line] == said != []


@pytest.mark.parametrize(("kind", "name", "option"), [each for each in WHOLE_NUMBERS if each[2] == "seed"])
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
    (row,) = sharpness(
        objective, [Position(0, theta, None)], k=1, rtol=1e-3, max_products=100, audit_every=1, seed=largest
    )
    assert row["sharpness"] == pytest.approx(row["audit_sharpness"], rel=1e-3)


def test_what_rtol_may_be_hangs_on_the_precision(read: Callable[[str], Config]) -> None:
    text = diagnosed(SEGMENT, "1e-2", "1e-7").replace("dtype: float32", "dtype: float64").replace(PAPER, "")
    assert read(text).run("exp3_2over30").diagnose["segment_sharpness"].options["rtol"] == 1e-7


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    assert messages(tmp_path / "params.yaml") == [f"{tmp_path}/params.yaml cannot be read: Is a directory"]


def test_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(TEXT.encode("utf-16"))
    assert messages(tmp_path / "params.yaml") == [
        f"{tmp_path}/params.yaml is not UTF-8 text (byte 0): save it as UTF-8"
    ]


def test_long_values_are_shortened(project: Write) -> None:
    line = messages(project("params.yaml", edited("profile: quick", f"profile: [{'a' * 500}]")))[0]
    assert len(line.split(": ", 1)[1]) < 100


# --- read -------------------------------------------------------------------------------------------------------------


def test_the_committed_file_declares_the_paper(committed: Config) -> None:
    assert committed.profile == "quick"
    assert set(committed.experiments) == {
        "example1", "example2", "example3", "example4", "figure1", "exp1", "exp2", "exp3", "exp6", "exp8", "exp9",
    }  # fmt: skip
    assert {claim.run for claim in committed.claims.values()} == set(committed.runs)
    assert committed.left_out == []


def test_every_run_but_the_remark_is_in_a_figure(committed: Config) -> None:
    drawn = {run for figure in committed.drawn.values() for run in figure.runs}
    assert set(committed.runs) - drawn == {"exp3_2over10"}


@pytest.mark.parametrize(
    ("written", "name", "step_size"),
    [
        ("2/60", "2over60", Fraction(2, 60)),
        ("1/3", "1over3", Fraction(1, 3)),
        ("0.1", "0p1", Fraction(1, 10)),
        ("'0.1'", "0p1", Fraction(1, 10)),
        (".5", "0p5", Fraction(1, 2)),
        ("1e-4", "0p0001", Fraction(1, 10000)),
        ("1e-7", "1em07", Fraction(1, 10**7)),
        ("2", "2", Fraction(2)),
    ],
)
def test_step_sizes_are_read_exactly_and_name_runs(
    written: str, name: str, step_size: Fraction, read: Callable[[str], Config]
) -> None:
    config = read(edited("[2/300]", f"[{written}]").replace(PAPER, ""))
    assert config.run(f"exp2_{name}").setting.step_size == step_size


@pytest.mark.parametrize(
    ("step_size", "text"),
    [("2/60", "2/60"), ("1/10", "2/20"), ("3/7", "3/7"), ("4", "4"), ("0.0005", "0.0005"), ("2/3333", "2/3333")],
)
def test_step_sizes_print_as_the_paper_writes_them(step_size: str, text: str) -> None:
    assert step_size_text(Fraction(step_size)) == text


@pytest.mark.parametrize(("written", "name"), [("0.5", "0p5"), ("2/4", "2over4"), ("1/2", "1over2"), ("0.50", "0p5")])
def test_texts_have_a_step_size_as_it_is_written_and_records_as_the_paper_writes_it(
    written: str, name: str, read: Callable[[str], Config]
) -> None:
    setting = read(edited("[2/300]", f"[{written}]").replace(PAPER, "")).run(f"exp2_{name}").setting
    assert with_step_size("η = {step_size}", [setting.step_size]) == f"η = {written.removesuffix('0')}"
    assert with_step_size("{step_size}", [setting.step_size, Fraction(1, 2)]) == written.removesuffix("0")
    assert with_step_size("{step_size}", [copy.deepcopy(setting.step_size)]) == "2/4"
    assert setting.model_dump(mode="json")["step_size"] == "2/4"
    assert setting.step_size == Fraction(1, 2)


def test_numbers_are_those_of_yaml_1_2(read: Callable[[str], Config]) -> None:
    config = read(edited("rtol: 3e-3", "rtol: 1E-4").replace("experiment: eosrepro", "experiment: on"))
    assert (config.diagnose["sharpness"].options["rtol"], config.mlflow.experiment) == (1e-4, "on")


@pytest.mark.parametrize("path", [ROOT / "params.yaml", PARAMS], ids=["the one in use", "the one of the tests"])
def test_params_yaml_is_valid_satisfies_the_schema_and_is_the_same_to_dvc(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    raw = load_yaml(path)
    assert Config.model_validate(raw) == load(path)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(raw, schema(), jsonschema.Draft202012Validator)


def test_lists_become_tuples_and_defaults_of_the_member_are_filled_in(read: Callable[[str], Config]) -> None:
    for text in (TEXT, in_example(", curvatures: [20, 1]", "")):
        problem = read(text).run("example1_2over39").setting.problem
        assert problem is not None
        assert problem.options == {"curvatures": (20.0, 1.0)}


def test_an_options_schema_is_that_of_the_member_in_the_catalogue(
    project: Write, read: Callable[[str], Config]
) -> None:
    project("members/models/mine.py", "def mine(shape, n, *, channels: list[int], pool: bool = False): ...")
    setting = read(in_exp3(MODEL, "model: {name: mine, channels: [8, 16]}")).run("exp3_2over30").setting
    assert setting.model is not None
    assert (setting.model.name, setting.model.options) == ("mine", {"channels": [8, 16], "pool": False})
    path = project("params.yaml", in_exp3(MODEL, "model: {name: mine}"))
    assert messages(path) == [f"{path}: experiments.exp3.model.channels: is missing, and there is no default"]


def test_the_profile_caps_networks_and_not_problems(read: Callable[[str], Config]) -> None:
    text = edited("max_steps: 10\n", "max_steps: 7\n").replace("max_epochs: 10\n", "max_epochs: 9\n")
    fewer = read(text.replace("snapshot_every_epochs: 5", "snapshot_every_epochs: 3")).runs
    assert fewer["exp3_2over30"].stop == Stop(max_steps=7, accuracy=0.95, loss_above=100)
    assert fewer["example1_2over39"].stop == Stop(max_steps=100)
    assert fewer["exp8_2over50"].stop.max_steps == 9  # epochs
    assert [fewer[run].snapshot_every for run in RUNS] == [50, 5, 5, 3, 1]
    config = read(TEXT)
    paper = config.runs_in("paper")["exp8_2over50"]
    assert (paper.stop.max_steps, paper.snapshot_every, paper.profile.data.name) == (300, 1, "cifar10")
    assert config.runs["exp8_2over50"].stop.max_steps == 10


def test_runs_are_looked_up_by_name_experiment_or_the_first_part_of_names(committed: Config) -> None:
    def selected(name: str) -> list[str]:
        return [run.name for run in committed.select(name)]

    assert committed.run("exp3_2over30") is committed.runs["exp3_2over30"]
    assert selected("exp3") == ["exp3_2over10", "exp3_2over30", "exp3_2over60", "exp3_2over90"]
    assert selected("exp6_two_hidden") == [f"exp6_two_hidden_2over{n}" for n in (30, 60, 90)]
    assert selected("exp3_2over30") == ["exp3_2over30"]
    for look_up in (committed.run, committed.select):
        with pytest.raises(ConfigError, match="'exp3_30'; did you mean 'exp3_2over30'"):
            look_up("exp3_30")
    for part in ("exp3_2", "exp", "exp3_"):
        with pytest.raises(ConfigError, match=f"params.yaml has no experiment and no run '{part}'"):
            committed.select(part)


def test_diagnostics_of_a_run_are_those_of_all_those_of_its_experiment_and_those_of_itself(committed: Config) -> None:
    of = {name: set(run.diagnose) for name, run in committed.runs.items()}
    assert of["exp3_2over60"] == {"sharpness", "tau_scan", "segment_sharpness", "spectrum"}
    assert of["exp3_2over30"] == of["example4"] == {"sharpness"}
    assert of["exp8_2over50"] == {"sharpness", "expected_progress"}
    tau_scan = committed.run("exp3_2over60").diagnose["tau_scan"]
    assert tau_scan.settings == {"every": 5, "n_taus": 100, "tolerance": 1e-4}


def test_an_experiment_has_its_own_options_of_a_diagnostic_of_all(read: Callable[[str], Config]) -> None:
    own = "sharpness: {of: [exp3_2over30], k: 2, rtol: 1e-2, max_products: 200, audit_every: 10, seed: 0}"
    runs = read(diagnosed(own).replace(PAPER, "")).runs
    assert {name: run.diagnose["sharpness"].options["k"] for name, run in runs.items()} == {
        run: 2 if run == "exp3_2over30" else 1 for run in RUNS
    }


def test_diagnostics_without_options_may_be_a_list(read: Callable[[str], Config], project: Write) -> None:
    old = "diagnose: {expected_progress: {}}"
    assert read(edited(old, "diagnose: [expected_progress]")) == read(TEXT)
    path = project("params.yaml", edited(old, "diagnose: [expected_progres, 3]"))
    assert [line.split(": ")[1] for line in messages(path)] == [
        "experiments.exp8.diagnose.expected_progres",
        "experiments.exp8.diagnose.3",
    ]


def test_settings_are_json_and_hold_what_determines_the_run(committed: Config) -> None:
    settings = committed.run("exp3_2over30").settings
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["name"], settings["step_size"]) == ("exp3_2over30", "2/30")
    assert settings["model"].items() >= {"name": "mlp", "width": 200, "depth": 2, "activation": "tanh"}.items()
    assert settings["model"]["init"] == "default"  # what is not written is there too
    assert settings["stop"] == {"max_steps": 600, "accuracy": 0.95, "loss_above": 100}
    assert settings["data"] == {"name": "photo-patches", "n_examples": 200, "n_test": 0, "seed": 0, "classes": None}
    assert settings["compute"]["dtype"] == "float32"
    of_problem = json.loads(json.dumps(committed.run("example3_tanh").settings))
    assert of_problem["start"] == [13.0, 0.01]
    assert not {"data", "compute", "diagnose"} & of_problem.keys()


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("threads: 1", "threads: 2", True),
        ("n_examples: 100", "n_examples: 90", True),
        ("seed: 3\n", "seed: 4\n", True),
        ("[2/10, 2/30]", "[2/10, 2/30, 2/60]", False),
        ("window: 20", "window: 30", False),
        ("rtol: 3e-3", "rtol: 1e-4", False),
        ("n_taus: 100", "n_taus: 10", False),
        ("n_examples: 5000", "n_examples: 4000", False),
    ],
)
def test_settings_change_with_what_determines_the_run_and_with_nothing_else(
    old: str, new: str, changes: bool, read: Callable[[str], Config]
) -> None:
    text = TEXT.replace(PAPER, "")
    before, after = (read(each).run("exp3_2over30").settings for each in (text, edited(old, new, text=text)))
    assert (before != after) is changes


def test_config_is_frozen(committed: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        committed.compute.threads = 4


def test_what_a_claim_may_be_about(committed: Config, read: Callable[[str], Config]) -> None:
    network, problem = (set(committed.quantities(run)) for run in ("exp3_2over30", "example4"))
    assert {"loss", "accuracy", "sharpness", "relative_progress_by_next_gradient"} <= network
    assert {"loss", "sharpness", "theta_1", "abs_theta_2"} <= problem
    assert not {"theta_1", "eigenvalue_2", "expected_relative_progress", "directional_smoothness_std"} & network
    assert not {"accuracy", "theta_3"} & problem
    assert "expected_relative_progress" in committed.quantities("exp8_2over50")
    assert "directional_smoothness_std" in committed.quantities("exp3_2over60")
    assert "eigenvalue_2" in read(edited("{k: 1,", "{k: 2,")).quantities("exp2_2over300")


def test_pixels_may_be_scaled_by_two_values_of_ones_own(read: Callable[[str], Config]) -> None:
    config = read(edited("scale: unit", "scale: {zero: 120, one: 255.5}"))
    assert config.active.preprocessing
    assert config.active.preprocessing.model_dump()["scale"] == {"zero": 120, "one": 255.5}


GIVEN = "statistics: {mean: [0.5, 0.4, 0.4], deviation: [0.2, 0.2, 0.1]}"


def test_statistics_may_be_given_numbers(read: Callable[[str], Config]) -> None:
    config = read(edited("standardise: none, statistics: subset", f"standardise: per_channel, {GIVEN}"))
    assert config.active.preprocessing
    given = {"mean": (0.5, 0.4, 0.4), "deviation": (0.2, 0.2, 0.1)}
    assert config.active.preprocessing.model_dump()["statistics"] == given
    centring = "standardise: centre_per_channel, statistics: {mean: [0.5, 0.4, 0.4]}"
    config = read(edited("standardise: none, statistics: subset", centring))
    assert config.active.made_with["preprocessing"]["statistics"] == {"mean": [0.5, 0.4, 0.4], "deviation": None}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            f"standardise: none, {GIVEN}",
            "statistics are given for each channel, and standardise is none: it should be per_channel",
        ),
        (f"standardise: per_feature, {GIVEN}", "standardise is per_feature: it should be per_channel"),
        (f"standardise: centre_per_channel, {GIVEN}", "standardise is centre_per_channel, so leave deviation out"),
        (
            "standardise: per_channel, statistics: {mean: [0.5]}",
            "standardise is per_channel, so write deviation beside mean",
        ),
        (
            "standardise: per_channel, statistics: {mean: [0.5], deviation: [0]}",
            "statistics.deviation.*greater than 0|above 0",
        ),
        ("standardise: per_channel, statistics: {means: [0.5]}", "statistics.means: .*did you mean 'mean'"),
    ],
)
def test_given_statistics_are_used_or_refused(written: str, words: str, read: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError, match=words):
        read(edited("standardise: none, statistics: subset", written))


def test_label_noise_stands_beside_the_options_of_any_source(read: Callable[[str], Config]) -> None:
    source = read(
        edited("n_examples: 100, seed: 0", "n_examples: 100, seed: 0, label_noise: 0.2, noise_seed: 7")
    ).active.data
    assert (source.label_noise, source.noise_seed) == (0.2, 7)
    assert not {"label_noise", "noise_seed"} & source.options.keys()
    settings = read(
        edited("n_examples: 100, seed: 0", "n_examples: 100, seed: 0, label_noise: 0.2, noise_seed: 7")
    ).active.made_with
    assert (settings["data"]["label_noise"], settings["data"]["noise_seed"]) == (0.2, 7)
    assert read(TEXT).active.made_with["data"].keys() == {"name", "n_examples", "n_test", "seed", "classes"}
    with pytest.raises(ConfigError, match=r"profiles\.quick\.data\.label_noise: found 20"):
        read(edited("n_examples: 100, seed: 0", "n_examples: 100, seed: 0, label_noise: 20"))


def test_statistics_are_those_that_exist() -> None:
    assert set(get_args(Claim.model_fields["statistic"].annotation)) == set(STATISTICS)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_hold_their_own_options_apart_from_the_common_keys(committed: Config) -> None:
    figure = committed.figures["exp1"]
    assert (figure.name, figure.of) == ("trajectories", "exp1")
    assert figure.options["limits"] == {"loss": (0.0, 4.0), "sharpness": (0.0, 160.0)}
    assert not {"name", "of", "runs", "without"} & figure.options.keys()


@pytest.mark.parametrize(
    ("figure", "runs"),
    [
        ("exp2", {f"exp2_2over{n}": "η = {step_size}" for n in (300, 400, 500)}),  # what varies
        ("exp3", {f"exp3_2over{n}": "η = {step_size}" for n in (30, 60, 90)}),  # without one of them
        ("exp6_two_hidden", {f"exp6_two_hidden_2over{n}": "η = {step_size}" for n in (30, 60, 90)}),  # some, by a part
        ("exp5", {"exp3_2over60": "η = {step_size}"}),  # one
        ("example4", {"example4": "η = {step_size}"}),  # where nothing varies
        ("exp4", dict.fromkeys([f"exp2_2over{n}" for n in (300, 400, 500)] + [f"exp3_2over{n}" for n in (30, 60, 90)], "η = {step_size}")),
        ("exp1", {"exp1_tanh": "tanh", "exp1_relu": "ReLU", "exp1_linear": "linear"}),  # as written
        ("figure1", {"figure1_tanh_2over50": "tanh, η = {step_size}", "figure1_tanh_2over100": "tanh, η = {step_size}", "figure1_relu_2over50": "ReLU, η = {step_size}", "figure1_relu_2over100": "ReLU, η = {step_size}"}),
    ],
)  # fmt: skip
def test_a_figure_shows_runs_by_experiment_part_or_name_labelled_by_what_varies(
    figure: str, runs: dict[str, str], committed: Config
) -> None:
    assert committed.drawn[figure].runs == runs


def test_labels_name_all_that_differs_and_columns_hold_the_runs_shown() -> None:
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"] |= {
        "vary": {"model.depth": {"one_hidden": 1, "two_hidden": 2}, "step_size": ["2/10", 0.1]},
        "diagnose": {},
    }
    figure = {"name": "trajectories", "of": "exp3", "title": "", "panels": ["loss"]}
    some = figure | {"columns": {"one": ["exp3_one_hidden"], "all": ["exp3"]}, "without": ["exp3_two_hidden_2over10"]}
    one = figure | {"runs": ["exp3_one_hidden"]}
    drawn = validate(params | {"figures": {"some": some, "one": one}}, PARAMS).drawn
    assert drawn["some"].runs == {
        "exp3_one_hidden_2over10": "one hidden, η = {step_size}",
        "exp3_one_hidden_0p1": "one hidden, η = {step_size}",
        "exp3_two_hidden_0p1": "two hidden, η = {step_size}",
    }
    shown = [*drawn["some"].runs]
    assert drawn["some"].options["columns"] == {"one": shown[:2], "all": shown}
    assert [*drawn["one"].runs.values()] == ["η = {step_size}"] * 2


# --- `dvc exp run -S` -------------------------------------------------------------------------------------------------


def test_dvc_overrides_reach_the_experiments_they_name_and_no_other(tmp_path: Path) -> None:
    # A mapping that is shared by an alias looks the same when read, and swallows an override.
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    expected, overrides = load_yaml(path), []
    for seed, name in enumerate(["figure1", "exp1", "exp2", "exp3", "exp6", "exp9"], start=90):
        experiment = expected["experiments"][name]
        experiment["seed"] = experiment["model"]["width"] = experiment["stop"]["max_steps"] = seed
        experiment["loss"]["name"] = "mse"
        changes = [f"seed={seed}", f"model.width={seed}", f"stop.max_steps={seed}", "loss.name=mse"]
        if name != "exp1":
            experiment["vary"]["step_size"] = [f"2/{seed}", f"2/{seed}1"]
            changes.append(f"vary.step_size=[2/{seed},2/{seed}1]")
        overrides += [f"experiments.{name}.{change}" for change in changes]
    apply_overrides(path, overrides)
    assert load_yaml(path) == expected


def test_what_is_said_of_runs_that_do_not_vary_now_is_left_out(
    committed: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = read_params()
    params["experiments"]["exp3"]["vary"]["step_size"] = ["2/45"]
    config = validate(params, PARAMS)
    assert config.left_out == ["exp3_2over10", "exp3_2over30", "exp3_2over60", "exp3_2over90"]
    assert config.runs["exp3_2over45"].diagnose.keys() == {"sharpness"}
    assert config.drawn["exp3"].runs == {"exp3_2over45": "η = {step_size}"}
    assert config.drawn["exp5"].runs == {}
    others = {key: claim for key, claim in committed.claims.items() if not claim.run.startswith("exp3_")}
    assert config.claims == others


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({}, "schedule: changes nothing: write warm_up or drops, or leave it out"),
        (
            {"drops": {300: "1/2"}},
            "schedule.drops: the run ends at iteration 300 (stop.max_steps), and the drop at 300",
        ),
        ({"drops": {0: "1/2"}}, "schedule.drops.0"),
        ({"drops": {9: "-1/2"}}, "schedule.drops.9: found '-1/2'"),
        ({"warmup": 3}, "schedule.warmup: is not a known key; did you mean 'warm_up'"),
    ],
)
def test_a_schedule_that_would_do_nothing_or_something_else_is_refused(schedule: Any, said: str) -> None:
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"] |= {"schedule": schedule, "stop": {"max_steps": 300}}
    assert any(said in line for line in refused(params)), refused(params)


def test_a_drop_is_a_share_of_the_declared_step_size() -> None:
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"]["schedule"] = {"warm_up": 4, "drops": {6: "1/2", 8: 0.25}}
    schedule = validate(params, PARAMS).run("exp3_2over30").setting.schedule
    assert schedule
    assert [schedule.factor(step) for step in range(10)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_label_of_a_number_says_what_it_is_of() -> None:
    params = alone(small_params(), "exp3")
    params["experiments"]["exp3"]["vary"] = {"model.width": [8, 16], "model.activation": ["tanh", "relu"]}
    params["experiments"]["exp3"] |= {"step_size": "2/30", "diagnose": {}}
    figure = {"name": "trajectories", "of": "exp3", "title": "Widths", "panels": ["loss"]}
    labels = validate(params | {"figures": {"widths": figure}}, PARAMS).drawn["widths"].runs
    assert [*labels.values()] == ["width = 8, tanh", "width = 8, relu", "width = 16, tanh", "width = 16, relu"]


def test_every_value_of_vary_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, experiment in read_params()["experiments"].items():
        for path, values in experiment.get("vary", {}).items():
            params = read_params()
            alone: list[Any] = (
                [dict([each]) for each in values.items()] if isinstance(values, dict) else [[v] for v in values]
            )
            for other in [*alone, *([["2/77", *values]] if path == "step_size" else [])]:
                params["experiments"][name]["vary"][path] = other
                assert validate(params, PARAMS).claims


@pytest.mark.parametrize("experiment", ["exp3", "exp6"])
def test_another_optimizer_may_take_the_place_of_gradient_descent(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = read_params()
    for name in ("adam", "sgd", "gradient_flow"):  # of another geometry, by minibatches, without a threshold
        params["experiments"][experiment]["optimizer"] = {"name": name}
        assert validate(params, PARAMS).claims


def test_no_two_experiments_share_a_mapping() -> None:
    experiments = load_yaml(ROOT / "params.yaml")["experiments"].values()
    mappings = [id(value) for of in experiments for value in of.values() if isinstance(value, dict)]
    assert len(set(mappings)) == len(mappings)


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
    assert committed == schema(), "run `eosrepro config schema > params.schema.json`"


@pytest.mark.parametrize(
    "case", ["unknown section", "model option", "activation", "unknown data", "figure option", "accuracy in %", "unknown diagnostic", "one tau"]
)  # fmt: skip
def test_the_schema_refuses_what_an_editor_should_underline(case: str, project: Write) -> None:
    text = next(text for name, text, _ in BROKEN if name == case and text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(load_yaml(project("params.yaml", text)), schema(), jsonschema.Draft202012Validator)


# --- texts that name a step size --------------------------------------------------------------------------------------


def labelled(text: str) -> dict[str, Any]:
    params = small_params()
    params["figures"]["exp3"]["runs"] = {"exp3_2over30": text}
    del params["paper"]
    return params


@pytest.mark.parametrize(
    "text",
    [
        "η=2/60", "η = 0.05", "tanh, η ≈ .05", "tanh, 2/60", "2 / 60", "(η: 1/30)", "η 1e-3", "η of 0.1", "η is 2", "𝜂 = 0.1",
        "eta=0.1", "lr 1e-3", "LR: 0.1", "step size 0.1", "step_size=0.1", "learning rate of 0.1", r"$\eta = 0.1$",
        r"$\eta = \frac{2}{60}$", "2/η = 40", r"$2/\eta = 40$", "step sizes 0.1 and {step_size}",
    ],
)  # fmt: skip
def test_a_text_that_spells_a_step_size_is_refused(text: str) -> None:
    (line,) = refused(labelled(text))
    assert re.match(r"params\.yaml: figures\.exp3\.runs\.exp3_2over30: .* spells a step size", line)


@pytest.mark.parametrize(
    "text",
    [
        "η = {step_size}", "{step_size}", r"$\eta = {step_size}$", "in units of 2/η", "2/η (3 seeds)", "L near 2/η, eq. 4.3",
        "RP ≈ -1 + (η/2) L", "20θ₁² + θ₂²", "η² and 3", "Figure 1/2", "N = 500", "layer 3", "zeta = 2", "batch 32", "step 7",
    ],
)  # fmt: skip
def test_other_numbers_may_stand_in_a_text(text: str) -> None:
    validate(labelled(text), PARAMS)


def test_texts_of_a_figure_name_the_step_sizes_that_they_are_given(committed: Config) -> None:
    figure = committed.drawn["figure1"]
    tanh, relu = figure.options["columns"].values()
    options = {"title": "tanh at {step_size}", "columns": {"η = {step_size}": tanh, "ReLU": relu}}
    step_sizes = dict(zip(figure.runs, map(Fraction, ("1/20", "0.5", "1/20", "3/7")), strict=True))
    worded = replace(figure, options={**figure.options, **options}).worded(step_sizes)
    assert [*worded.runs.values()] == ["tanh, η = 2/40", "tanh, η = 2/4", "ReLU, η = 2/40", "ReLU, η = 3/7"]
    assert worded.options["title"] == "tanh at 2/40, 2/4, 3/7"
    assert worded.options["columns"] == {"η = 2/40, 2/4": tanh, "ReLU": relu}
    assert worded.options["panels"] == figure.options["panels"]


def test_runs_that_come_to_have_one_label_are_told_apart(committed: Config) -> None:
    figure = committed.drawn["exp3"]
    step_sizes = dict(zip(figure.runs, map(Fraction, ("2/30", "2/45", "2/45")), strict=True))
    labels = figure.worded(step_sizes).runs
    assert [*labels.values()] == ["η = 2/30", "η = 2/45 (exp3_2over60)", "η = 2/45 (exp3_2over90)"]

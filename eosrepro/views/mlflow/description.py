"""What a person reads of a run, and of all runs, in MLflow: Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from eosrepro.records.runs import Record
from eosrepro.verdicts import claims
from eosrepro.verdicts.claims import Verdict
from eosrepro.views import markdown

_ENDS = {
    "accuracy": "reached the accuracy it was to stop at",
    "max_steps": "ran its full length",
    "diverged": "diverged",
}
_SHORT = {"holds": "holds", "fails": "**fails**", "not applicable": "n.a."}
_MEMBERS = ("problem", "model", "loss", "optimizer", "preprocessing")
_MOST_ROWS = 25  # MLflow takes 8,000 characters

_EXPERIMENT = """\
**{counts}** of the claims{paper}: see the description of each run.

One run for each run of `experiments` in `params.yaml`, as `dvc.yaml` runs them.

| metrics | of what |
| --- | --- |
| `train/` | every step: loss, accuracy, gradient norm, relative progress RP, directional smoothness L |
| `windowed/` | least, mean and greatest value of every few steps: charts thin `train/`, which hides an oscillation |
| `curvature/` | sharpness, the largest eigenvalue of the Hessian, and the same in units of 2/η |
| `summary/` | one number a run, to sort and compare by: onset, crossing of 2/η, means after the onset |
| `diagnostics/` | what other diagnostics measured |

Search: {example}`params.step_size = '2/60'`, `tags."claims.fail" != '0'`, `metrics."summary/onset" > 100`.
More is in `docs/mlflow.md`.
"""


def reproduction(paper: str | None, sources: Iterable[str]) -> str:
    """What a run reproduces, `Ahn 2022: Exp 3, Exp 4`; nothing where there is no claim about it."""
    of = sorted(sources, key=_by_number)
    return f"{paper}: {', '.join(of)}" if paper and of else ""


def counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """How many claims hold, fail and do not apply, as tags."""
    hold, fail, other = claims.counts(verdicts).values()
    return {"claims.hold": str(hold), "claims.fail": str(fail), "claims.not_applicable": str(other)}


def run(
    resolved: Mapping[str, Any],
    reproduces: str,
    record: Record,
    summary: Mapping[str, float],
    verdicts: Sequence[Verdict],
) -> str:
    """What a run is, how it ended, and a table of the claims about it.

    Args:
        resolved: `Run.settings`.
        reproduces: from `reproduction`.
        record: what is on disk.
        summary: `comparison.summary(record)`.
        verdicts: on the claims about this run.
    """
    crossing = _at(summary["sharpness_crossing"]) if "sharpness" in record.measured else "not measured"
    settings = [(key, _member(resolved[key])) for key in _MEMBERS if key in resolved]
    settings += [(key, str(resolved[key])) for key in ("seed", "start") if key in resolved]
    formula, threshold = record.origin.threshold_formula, markdown.number(record.thresholds.iloc[0])
    edge = f", so that {formula} = {threshold}" if formula else ""
    rows = [
        ("reproduces", reproduces),
        ("step size η", f"{resolved['step_size']}{edge}"),
        ("data", record.origin.data),
        *settings,
    ]
    # The UI folds the description after a few lines.
    return "\n\n".join(
        [
            f"**{_count(verdicts)}** of the claims about this run",
            f"It {_end(record)}. Onset (first RP > -0.5): {_at(summary['onset'])}. "
            + (f"Sharpness above {formula}: {crossing}." if formula else ""),
            _claims(verdicts),
            markdown.table(["setting", "value"], [row for row in rows if row[1]]) + "\n",
        ]
    )


def experiment(paper: str | None, verdicts: Sequence[Verdict]) -> str:
    """What all runs are, the number of claims that hold, what the metrics are, and how to find a run."""
    sources = Counter(verdict.source for verdict in verdicts)
    example = f"`tags.reproduction LIKE '%{sources.most_common(1)[0][0]}%'`, " if paper and sources else ""
    return _EXPERIMENT.format(counts=_count(verdicts), paper=f" of {paper}" if paper else "", example=example)


def _claims(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "There is none."
    rows = [
        [
            _SHORT[verdict.verdict],
            verdict.claim,
            markdown.number(verdict.measured),
            markdown.bound(verdict),
            markdown.number(verdict.published),
            verdict.source,
        ]
        for verdict in sorted(verdicts, key=lambda verdict: verdict.verdict != "fails")
    ]
    table = markdown.table(["verdict", "claim", "measured", "expected", "published", "source"], rows[:_MOST_ROWS])
    left_out = [f"{len(rows) - _MOST_ROWS} more are in `stages/verify/claims.md`."] if len(rows) > _MOST_ROWS else []
    reasons = dict.fromkeys(verdict.reason for verdict in verdicts if verdict.verdict == "not applicable")
    return "\n\n".join([table, *left_out, *(f"n.a.: {reason}" for reason in reasons)])


def _count(verdicts: Sequence[Verdict]) -> str:
    hold, fail, other = claims.counts(verdicts).values()
    return f"{hold} hold, {fail} fail, {other} not applicable"


def _member(settings: Mapping[str, Any]) -> str:
    """`mlp: width 200, depth 2` of a name with options."""
    options = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name" and value is not None)
    return ": ".join(filter(None, [settings.get("name", ""), options]))


def _end(record: Record) -> str:
    end = record.summary
    accuracy = "" if end["accuracy"] is None else f", accuracy {end['accuracy']:.1%}"
    return f"{_ENDS[end['reason']]}: {end['steps']:,} steps, loss {markdown.number(end['loss'])}{accuracy}"


def _at(step: float) -> str:
    return f"from step {step:,.0f}" if isfinite(step) else "not seen"


def _by_number(source: str) -> list[str | int]:
    """`Exp 9` before `Exp 10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", source)]

"""One HTML page of all that is recorded: figures, verdicts, numbers, settings, and series to zoom into.

The page holds everything that it shows, and its content security policy forbids it to load anything. It holds no time,
host name or run id, so equal results are equal pages. What is not recorded yet is named with the command that makes it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from eosrepro.records.flat import differences, flattened
from eosrepro.verdicts import claims
from eosrepro.views import markdown
from eosrepro.views.papers import Paper
from eosrepro.views.report.chart import Part, chart

if TYPE_CHECKING:
    from jinja2 import Template


SYMBOLS: Mapping[claims.Judgement, str] = {"holds": "✓", "fails": "✗", "not applicable": "–"}


def page(
    parts: Sequence[Part],
    verdicts: Sequence[claims.Verdict] | None,
    compared: pd.DataFrame | None,
    *,
    paper: Paper | None,
    profile: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    versions: Mapping[str, str],
) -> str:
    """The page.

    Args:
        parts: the figures, in the order of the page.
        verdicts: on all claims; None where there are none yet.
        compared: what `comparison.table` made; None where it was not made yet.
        paper: what is reproduced; None where there are no claims of one.
        profile: the settings of the active profile, with its name as `name`.
        data: the provenance of the training data; None where it was not made yet.
        versions: program → version.
    """
    judged = verdicts or []
    shown = {run for part in parts for run in part.runs}
    return _template().render(
        parts=[_shown(part, judged, compared) for part in parts],
        counts=None if verdicts is None else claims.counts(judged),
        failed=[_row(verdict) for verdict in judged if verdict.verdict == "fails"],
        figures_of={run: [part.name for part in parts if run in part.runs] for run in shown},
        others=[_row(verdict) for verdict in judged if verdict.run not in shown],
        symbols=SYMBOLS,
        paper=paper,
        profile=_texts(profile),
        data=None if data is None else _texts(data),
        versions=versions,
        plotly=_plotly() if any(part.records for part in parts) else "",
    )


def shared_and_different(
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What all runs have in common; and of each other setting its value in every run, "" where it has none."""
    different = differences(settings)
    shared = {key: value for each in settings.values() for key, value in _texts(each).items() if key not in different}
    return shared, {key: {run: _text(value) for run, value in by_run.items()} for key, by_run in different.items()}


def _shown(part: Part, verdicts: Sequence[claims.Verdict], compared: pd.DataFrame | None) -> dict[str, Any]:
    """All that the template says about a figure."""
    own = [verdict for verdict in verdicts if verdict.run in part.runs]
    shared, different = shared_and_different(part.settings)
    drawn = chart(part) if part.records else None
    return {
        "name": part.name,
        "title": part.title,
        "picture": _picture(part.pictures),
        "notes": part.notes,
        "runs": part.runs,
        "ended": {run: record.ended for run, record in part.records.items()},
        "data": sorted({record.origin.data for record in part.records.values()} - {""}),
        "fingerprints": {run: record.origin.fingerprint[:12] for run, record in part.records.items()},
        "counts": claims.counts(own),
        "verdicts": [_row(verdict) for verdict in own],
        "numbers": {} if compared is None else _numbers(compared, list(part.runs)),
        "shared": shared,
        "different": different,
        "chart": _for_script(drawn.to_json(engine="json")) if drawn else None,
        "height": drawn.layout.height if drawn else 0,
        "published": bool(part.published),
    }


def _row(verdict: claims.Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.verdict,
        "claim": verdict.claim,
        "source": verdict.source,
        "run": verdict.run,
        "published": markdown.number(verdict.published),
        "measured": markdown.number(verdict.measured),
        "difference": markdown.difference(verdict),
        "bound": markdown.bound(verdict),
        "reason": verdict.reason,
    }


def _numbers(compared: pd.DataFrame, runs: Sequence[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Measure → run → (measured, published) as text, of the measures that any of the runs defines."""
    by_run = {(row["run"], row["source"]): row for row in compared.to_dict("records")}

    def text(run: str, source: str, measure: str) -> str:
        return markdown.number(by_run.get((run, source), {}).get(measure))

    measures = compared.columns.drop(["run", "source", "ended"])
    found = {
        measure: {run: (text(run, "ours", measure), text(run, "published", measure)) for run in runs}
        for measure in measures
    }
    return {measure: values for measure, values in found.items() if any(map(any, values.values()))}


def _picture(files: Sequence[Path]) -> str | None:
    """The smallest of the files as a data URL: a vector drawing is, until a series has very many points."""
    if not files:
        return None
    path = min(files, key=lambda file: (file.stat().st_size, file.suffix))
    kind = {".png": "image/png", ".svg": "image/svg+xml"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as `outer.inner` → text, without those that are not set."""
    return {key: _text(value) for key, value in flattened(settings).items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _for_script(text: str) -> Markup:
    """JSON that may stand inside <script>: no `<` in it can end that."""
    return Markup(text.replace("<", "\\u003c"))


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("eosrepro.views.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)

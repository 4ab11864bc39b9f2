"""What may stand beside a `name` in params.yaml: all members, their options and what they are, as Markdown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from eosrepro import catalog
from eosrepro.config.members import GIVEN, annotation_of
from eosrepro.views import markdown

HEAD = """\
# Members

What a `name` in `params.yaml` may be, made by `eosrepro config members`. An option with a value has it as its default;
one without must be given. A member says more in its file, `eosrepro/<kind>/<name>.py`.
"""
SHOWN = 8  # words that an option may be; of more, their number
WRITTEN = {
    "models": "`model: {name: ...}`",
    "losses": "`loss: {name: ...}`",
    "data": "`data: {name: ...}`, of a profile",
    "optimizers": "`optimizer: {name: ...}`, beside `step_size`, η; its edge with these defaults",
    "problems": "`problem: {name: ...}`, with a `start`, in place of model, loss and data",
    "observations": "`observe: {name: {...}}`: numbers that are recorded at every iteration",
    "diagnostics": "`diagnose: {name: {...}}`: what looks at snapshots; `every` and `of` choose which",
    "figures": "`figures: {<its name>: {name: ..., of: <experiment>}}`",
}


def page() -> str:
    """A section a kind, and in it a row a member."""
    sections = [f"## {kind.capitalize()}\n\n{WRITTEN[kind]}\n\n{_table(kind)}\n" for kind in catalog.KINDS]
    return "\n".join([HEAD, *sections])


def _table(kind: str) -> str:
    rows = []
    for name in catalog.names(kind):
        about, _, _ = (inspect.getdoc(catalog.find(kind, name)) or "").partition("\n\n")
        edge = [_edge(name)] if kind == "optimizers" else []
        rows.append([f"`{name}`", ", ".join(_options(kind, name)), *edge, about])
    return markdown.table(["name", "options", *(["edge"] if kind == "optimizers" else []), "what it is"], rows)


def _edge(optimizer: str) -> str:
    """The threshold as a formula; where it is another by a choice of words, each with its word."""
    member = catalog.find("optimizers", optimizer)
    formula: str = member(step_size=1.0).threshold_formula
    for parameter in inspect.signature(member).parameters.values():
        type_ = annotation_of(member, parameter)
        if get_origin(type_) is Literal:
            edges = {
                word: member(step_size=1.0, **{parameter.name: word}).threshold_formula for word in get_args(type_)
            }
            if len({*edges.values()}) > 1:
                return ", ".join(f"{word}: {edge}" for word, edge in edges.items())
    return formula


def _options(kind: str, name: str) -> Iterator[str]:
    member = catalog.find(kind, name)
    for parameter in inspect.signature(member).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in GIVEN | {"runs"}:
            continue
        default = "" if parameter.default is parameter.empty else f": {_in_yaml(parameter.default)}"
        type_ = annotation_of(member, parameter)
        others = (
            [str(each) for each in get_args(type_) if each != parameter.default] if get_origin(type_) is Literal else []
        )
        listed = ", ".join(others) if len(others) <= SHOWN else f"{len(others)} others"
        yield f"`{parameter.name}{default}`" + (f" ({listed})" if others else "")


def _in_yaml(default: object) -> str:
    return json.dumps(default).strip('"')

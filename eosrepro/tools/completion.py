"""Names from params.yaml for the Tab key: read without PyTorch, since somebody waits for it.

A file that is not valid completes to what can be read of it, or to nothing: this is no place for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

PARAMS = Path("params.yaml")  # as in `config`, which takes a second to import
TRAINED = Path("stages/train")  # <experiment>/<run>

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(*sections: str) -> Completer:
    """Complete to keys of these sections of params.yaml, and to recorded runs; not to what is on the line already."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        taken = ctx.params.get(parameter.name or "") or ()
        return [
            CompletionItem(name)
            for name in _keys(sections)
            if name.startswith(incomplete) and not (isinstance(taken, tuple) and name in taken)
        ]

    return complete


def _keys(sections: Sequence[str]) -> list[str]:
    import yaml

    try:
        # The loader in C reads the file in a tenth of the time; where it is missing, there is no completion.
        content: Any = yaml.load(PARAMS.read_text("utf-8"), yaml.CSafeLoader)
        runs = [path.name for path in TRAINED.glob("*/*")] if "experiments" in sections else []
        return [*(str(name) for section in sections for name in content[section]), *sorted(runs)]
    except Exception:  # whatever is wrong with the file, `eosrepro config check` says it
        return []

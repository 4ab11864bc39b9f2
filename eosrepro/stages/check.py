"""Stage `check`."""

from __future__ import annotations

from pathlib import Path

from eosrepro.records.files import save_text
from eosrepro.records.places import FIGURES


def stamp(path: Path) -> None:
    """Stage `check`: a file that says that params.yaml is valid, for other stages to depend on."""
    FIGURES.mkdir(exist_ok=True)  # stages depend on it, also where params.yaml has no figures
    save_text(path, "params.yaml is valid\n")

"""Where everything lies on disk.

stages/data/                             dataset.safetensors, provenance.json
stages/data.json                         the settings that these were made with
stages/train/<folder>/<run>/             trajectory.csv, summary.json, run.json, snapshots/<step>.safetensors
stages/diagnostics/<folder>/<run>/       sharpness.csv, sharpness.json, summary.json, and a .csv and .json of each
                                         other diagnostic
reference/                               <curve>.csv, index.json
stages/verify/                           claims.json, claims.md, runs.csv, runs.md, summary.json
stages/report.html                       all of it as one page
figures/<figure>/                        <figure>.png, <figure>.svg, table.csv
stages/unfinished/                       checkpoints, see `resuming`
stages/compare/<run>_<run>/              what `compare` draws
"""

from __future__ import annotations

from pathlib import Path

STAGES = Path("stages")
FIGURES = Path("figures")
VERIFY = STAGES / "verify"
REPORT = STAGES / "report.html"


def train_folder(folder: str, name: str) -> Path:
    """Where `eosrepro train` writes the run `name`."""
    return STAGES / "train" / folder / name


def diagnostics_folder(folder: str, name: str) -> Path:
    """Where `eosrepro diagnose` writes what it measured on the run `name`."""
    return STAGES / "diagnostics" / folder / name

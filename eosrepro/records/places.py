"""Where everything lies on disk.

stages/code.json                         digests of the code behind every experiment and figure
stages/data/                             dataset.safetensors, provenance.json
stages/data.json                         the settings that these were made with
stages/train/<experiment>/<run>/         trajectory.csv, summary.json, run.json, snapshots/<step>.safetensors
stages/diagnostics/<experiment>/<run>/   <diagnostic>.csv and <diagnostic>.json
stages/metrics/<experiment>.json         a few numbers a run, for DVC
figures/<figure>/                        <figure>.png, <figure>.svg, table.csv
stages/verify/                           claims.json, claims.md, runs.csv, runs.md, summary.json
stages/report.html                       all of it as one page
stages/store/                            what is finished, see `store`
stages/unfinished/                       checkpoints, see `resuming`
stages/compare/<run>_<run>/              what `compare` draws
papers/<paper>/curves/<run>/             published curves
"""

from __future__ import annotations

from pathlib import Path

STAGES = Path("stages")
CODE = STAGES / "code.json"
METRICS = STAGES / "metrics"
FIGURES = Path("figures")
VERIFY = STAGES / "verify"
REPORT = STAGES / "report.html"


def train_folder(experiment: str, run: str = "") -> Path:
    """Where `eosrepro train` writes an experiment, or one of its runs."""
    return STAGES / "train" / experiment / run


def diagnostics_folder(experiment: str, run: str = "") -> Path:
    """Where `eosrepro diagnose` writes what it found on an experiment, or on one of its runs."""
    return STAGES / "diagnostics" / experiment / run

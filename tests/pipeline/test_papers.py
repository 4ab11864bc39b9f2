"""The quick profile of each paper through the whole pipeline, from `eosrepro new` to the report, cut short."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_json, load_yaml

from eosrepro.tools.new import papers
from tests.project import environment, write_params

FEW = 8  # iterations
OTHERS = [paper for paper in papers() if paper != "ahn2022"]  # whose pipeline tests/pipeline/test_repro.py runs


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cut(params: dict[str, Any]) -> dict[str, Any]:
    """A few iterations of every network, and a diagnosis of the first and the last."""
    quick = params["profiles"]["quick"]
    quick |= {"max_steps": FEW, "max_epochs": 1, "snapshot_every": FEW, "snapshot_every_epochs": 1}
    return params


IN_CI = 2  # papers; the pipeline of each takes a minute


@pytest.mark.slow
@pytest.mark.parametrize(
    "paper",
    [pytest.param(paper, marks=[pytest.mark.very_slow] * (index >= IN_CI)) for index, paper in enumerate(OTHERS)],
)
def test_a_project_of_the_paper_ends_with_a_report_and_a_verdict_on_every_claim(paper: str, tmp_path: Path) -> None:
    run("eosrepro", "new", "mine", "--paper", paper, cwd=tmp_path)
    mine = tmp_path / "mine"
    params = load_yaml(mine / "params.yaml")
    write_params(mine, cut(params))
    run("dvc", "repro", cwd=mine)
    assert (mine / "stages" / "report.html").stat().st_size > 100_000
    assert all((mine / "figures" / name / f"{name}.png").exists() for name in params["figures"])
    verdicts = load_json(mine / "stages" / "verify" / "claims.json")
    assert {verdict["run"].split("_")[0] for verdict in verdicts.values()}
    # What short runs cannot tell is not judged; what can be told at once is: no run of the paper diverges in 8 steps.
    survived = [verdict for name, verdict in verdicts.items() if name.endswith("_survives")]
    assert all(verdict["verdict"] != "fails" for verdict in survived)

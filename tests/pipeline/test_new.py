"""`eosrepro new`: a project that runs from an installed wheel, outside of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml

from tests.project import ROOT, alone, environment, write_params

MEMBER = '''"""A linear network."""

from math import prod

from torch import nn


def line(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """One layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), n_outputs))
'''

CLAIMS = {
    "statements": {"falls": {"claim": "It falls", "quantity": "loss", "statistic": "final", "bound": [None, 2.5]}},
    "claims": [{"source": "Exp 3", "of": "exp3", "falls": None}],
}


def run(*command: str, cwd: Path, **variables: str) -> str:
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_project_of_an_installed_wheel_ends_with_a_report(tmp_path: Path) -> None:
    """Its libraries are those of this environment; the package is the wheel's alone."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "env"), cwd=tmp_path)
    python = str(tmp_path / "env" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel), cwd=tmp_path)
    # A line of a .pth file is a folder to look in, and .pth files there are not read: no editable install among them.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    where = run(python, "-c", "import eosrepro; print(eosrepro.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "env")

    path = os.pathsep.join([str(tmp_path / "env" / "bin"), environment()["PATH"]])
    run("eosrepro", "new", "mine", cwd=tmp_path, PATH=path)
    mine = tmp_path / "mine"
    params = load_yaml(mine / "params.yaml")
    kept = {"figures": {"exp3": params["figures"]["exp3"]}, "paper": params["paper"]}
    params = alone(params, "exp3", "example1") | kept
    params["profiles"]["quick"] |= {"max_steps": 4, "snapshot_every": 2}
    params["compute"]["threads"] = 1
    params["experiments"]["exp3"] |= {"model": {"name": "line"}, "diagnose": {}}
    write_params(mine, params)
    write_params(mine / params["paper"], CLAIMS, "claims.yaml")  # those of the runs that are left
    (mine / "members" / "models").mkdir(parents=True)
    (mine / "members" / "models" / "line.py").write_text(MEMBER, "utf-8")
    run("dvc", "repro", cwd=mine, PATH=path)
    assert (mine / "stages" / "report.html").stat().st_size > 100_000
    assert (mine / "figures" / "exp3" / "exp3.png").exists()
    assert "didn't change" in run("dvc", "repro", "report", cwd=mine, PATH=path)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    done = subprocess.run(
        ["eosrepro", "new", "."], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is there and not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_git_may_come_before_the_project_or_after_it(tmp_path: Path) -> None:
    run("git", "init", "--quiet", "before", cwd=tmp_path)
    for name in ("before", "after"):
        run("eosrepro", "new", name, cwd=tmp_path)
    after = tmp_path / "after"
    assert not (tmp_path / "before" / ".dvc" / "config.local").exists()
    assert "no_scm" in (after / ".dvc" / "config.local").read_text("utf-8")
    run("git", "init", "--quiet", cwd=after)
    told = run("eosrepro", "doctor", cwd=after)
    assert "dvc config --local --unset core.no_scm" in " ".join(told.split())
    run("dvc", "config", "--local", "--unset", "core.no_scm", cwd=after)
    assert "does not see git" not in run("eosrepro", "doctor", cwd=after)
    run("git", "add", "--all", cwd=after)
    added = run("git", "status", "--short", cwd=after)
    assert ".dvc/config\n" in added
    assert not {"cache", "tmp", "config.local"} & {Path(line[3:]).name for line in added.splitlines()}
    (after / ".git").rename(tmp_path / "gone")
    told = subprocess.run(
        ["eosrepro", "doctor"], cwd=after, env=environment(), capture_output=True, text=True, check=False
    ).stdout
    assert "dvc config --local core.no_scm true" in " ".join(told.split())
    run("dvc", "config", "--local", "core.no_scm", "true", cwd=after)
    assert "cannot read this project" not in run("eosrepro", "doctor", cwd=after)

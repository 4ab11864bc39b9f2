"""A project of one's own: params.yaml and dvc.yaml in a folder, ready for `dvc repro`."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

from eosrepro.catalog import PACKAGE
from eosrepro.config.load import schema
from eosrepro.config.words import unknown_name
from eosrepro.errors import ConfigError
from eosrepro.records.files import save_text
from eosrepro.tools.listing import in_git

# In an installed package the files of the checkout lie below it, see pyproject.toml.
TEMPLATE = PACKAGE / "project" if (PACKAGE / "project").exists() else PACKAGE.parent
FILES = ("params.yaml", "dvc.yaml", ".dvcignore")
DVC_CONFIG = '[core]\n    analytics = false\n[cache]\n    type = "hardlink,reflink,symlink,copy"\n'
WITHOUT_GIT = "[core]\n    no_scm = True\n"
OF_DVC = "/config.local\n/tmp\n/cache\n"  # what git is not to have; DVC says so only where git is
IGNORED = "/data/\n/stages/*\n/figures/*\n/mlflow.db*\n/mlartifacts/\n*.tmp\n__pycache__/\n"
README = """\
# {name}

    dvc repro           # runs what params.yaml declares; the report is stages/report.html
    eosrepro ui         # all runs in MLflow
    eosrepro doctor     # what is missing here, and what to do

`params.yaml` says what is run and drawn, `papers/{paper}/claims.yaml` what the paper says about it. A model, loss,
optimizer, problem, data set, diagnostic or figure of your own is a file `members/<kind>/<name>.py`, such as
`members/models/cnn.py` with a function `cnn`. Its name may then stand in `params.yaml`.
"""


def papers() -> list[str]:
    """The papers that a project can begin with."""
    return sorted(path.parent.name for path in TEMPLATE.glob("papers/*/claims.yaml"))


def new(folder: Path, paper: str) -> None:
    """Write a project that reproduces a paper, into a new folder or one in which there is nothing but git.

    Raises:
        ConfigError: there is no such paper, or the folder is not empty.
    """
    from dvc.repo import Repo

    if paper not in papers():
        raise ConfigError(f"there is no paper {unknown_name(paper, papers())}")
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {".git"}):
        raise ConfigError(f"{folder} is there and not empty: name a new folder")
    own = TEMPLATE / "papers" / paper
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(own / name if (own / name).exists() else TEMPLATE / name, folder / name)
    shutil.copytree(own, folder / "papers" / paper, ignore=shutil.ignore_patterns(*FILES))
    save_text(folder / "params.schema.json", json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
    save_text(folder / "README.md", README.format(name=folder.name, paper=paper))
    save_text(folder / ".gitignore", IGNORED)
    has_git = in_git(folder)
    with redirect_stdout(io.StringIO()):  # DVC greets
        Repo.init(str(folder), no_scm=not has_git, subdir=has_git and not (folder / ".git").exists()).close()
    save_text(folder / ".dvc" / "config", DVC_CONFIG)
    save_text(folder / ".dvc" / ".gitignore", OF_DVC)
    if not has_git:
        save_text(folder / ".dvc" / "config.local", WITHOUT_GIT)

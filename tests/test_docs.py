"""What the pages say is so: links lead somewhere, commands exist, and every example on them works.

Code blocks name what they are after the language: ```yaml params``` goes into params.yaml below the sections it names,
```yaml claims``` into the claims of its paper; ```yaml study``` and ```python FILE``` are files of their own.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

from eosrepro.cli import main
from eosrepro.config.load import read_params, validate
from eosrepro.records.files import load_json
from tests.project import ROOT, SMALL, environment, small_params, write_params, write_project

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
EXAMPLES = [path for path in PAGES if re.search(r"^```\w+ \S", path.read_text("utf-8"), re.MULTILINE)]
STUDY = "studies/width.yaml"
SMALL_STATEMENTS = load_yaml(SMALL / "papers/small/claims.yaml")["statements"].keys()

# One process, for importing PyTorch takes longer than all that it does: a reader's way through the examples.
WALK = """
import sys
from pathlib import Path
from eosrepro.config.load import load
from eosrepro.stages import check, data, diagnose, figure, report, train, verify
from eosrepro.tools import sweeps

settings = load()
_, *names = sys.argv
check.check(settings)
data.make_data(settings)
for experiment in names:
    train.train(settings, experiment, jobs=1)
    diagnose.diagnose(settings, experiment, jobs=1)
for name, entry in settings.figures.items():
    if entry.of in names:
        figure.draw(settings, name)
verify.verify(settings)
report.report(settings)
for file in Path("studies").glob("*.yaml"):
    sweeps.run(file, jobs=1)
"""


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=label)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(info, content) of every fenced block; the info of ```yaml params``` is `yaml params`."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> str:
    """What a page says in code, a piece a line, without blocks in other languages than the shell's."""
    shell = [content for info, content in blocks(page) if info == "sh"]
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([*shell, *inline])


def commands(command: click.Command = main, name: str = "eosrepro") -> Iterator[str]:
    """All commands that do something, in full."""
    if not isinstance(command, click.Group):
        yield name
        return
    for key, member in command.commands.items():
        yield from commands(member, f"{name} {key}")


# --- what pages point at ----------------------------------------------------------------------------------------------


@every_page
def test_relative_links_lead_to_files(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")) if "://" not in link]
    for file, _, heading in (link.partition("#") for link in links):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def headings(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    found = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


def test_the_index_names_every_page_of_docs() -> None:
    index = (ROOT / "docs/index.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()


@every_page
def test_commands_exist(page: Path) -> None:
    for words in re.findall(
        r"^(?!import)(?:.*[ (])?eosrepro((?: [a-z][a-z_-]*(?![\w./@=]))+)", quoted(page), re.MULTILINE
    ):
        command: click.Command = main
        for word in words.split():
            if isinstance(command, click.Group):
                assert word in command.commands, f"{label(page)}: `eosrepro{words}`"
                command = command.commands[word]


def test_every_command_is_on_a_page() -> None:
    text = "\n".join(map(quoted, PAGES))
    # What DVC runs is described by its stage.
    stages = {"check", "data", "train", "diagnose", "figure", "verify"}
    missing = {name for name in commands() if name not in text and name.split()[-1] not in stages}
    assert missing == set()


@every_page
def test_make_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", quoted(page), re.MULTILINE)) <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "params.yaml"], ids=label)
def test_what_dvc_is_told_to_change_can_be_changed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-S` of an example, alone and as it stands, leaves a valid params.yaml that has the target."""
    monkeypatch.chdir(ROOT)
    text = page.read_text("utf-8")
    said = quoted(page) if page.suffix == ".md" else text
    for example in re.findall(r"^[# ]*(dvc exp run .*?)(?:  .*)?$", said, re.MULTILINE):
        words = shlex.split(example, comments=True)
        overrides = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-S"]
        if any(f"\n  {each.removeprefix('profile=')}:\n" in text for each in overrides if page.suffix == ".md"):
            continue  # a profile that the page adds
        shutil.copy(ROOT / "params.yaml", tmp_path)
        apply_overrides(tmp_path / "params.yaml", overrides)
        changed = validate(read_params(tmp_path / "params.yaml"), page)
        entries = {"figure": changed.figures, "train": changed.experiments}
        targets = [word.split("@") for word in words if "@" in word]
        assert all(name in entries[stage] for stage, name in targets)


# --- examples ---------------------------------------------------------------------------------------------------------


def inserted(text: str, example: str) -> str:
    """A YAML file with the entries of an example at the head of the sections that it names."""
    sections = re.findall(r"^(\w+):\n((?:[ #].*\n|\n)+)", example, re.MULTILINE)
    assert "".join(f"{name}:\n{entries}" for name, entries in sections) == example
    for name, entries in sections:
        head = f"\n{name}:\n"
        assert text.count(head) == 1, f"there is no section {name}"
        text = text.replace(head, head + entries)
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to which every example of every page has been added."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    params, claims = folder / "params.yaml", folder / "papers/small/claims.yaml"
    (folder / "studies").mkdir()
    for info, content in [block for page in EXAMPLES for block in blocks(page)]:
        language, _, what = info.partition(" ")
        if info in ("yaml params", "yaml claims"):
            file = params if info == "yaml params" else claims
            file.write_text(inserted(file.read_text("utf-8"), content), "utf-8")
        elif info == "yaml study":
            (folder / STUDY).write_text(content, "utf-8")
        elif language == "python" and what:
            assert not (folder / what).exists(), f"{what} is in the project already"
            (folder / what).parent.mkdir(parents=True, exist_ok=True)
            (folder / what).write_text(content, "utf-8")
    return folder


def added(project: Path, section: str) -> list[str]:
    """Names of the entries that the examples add to a section."""
    return [*load_yaml(project / "params.yaml")[section].keys() - small_params()[section].keys()]


def in_project(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments in the project, with no MLflow."""
    env = environment() | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "nowhere://"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_example_works(project: Path) -> None:
    """They are valid as they stand, and then run on 20 images for a few iterations."""
    checked = in_project(project, "-c", "from eosrepro.cli import main; main(['config', 'check'])")
    assert checked.returncode == 0, checked.stderr
    experiments, figures = added(project, "experiments"), added(project, "figures")
    assert experiments
    assert figures

    params = read_params(project / "params.yaml")
    params["profiles"]["quick"]["data"]["n_examples"] = 20
    params["profiles"]["quick"]["max_steps"] = 11
    write_params(project, params)
    walked = in_project(project, "-c", WALK, *experiments)

    assert walked.returncode == 0, walked.stderr
    assert {path.name for path in (project / "figures").iterdir()} == set(figures)
    verdicts = load_json(project / "stages/verify/claims.json")
    about = load_yaml(project / "papers/small/claims.yaml")["statements"].keys() - SMALL_STATEMENTS
    assert about
    assert {key for key in about if not any(verdict.endswith(f"_{key}") for verdict in verdicts)} == set()
    assert (project / "stages/studies" / Path(STUDY).stem / "table.md").exists()
    declared = {name for each in experiments for name in params["experiments"][each].get("diagnose", {})}
    assert {path.stem for path in project.glob("stages/diagnostics/**/*.csv")} == {"sharpness", *declared}


def test_the_library_on_the_readme_runs() -> None:
    (example,) = [content for info, content in blocks(ROOT / "README.md") if info == "python"]
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    names: dict[str, Any] = {"model": torch.nn.Linear(3, 2), "x": x, "y": y}
    exec(example, names)
    assert names["run"].table["step"].iloc[-1] == 300


def test_data_sources_of_the_examples_deliver(project: Path) -> None:
    sources = [path.stem for path in (project / "members/data").glob("*.py")]
    assert sources
    script = "from eosrepro import catalog; print(len(catalog.find('data', '{}')(n_examples=20).targets))"
    for source in sources:
        made = in_project(project, "-c", script.format(source))
        assert made.stdout == "20\n", made.stderr


def test_stages_named_on_pages_are_in_the_pipeline(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the runs and figures that the examples add."""
    monkeypatch.chdir(project)
    stages = {stage.addressing for stage in Repo.init(no_scm=True, force=True).index.stages}
    named = {name for page in PAGES for name in re.findall(r"\b\w+@\w+", quoted(page))}
    assert named <= stages

"""The reading room says of each paper what its project found, and the committed page is what the command makes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from eosrepro.cli import main
from eosrepro.config.load import load, read_params
from eosrepro.records.files import load_json, save_json
from eosrepro.stages import track
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.figure import draw
from eosrepro.stages.train import train
from eosrepro.stages.verify import verify
from eosrepro.tools import new, papers
from eosrepro.verdicts.claims import Verdict
from eosrepro.views import markdown
from eosrepro.views.papers import about, first_table, with_table
from eosrepro.views.pictures import FORMS, MOST_BYTES, reduced
from tests.project import ROOT, write_params, write_part

FIGURES = ["example1", "exp3"]
VERDICTS = "stages/verify/claims.json"
README = "# Mine\n\nBefore.\n\n<!-- papers -->\nold\n<!-- /papers -->\n\nAfter.\n"
NOTES = """\
# One, Two 2021

> A. One, B. Two. *On
> Something.* ICML 2021,
> arXiv:2101.00001v3.

Profile `quick`: a minute.
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `dvc repro` leaves it. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(track, "_is_worth_mlflow", lambda _started: False)
        params = write_part(folder, "exp3", "example1")
        write_params(folder, params | {"figures": {name: params["figures"][name] for name in FIGURES}})
        (folder / "papers/small/README.md").write_text(NOTES, "utf-8")
        make_data(load())
        for experiment in ("exp3", "example1"):
            train(load(), experiment, jobs=1)
            diagnose(load(), experiment, jobs=1)
        for figure in FIGURES:
            draw(load(), figure)
        verify(load())
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Where the page goes; beside it a README.md, and a paper that nothing was found of yet."""
    room = tmp_path / "room"
    (room / "papers/later").mkdir(parents=True)
    (room / "papers/later/claims.yaml").touch()
    (room / "README.md").write_text(README, "utf-8")
    return room / "docs"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["papers", *map(str, arguments)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def verdicts(project: Path) -> list[Verdict]:
    return [Verdict(**each) for each in load_json(project / VERDICTS).values()]


def refute(project: Path, claim: str) -> Verdict:
    """Let a claim fail that holds, by 7."""
    written = load_json(project / VERDICTS)
    written[claim] |= {"verdict": "fails", "measured": written[claim]["high"] + 7}
    save_json(project / VERDICTS, written)
    return Verdict(**written[claim])


# --- the papers to begin with -----------------------------------------------------------------------------------------


def test_a_paper_is_listed_with_what_a_project_of_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "papers", lambda: ["ahn2022"])  # others are read in the same way
    with chdir(ROOT):
        declared = load()
    done = run("--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (told,) = json.loads(done.stdout)
    assert (told["name"], told["heading"], told["arxiv"]) == ("ahn2022", "Ahn, Zhang, Sra 2022", "2204.01050")
    assert told["title"] == "Understanding the Unstable Convergence of Gradient Descent"
    sizes = [len(each) for each in (declared.runs, declared.figures, declared.claims)]
    assert [told["runs"], told["figures"], told["claims"]] == sizes
    printed = run().stdout
    assert told["title"] in printed
    assert printed.rstrip().endswith("`eosrepro new FOLDER --paper NAME` begins with one of them")


def test_what_a_readme_says_of_its_paper() -> None:
    assert vars(about("x", NOTES)) == {
        "name": "x",
        "heading": "One, Two 2021",
        "title": "On Something",
        "arxiv": "2101.00001",
        "quick": "a minute",
    }
    assert vars(about("x", "No heading, *nothing* else.")) == {
        "name": "x",
        **dict.fromkeys(["title", "arxiv", "quick"], ""),
        "heading": "x",
    }


@pytest.mark.parametrize("paper", new.papers())
def test_every_paper_says_what_it_is(paper: str) -> None:
    said = about(paper, (ROOT / "papers" / paper / "README.md").read_text("utf-8"))
    assert re.search(r"\b(19|20)\d\d\b", said.heading), "the heading should be authors and year"
    assert said.title, "the block quote should have the title in italics"
    assert said.arxiv, "the block quote should have the number of the paper, arXiv:2204.01050"


# --- what projects found ----------------------------------------------------------------------------------------------


def test_what_a_project_found_is_what_its_verdicts_say(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)  # as in a checkout, which is a project itself
    of = papers.reproduction(Path())
    kinds = Counter(verdict.verdict for verdict in verdicts(finished))
    assert of.counts == {kind: kinds[kind] for kind in ("holds", "fails", "not applicable")}
    assert kinds["holds"] > 0 < kinds["not applicable"]
    assert (of.profile, of.runs, of.data) == ("quick", 3, ["photo-patches, N = 100"])
    assert [figure.name for figure in of.figures] == FIGURES
    about_exp3 = [verdict for verdict in verdicts(finished) if verdict.run == "exp3_2over30"]  # the run that it shows
    assert sum(of.figures[1].counts.values()) == len(about_exp3) > 0
    assert sum(sum(counts.values()) for counts in of.sources.values()) == sum(kinds.values())
    assert sum(of.unjudged.values()) == kinds["not applicable"]


def test_the_page_shows_figures_and_names_what_fails(project: Path, docs: Path) -> None:
    failed = refute(project, "exp3_2over30_loss_falls")
    done = run(project, "--write", docs)
    assert (done.exit_code, done.stderr) == (0, "")
    page = (docs / "papers.md").read_text("utf-8")
    for figure in FIGURES:
        picture = f"figures/papers/small/{figure}.png"
        assert f"]({picture})" in page
        assert (docs / picture).stat().st_size <= MOST_BYTES
        with Image.open(docs / picture) as shown:
            assert shown.width <= 1000
    (row,) = [line for line in page.splitlines() if failed.claim in line]
    assert failed.measured is not None
    cells = [failed.source, failed.run, markdown.number(failed.measured), markdown.bound(failed), failed.reason]
    assert all(cell in row for cell in cells)
    assert "[One, Two 2021](#one-two-2021)" in page
    assert "## One, Two 2021\n" in page
    assert "## later\n\nWhat it says, as tables: [papers/later](../papers/later).\n\nNothing is kept of it" in page


def test_the_table_of_the_readme_is_that_of_the_page(finished: Path, docs: Path) -> None:
    run(finished, "--write", docs)
    readme = (docs.parent / "README.md").read_text("utf-8")
    table = papers.table(docs)
    assert table in (docs / "papers.md").read_text("utf-8")
    linked = table.replace("(#", "(docs/papers.md#")
    assert readme == README.replace("\nold\n", f"\n\n{linked}\n\n")


@pytest.mark.parametrize("text", ["# Mine\n", "<!-- papers -->\n", "<!-- /papers --> <!-- papers -->"])
def test_a_readme_without_marks_stays_as_it_is(text: str, docs: Path) -> None:
    (docs.parent / "README.md").write_text(text, "utf-8")
    done = run("--write", docs)
    assert "its table would stand in" in done.stdout
    assert (docs.parent / "README.md").read_text("utf-8") == text


def test_the_same_project_makes_the_same_files(finished: Path, docs: Path) -> None:
    run(finished, "--write", docs)
    before = files(docs.parent)
    run(finished, "--write", docs)
    run("--write", docs)
    assert files(docs.parent) == before


def test_a_paper_is_brought_up_to_date_without_the_others(project: Path, docs: Path) -> None:
    run(project, "--write", docs)
    before = files(docs)
    params = read_params(project / "params.yaml") | {"paper": "papers/later"}
    write_params(project, params | {"figures": {"exp3": params["figures"]["exp3"]}})
    (project / "papers/small").rename(project / "papers/later")
    (docs / "figures/papers/later").mkdir(parents=True)
    (docs / "figures/papers/later/old.png").touch()
    assert run(project, "--write", docs).exit_code == 0
    after = files(docs)
    of_small = {name for name in before if "small" in name}
    assert of_small
    assert {name: after[name] for name in of_small} == {name: before[name] for name in of_small}
    assert {name for name in after if "papers/later" in name} == {"papers/later.json", "figures/papers/later/exp3.png"}
    assert b"not made yet" not in after["papers.md"]


def test_what_a_paper_is_called_is_what_its_readme_says_now(docs: Path) -> None:
    (docs.parent / "papers/later/README.md").write_text(NOTES, "utf-8")
    counts = {"holds": 1, "fails": 0, "not applicable": 2}
    kept = {"profile": "quick", "data": [], "runs": 1, "counts": counts, "figures": [], "sources": {}}
    kept |= {"failures": [], "unjudged": {}, "paper": vars(about("later", "# Another 2020"))}
    save_json(docs / "papers/later.json", kept)
    run("--write", docs)
    page = (docs / "papers.md").read_text("utf-8")
    assert "| [One, Two 2021](#one-two-2021) | On Something | 0 | 1 | 0 | 2 | none |" in page
    assert "**1 of 3 claims hold**" in page
    assert "Another" not in page


def test_json_holds_what_is_kept(finished: Path, docs: Path) -> None:
    told = json.loads(run(finished, "--json", "--write", docs).stdout)
    assert told == [load_json(docs / "papers/small.json")]


def claims_of_another_time(project: Path) -> None:
    written = load_json(project / VERDICTS)
    save_json(project / VERDICTS, {key: written[key] for key in list(written)[1:]})


def without_paper(project: Path) -> None:
    params: dict[str, Any] = read_params(project / "params.yaml")
    write_params(project, params | {"paper": None})


@pytest.mark.parametrize(
    ("change", "exit_code", "wanted"),
    [
        (lambda project: (project / "params.yaml").unlink(), 2, "holds no params.yaml: name folders of projects"),
        (without_paper, 2, "params.yaml names no `paper`"),
        (lambda project: (project / VERDICTS).unlink(), 1, "there are no verdicts yet: run `dvc repro` there"),
        (claims_of_another_time, 1, "of other claims than it declares now: run `dvc repro` there"),
        (
            lambda project: (project / "figures/exp3/exp3.png").unlink(),
            1,
            "figures/exp3/exp3.png is not there: run `dvc repro figure@exp3` there",
        ),
    ],
)
def test_a_project_that_is_not_finished_writes_nothing(
    change: Callable[[Path], None], exit_code: int, wanted: str, project: Path, finished: Path, docs: Path
) -> None:
    change(project)
    done = run(project, finished, "--write", docs)
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert done.stderr.startswith(f"Error: {project}")
    assert wanted in done.stderr
    assert not docs.exists()


def test_all_unfinished_folders_are_named_at_once(tmp_path: Path) -> None:
    done = run(tmp_path / "a", tmp_path / "b")
    assert done.stderr.count("holds no params.yaml") == 2


def test_two_projects_of_a_paper_are_refused(finished: Path, project: Path) -> None:
    done = run(finished, project)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{finished} and {project} are of the same paper, small: name one of them" in done.stderr


def test_a_kept_file_of_another_version_says_what_makes_it_anew(docs: Path) -> None:
    save_json(docs / "papers/small.json", {"paper": {}})
    done = run("--write", docs)
    assert done.exit_code == 1
    assert "small.json is not what this version writes: `eosrepro papers FOLDER --write` makes it anew" in done.stderr


# --- pictures ---------------------------------------------------------------------------------------------------------


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def opened(picture: bytes) -> np.ndarray:
    with Image.open(BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_reduced_picture_keeps_its_colours() -> None:
    """Lines over much black text; nothing drawn is white, as a page is."""
    colours = [(0, 114, 178), (0, 158, 115), (213, 94, 0), (150, 200, 220)]
    image = Image.new("RGBA", (2000, 600), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for i, colour in enumerate(colours):
        pen.rectangle((100, 100 * i + 50, 1900, 100 * i + 56), fill=(*colour, 255))
    for i in range(60):
        pen.text((30 * i, 500), "text", fill=(0, 0, 0, 255))
    small = reduced(png(image))
    shown = opened(small)
    assert shown.shape == (300, 1000, 3)
    assert len(small) <= MOST_BYTES
    for i, colour in enumerate(colours):
        assert np.abs(shown[(100 * i + 53) // 2, 500] - colour).max() <= 12
    assert (shown[10, 10] == 255).all()


def test_a_picture_becomes_smaller_until_it_is_small_enough() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 1200, 3), dtype=np.uint8))
    widths = [opened(reduced(png(noise), most)).shape[1] for most in (10**9, 15_000, 10)]
    assert widths[0] == FORMS[0][0] > widths[1] > widths[2] == FORMS[-1][0]
    assert len(reduced(png(noise), 15_000)) <= 15_000


# --- the committed page -----------------------------------------------------------------------------------------------


def test_the_committed_page_and_readme_are_what_the_command_makes() -> None:
    """If not: `eosrepro papers --write docs`."""
    docs = ROOT / "docs"
    assert (docs / "papers.md").read_text("utf-8") == papers.text(docs)
    before_the_table = papers.text(docs).partition("\n|")[0]
    assert max(map(len, before_the_table.splitlines())) <= 120
    readme = (ROOT / "README.md").read_text("utf-8")
    assert with_table(readme, papers.table(docs, "docs/papers.md")) == readme
    assert papers.table(docs).replace("(#", "(docs/papers.md#") in readme


def test_papers_stand_in_the_order_of_their_years() -> None:
    of = [about(name, f"# {name.title()} {year}\n") for name, year in (("b", 2023), ("c", 2021), ("a", 2023))]
    rows = [line.split("](")[0] for line in first_table(of, {}).splitlines()[2:]]
    assert rows == ["| [C 2021", "| [A 2023", "| [B 2023"]

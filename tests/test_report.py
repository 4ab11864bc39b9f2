"""The report: one page that shows all that is recorded, needs nothing else, and can be read and zoomed in a browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import time
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from eosrepro.cli import main
from eosrepro.config.load import load
from eosrepro.figures import _style
from eosrepro.figures.trajectories import trajectories
from eosrepro.records.files import save_text
from eosrepro.records.runs import Origin
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.figure import draw
from eosrepro.stages.train import train
from eosrepro.stages.verify import verify
from eosrepro.verdicts.claims import Verdict
from eosrepro.views.papers import about
from eosrepro.views.report.chart import DRAWN, Part, chart
from eosrepro.views.report.page import page as page_of_stage
from eosrepro.views.report.page import shared_and_different
from tests.browser import WAIT_SECONDS, open_page
from tests.project import ROOT, small_params, write_params, write_project
from tests.records import record, unstable

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = """<img src=x onerror="hacked=1"></script><script>hacked=1</script>'&"""
PROFILE = {"name": "quick", "published": False, "data": {"name": "photo-patches"}}
ORIGIN = Origin(
    {}, data="CIFAR-10, N = 500", data_sha256="1", counts="iterations", fingerprint="0" * 64, threshold_formula="2/η"
)


PAPER = about("ahn2022", (ROOT / "papers" / "ahn2022" / "README.md").read_text("utf-8"))


def part(**changes: Any) -> Part:
    """A figure of one run that oscillates."""
    series = {
        "loss": [2.0, 1.0, 1.5, 0.5, 1.25],
        "relative_progress": [-1, 0.5, -0.5, 0.5, np.nan],
        "directional_smoothness": [0, 30, 31, 29, np.nan],
    }
    made = record(series, sharpness={"step": [0, 2, 4], "sharpness": [10.0, 31.0, 32.0]})
    settings = {"run": {"step_size": "2/30", "model": {"name": "mlp", "width": 8}}}
    plain: dict[str, Any] = {
        "name": "exp", "title": "Experiment", "runs": {"run": "η = 2/30"}, "limits": {}, "pictures": [], "drawn": None,
        "records": {"run": made}, "published": {}, "settings": settings, "step": "iteration", "notes": [],
    }  # fmt: skip
    return Part(**(plain | changes))


def verdict(judgement: Any = "holds", **changes: Any) -> Verdict:
    plain = Verdict("id", "It falls", "Exp 3", "run", 0.5, 0.52, 0.04, 0.4, None, judgement, "steps 0 to 4 (5 values)")
    return dataclasses.replace(plain, **changes)


def page(*parts: Part, verdicts: list[Verdict] | None = None, compared: pd.DataFrame | None = None) -> str:
    return page_of_stage(parts, verdicts, compared, paper=PAPER, profile=PROFILE, data=None, versions={"eosrepro": "1"})


@pytest.mark.parametrize(
    ("name", "heading", "arxiv"),
    [("ahn2022", "Ahn, Zhang, Sra 2022", "2204.01050"), ("long2023", "Long, Bartlett 2023", "2309.12488")],
)
def test_the_page_is_about_the_paper_of_the_project(name: str, heading: str, arxiv: str) -> None:
    paper = about(name, (ROOT / "papers" / name / "README.md").read_text("utf-8"))
    made = page_of_stage([], [], None, paper=paper, profile=PROFILE, data=None, versions={})
    assert f"<h1>{heading}, reproduced</h1>" in made
    assert f"https://arxiv.org/abs/{arxiv}" in made


def test_without_claims_the_page_names_no_paper() -> None:
    made = page_of_stage([], [], None, paper=None, profile=PROFILE, data=None, versions={})
    assert "<h1>Training dynamics, as recorded</h1>" in made
    assert "paper" not in made.split("<header>")[1].split("</p>")[0]


def traces(shown: Part) -> list[dict[str, Any]]:
    """What the chart draws, without the entries of the legend that draw nothing."""
    return [trace for trace in json.loads(chart(shown).to_json())["data"] if trace.get("x") != [None]]


def numbers(packed: Mapping[str, str]) -> list[float]:
    """What Plotly reads from an array of the page."""
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(packed["bdata"]), dtype).tolist()


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


# --- what is on the page ----------------------------------------------------------------------------------------------


def test_verdicts_are_words_and_symbols() -> None:
    text = page(part(), verdicts=[verdict(), verdict("fails", run="other", measured=0.3)])
    assert "✓ holds" in text
    assert "✗ fails" in text
    assert "Claims that fail" in text
    assert "Claims about runs that no figure shows" in text
    assert ">0.52<" in text
    assert ">+4.0%<" in text
    assert "≥ 0.4" in text


def test_published_numbers_stand_beside_the_measured_ones() -> None:
    rows = [("run", "ours", "accuracy at 4", 0.938), ("run", "published", "", 0.924), ("other", "ours", "", 7.5)]
    text = page(part(), compared=pd.DataFrame(rows, columns=["run", "source", "ended", "final loss"]))
    assert re.search(r'final loss</th><td class="n">0\.938 / <span class="lead">0\.924</span></td></tr>', text)


def test_what_runs_share_and_in_what_they_differ() -> None:
    narrow, wide = {"width": 8}, {"width": 9, "depth": 2}
    settings = {"a": {"seed": 1, "model": narrow, "data": None}, "b": {"seed": 1, "model": wide}}
    shared, different = shared_and_different(settings)
    assert shared == {"seed": "1"}
    assert different == {"model.width": {"a": "8", "b": "9"}, "model.depth": {"a": "", "b": "2"}}


def test_the_smallest_picture_of_a_figure_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"0123456789")
    (tmp_path / "a.svg").write_bytes(b"<svg/>")
    text = page(part(pictures=[tmp_path / "a.png", tmp_path / "a.svg"]))
    (picture,) = [attributes for tag, attributes in Tags(text).found if tag == "img"]
    assert picture["src"] == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()
    assert "Experiment" in str(picture["alt"])


def test_everything_that_was_written_by_someone_is_escaped() -> None:
    hostile = part(
        title=HOSTILE,
        runs={"run": HOSTILE},
        notes=[f"{HOSTILE}: `{HOSTILE}`"],
        settings={"run": {HOSTILE: HOSTILE}},
        drawn=pd.DataFrame([("run", HOSTILE, 0, 1.0, "ours")], columns=list(DRAWN)),
    )
    text = page(hostile, verdicts=[verdict(claim=HOSTILE, reason=HOSTILE, source=HOSTILE)])
    harmless = page(part(), verdicts=[verdict()])
    assert "&lt;img src=x" in text
    assert "<img src=x" not in text
    assert tags(text).count("script") == tags(harmless).count("script")
    assert "img" not in tags(text)


def tags(text: str) -> list[str]:
    return [tag for tag, _ in Tags(text).found]


def test_nothing_is_loaded_from_anywhere() -> None:
    text = page(part(), verdicts=[verdict()])
    loading = {"src", "srcset", "data", "poster", "action"}
    for tag, attributes in Tags(text).found:
        sources = [value for name, value in attributes.items() if name in loading or (tag, name) == ("link", "href")]
        assert all(str(source).startswith("data:") for source in sources), (tag, attributes)
    (policy,) = [a["content"] for tag, a in Tags(text).found if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")
    assert "http" not in str(policy)
    assert "@import" not in text.split("<script>")[0]


def test_equal_results_are_equal_pages() -> None:
    assert page(part(), verdicts=[verdict()]) == page(part(), verdicts=[verdict()])


def test_a_page_of_nothing_does_not_carry_the_program_that_draws() -> None:
    assert len(page(part(records={}))) < 100_000 < len(page(part()))


# --- the series -------------------------------------------------------------------------------------------------------


def test_every_point_is_drawn() -> None:
    steps = np.arange(5000)
    alternating = record({"loss": 1 + (-1.0) ** steps, "relative_progress": np.zeros(5000)})
    loss = next(trace for trace in traces(part(records={"run": alternating})) if trace["yaxis"] == "y")
    assert (loss["x0"], loss["dx"]) == (0, 1)
    assert numbers(loss["y"]) == (1 + (-1.0) ** steps).tolist()


def test_the_quantities_of_every_run_and_2_over_eta() -> None:
    drawn = json.loads(chart(part()).to_json())
    titles = [drawn["layout"][f"yaxis{number}"]["title"]["text"] for number in ("", 2, 3, 4)]
    assert titles == ["training<br>loss", "relative<br>progress", "directional<br>smoothness", "sharpness"]
    sharpness = next(trace for trace in traces(part()) if trace["yaxis"] == "y4")
    assert numbers(sharpness["x"]) == [0, 2, 4]
    edges = [trace for trace in traces(part()) if trace["name"] == "2/η"]
    assert [trace["yaxis"] for trace in edges] == ["y3", "y4"]
    assert all(numbers(trace["y"]) == [30, 30] for trace in edges)


def test_what_was_not_measured_has_no_panel() -> None:
    axes = json.loads(chart(part(records={"run": record({"loss": [1.0, 0.5]})})).to_json())["layout"]
    assert [name for name in axes if name.startswith("yaxis")] == ["yaxis"]


def test_what_a_figure_draws_beside_them_lies_with_its_relatives() -> None:
    rows = [("run", name, 0, 1.0, "ours") for name in ("loss", "predicted_relative_progress", "theta_1")]
    shown = part(drawn=pd.DataFrame(rows, columns=list(DRAWN)))
    layout = json.loads(chart(shown).to_json())["layout"]
    assert layout["yaxis5"]["title"]["text"] == "θ₁"
    (predicted,) = [trace for trace in traces(shown) if trace["legendgroup"] == "predicted relative progress"]
    assert predicted["yaxis"] == "y2"
    assert sum(trace["yaxis"] == "y" for trace in traces(shown)) == 1


def test_published_curves_lie_below_ours_in_a_lighter_shade() -> None:
    ours, theirs = unstable(30), unstable(30)
    shown = part(runs={ours.name: "η"}, records={ours.name: ours}, published={ours.name: theirs})
    on_loss = [trace for trace in traces(shown) if trace["yaxis"] == "y"]
    assert [trace["legendgroup"] for trace in on_loss] == ["published", ours.name]
    assert [trace["line"]["color"] for trace in on_loss] == ["#99c7e0", "#0072b2"]
    assert [{trace["legendgroup"] for trace in traces(shown) if trace["yaxis"] == axis} for axis in ("y2", "y4")] == [
        {"published", ours.name},
        {"published", ours.name, "2/η"},
    ]


@pytest.mark.parametrize("values", [[1e-300, 1.0], [1.0, 1e300], [0.0, 0.1]])
def test_values_of_any_size_survive(values: list[float]) -> None:
    (loss,) = traces(part(records={"run": record({"loss": values})}))
    assert numbers(loss["y"]) == pytest.approx(values, rel=1e-7, abs=0)


def test_a_run_that_diverged_does_not_set_the_scale() -> None:
    diverged = record({"loss": [1.0, 1.1, 1.2, 1.3, 1e9]}, reason="diverged")
    (low, high) = json.loads(chart(part(records={"run": diverged})).to_json())["layout"]["yaxis"]["range"]
    assert low < 1.1
    assert 1.2 < high < 2


def test_limits_of_the_figure_are_those_of_the_chart() -> None:
    layout = json.loads(chart(part(limits={"loss": (0, 4)})).to_json())["layout"]
    assert layout["yaxis"]["range"] == [0, 4]
    assert "range" not in layout["yaxis2"]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project in which nothing was run."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    monkeypatch.setenv("DVC_STAGE", "report")  # short stages leave MLflow to the last
    return tmp_path


def written() -> str:
    done = CliRunner().invoke(main, ["report"])
    assert (done.exit_code, done.output) == (0, "wrote stages/report.html\n")
    return Path("stages/report.html").read_text("utf-8")


def test_where_nothing_was_run_the_page_says_what_runs_it(project: Path) -> None:
    text = written()
    commands = {f"dvc repro figure@{name}" for name in small_params()["figures"]}
    commands |= {"dvc repro verify", "dvc repro data", "dvc repro train@example1", "dvc repro train@exp3"}
    assert {command for command in commands if f"<code>{command}</code>" not in text} == set()
    assert project.name not in text


@pytest.mark.usefixtures("project")
def test_what_was_run_is_on_the_page_and_the_rest_is_named() -> None:
    settings = load()
    train(settings, "example1", jobs=1)
    assert "<code>dvc repro diagnose@example1</code>" in written()
    diagnose(settings, "example1", jobs=1)
    draw(settings, "example1")
    verify(settings)
    text = written()
    assert "<code>dvc repro diagnose@example1</code>" not in text
    assert text.count("<img ") == 1
    assert "The claims have not been judged" not in text
    assert "<code>dvc repro figure@exp3</code>" in text
    assert "Not of params.yaml" not in text
    assert text == written()


def test_a_run_of_other_settings_is_marked(project: Path) -> None:
    train(load(), "example1", jobs=1)
    params = small_params()
    params["experiments"]["example1"]["vary"] = {"step_size": {"2over39": "2/41"}}
    write_params(project, params)
    text = written()
    note = "Not of params.yaml, data and code as they are now: example1_2over39, trained with step_size 2/39, now 2/41"
    assert f"{note}. Anew: <code>dvc repro</code>" in text
    assert "<dt>step_size</dt><dd>2/39</dd>" in text
    assert "η = 2/39" in text
    assert text.count("2/41") == 1


def test_a_figure_whose_runs_do_not_vary_now_says_so(project: Path) -> None:
    params = small_params()
    params["figures"]["example1"]["runs"] = ["example1_2over41"]
    write_params(project, params)
    folder = draw(load(), "example1")
    assert "there is no run example1_2over41 now" in (folder / "example1.svg").read_text("utf-8")
    assert (folder / "table.csv").read_text("utf-8") == "run,panel,step,value,source\n"
    assert "dvc repro figure@example1" not in written()


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A page with a figure of the paper's own runs, whose first label is hostile."""
    runs = {"exp3_2over30": HOSTILE, "exp3_2over60": "η = 2/60"}
    records = [dataclasses.replace(unstable(threshold), origin=ORIGIN) for threshold in (30, 60)]
    figure, table = trajectories(records, "CIFAR-10", {}, title="Experiment 3", runs=runs, panels=["loss", "sharpness"])
    _style.save(figure, tmp_path / "exp3.png", tmp_path / "exp3.svg")
    shown = part(
        runs=runs,
        records={each.name: each for each in records},
        published={each.name: each for each in records},
        pictures=[tmp_path / "exp3.png"],
        drawn=table,
        settings={run: {"seed": 0} for run in runs},
    )
    judged = [verdict(run="exp3_2over30"), verdict("fails", run="exp3_2over60", claim="It rises")]
    save_text(tmp_path / "report.html", page(shown, verdicts=judged))
    return (tmp_path / "report.html").as_uri()


def until(browser: Page, condition: str) -> None:
    """Wait for JavaScript to become true; the page's own policy forbids Playwright's `wait_for_function`."""
    end = time.monotonic() + WAIT_SECONDS
    while not browser.evaluate(condition):
        assert time.monotonic() < end, condition
        browser.wait_for_timeout(50)


def test_a_person_reads_and_zooms_at_any_width(address: str) -> None:
    said: list[str] = []
    with open_page() as browser:
        browser.on("console", lambda message: said.append(message.text))
        browser.on("pageerror", lambda error: said.append(str(error)))
        browser.goto(address)
        summary = " ".join(browser.locator("#summary").inner_text().split())
        assert summary == "1 ✓ holds 1 ✗ fails 0 – not applicable"
        assert browser.locator("#exp .claims .mark").first.is_visible()
        assert browser.evaluate("document.querySelector('#exp img').naturalWidth") > 1000

        browser.locator("#chart-exp").scroll_into_view_if_needed()
        browser.wait_for_selector("#chart-exp .main-svg")
        axis = "document.getElementById('chart-exp').layout.xaxis.range"
        before = browser.evaluate(axis)
        box = browser.locator("#chart-exp .xy .nsewdrag, #chart-exp .nsewdrag").first.bounding_box()
        assert box is not None
        x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
        browser.mouse.move(x, y)
        browser.mouse.down()
        browser.mouse.move(x + 0.2 * box["width"], y, steps=5)
        browser.mouse.up()
        until(browser, f"({axis})[1] - ({axis})[0] < 0.5 * {before[1] - before[0]}")

        browser.get_by_role("button", name="Loss: logarithmic").click()
        until(browser, "document.getElementById('chart-exp').layout.yaxis.type === 'log'")

        browser.locator("#filter input[value=fails]").check()
        marks = browser.locator("#exp tr[data-verdict] .mark").all()
        assert [mark.inner_text() for mark in marks if mark.is_visible()] == ["✗ fails"]
        assert browser.evaluate("typeof hacked") == "undefined"

        browser.set_viewport_size({"width": 800, "height": 900})
        until(browser, "document.querySelector('#chart-exp .main-svg').clientWidth < 800")
        assert browser.evaluate("document.documentElement.scrollWidth") == 800
        card = browser.locator("#exp .card:has(.chart)").bounding_box()
        drawn = browser.locator("#chart-exp .main-svg").first.bounding_box()
        assert card is not None
        assert drawn is not None
        assert drawn["y"] + drawn["height"] <= card["y"] + card["height"]
    assert said == []

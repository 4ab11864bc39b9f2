"""MLflow as a person finds it: a small project whose store is lost and made again, and its pages in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from eosrepro.config.load import load
from eosrepro.stages.data import make_data
from eosrepro.stages.diagnose import diagnose
from eosrepro.stages.figure import draw
from eosrepro.stages.track import track
from eosrepro.stages.train import train
from eosrepro.stages.verify import verify
from eosrepro.views.mlflow.connection import QUIET_AND_QUICK, connect
from tests.browser import open_page
from tests.project import ROOT, environment, write_part

pytestmark = pytest.mark.slow  # two MLflow processes to start

RUN = "exp3_2over30"
LIVE_ONLY = ("machine.", "mlflow.source.git.commit")  # what no file says
CHOSEN = ("exp3", "example1")  # experiments of the small project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with all its files and its runs in MLflow: one was followed live, the others are from the record."""
    folder = tmp_path_factory.mktemp("my%20project")
    write_part(folder, *CHOSEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
            patch.delenv(name)
        connect.cache_clear()
        loaded = load()
        make_data(loaded)
        train(loaded, RUN, jobs=1)
        patch.setenv("DVC_STAGE", "train@exp3")  # from here on MLflow waits for `track`
        for name in CHOSEN:
            train(loaded, name, jobs=1)
            diagnose(loaded, name, jobs=1)
        for name in loaded.figures:
            draw(loaded, name)
        verify(loaded)
        patch.delenv("DVC_STAGE")
        assert track(loaded)
        yield folder
        for name in QUIET_AND_QUICK:
            os.environ.pop(name, None)
    connect.cache_clear()


def view(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """All that the store of a project shows, but ids, times and what only a live run knows."""
    copy = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"  # MLflow keeps a deleted file open under its name
    shutil.copy(folder / "mlflow.db", copy)
    client = MlflowClient(tracking_uri=f"sqlite:///{copy}")
    experiment = client.get_experiment_by_name("eosrepro")
    assert experiment is not None
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        metrics = {
            name: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        place = folder / "mlartifacts" / run.info.run_id / "artifacts"
        inputs = [] if run.inputs is None else run.inputs.dataset_inputs
        runs[run.info.run_name] = {
            "status": run.info.status,
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if not key.startswith(LIVE_ONLY)},
            "metrics": metrics,
            "artifacts": {
                str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()
            },
            "inputs": [each.to_dictionary() for each in inputs],
        }
    return {"experiment": experiment.tags, "runs": runs}


def eosrepro(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    around = environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(["eosrepro", *arguments], cwd=folder, env=around, text=True, **options)


def test_a_lost_store_comes_back_from_the_files(project: Path, tmp_path: Path) -> None:
    before = view(project, tmp_path)
    for path in project.glob("mlflow.db*"):
        path.unlink()
    shutil.rmtree(project / "mlartifacts")
    assert eosrepro(project, "track").wait(timeout=120) == 0
    after = view(project, tmp_path)
    assert after == before

    assert after["runs"].keys() == {"exp3_2over10", RUN, "example1_2over39"}
    run = after["runs"][RUN]
    assert {name.partition("/")[0] for name in run["metrics"]} == {
        "train",
        "windowed",
        "curvature",
        "diagnostics",
        "summary",
    }
    assert run["tags"]["reproduction"] == "Ahn 2022: Exp 3, Exp 5"
    assert run["tags"]["mlflow.runColor"] == "#0072b2"  # as in the figure
    assert "mlflow.runColor" not in after["runs"]["exp3_2over10"]["tags"]
    for name in ("tables/trajectory.csv", "tables/sharpness.csv", "tables/tau_scan.csv", "figures/exp3/table.csv"):
        recorded = next(path for path in project.rglob(Path(name).name) if is_source(path, name))
        assert run["artifacts"][name] == recorded.read_bytes()
    assert [each["dataset"]["name"] for each in run["inputs"]] == ["photo-patches"]
    assert "not applicable" in after["experiment"]["mlflow.note.content"]


def is_source(path: Path, artifact: str) -> bool:
    """Whether a recorded file is the one that is attached to `RUN` under that name."""
    return "mlartifacts" not in path.parts and (path.parent.name == RUN or str(path).endswith(artifact))


@pytest.fixture
def address(project: Path) -> Iterator[str]:
    """That which `eosrepro ui` says, once somebody answers there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (project / "server.log").open("w+") as log:
        server = eosrepro(project, "ui", "--port", str(port), stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while True:
                said = (project / "server.log").read_text()
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.5)
            found = re.search(r"http://127\.0\.0\.1:\S+", said)
            assert found, said
            yield found[0]
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)


def test_pages_of_a_run(project: Path, address: str) -> None:
    with open_page() as page:
        page.goto(address)
        page.get_by_text("photo-patches").first.wait_for()  # the column Dataset
        assert page.get_by_role("heading", name="Runs").count() == 1  # and not a page for language models
        assert page.get_by_text("of the claims of Ahn 2022").count() == 1

        page.get_by_role("link", name=RUN).click()
        page.get_by_text("Show more").first.click()
        verdicts = json.loads((project / "stages/verify/claims.json").read_text())
        about = next(each for each in verdicts.values() if each["run"] == RUN and each["verdict"] == "holds")
        row = page.get_by_role("row", name=about["claim"]).first
        assert row.get_by_role("cell").first.inner_text() == "holds"

        page.get_by_role("tab", name="Model metrics").click()
        page.get_by_text("curvature", exact=True).wait_for()
        page.get_by_text("sharpness_over_threshold", exact=True).wait_for()

        page.get_by_role("tab", name="Artifacts").click()
        for name in ("figures", "exp3", "exp3.png"):
            page.get_by_text(name, exact=True).first.click()
        picture = page.locator("img[src*='blob:'], img[src*='exp3.png']").first
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 500

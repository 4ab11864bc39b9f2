"""Make docs/figures/mlflow_*.png anew, from the MLflow UI of a project whose pipeline has run.

eosrepro ui --port 5000                                            # there
python -m tests.screenshots http://127.0.0.1:5000 docs/figures     # here
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.browser import open_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUN = "exp3_2over60"
FILTER = "tags.reproduction LIKE '%Exp 3%'"
COLUMNS = ("step_size", "claims.fail", "summary/onset")
UNUSED = ("Source", "Models")
SETTLED = 3000  # milliseconds: charts move into place


def main(server: str, folder: Path) -> None:
    """Open the pages one after the other, as docs/mlflow.md shows them."""
    runs = f"{server}/#/experiments/1/runs"
    with open_page() as page:
        page.set_default_timeout(15_000)

        def shoot(name: str) -> None:
            page.wait_for_timeout(SETTLED)
            page.screenshot(path=folder / f"mlflow_{name}.png")

        page.goto(runs)
        page.get_by_role("link", name=RUN).wait_for()
        page.get_by_role("button", name="Close").first.click()  # MLflow's assistant
        page.get_by_text("Model training", exact=True).first.click()
        page.wait_for_timeout(SETTLED)
        choose_columns(page)
        shoot("runs")
        page.goto(f"{runs}?compareRunsMode=CHART&searchFilter={quote(FILTER)}")
        page.get_by_text("curvature", exact=True).wait_for()
        shoot("charts")
        page.get_by_role("link", name=RUN).click()
        page.get_by_text("Show more").first.click()
        shoot("run")
        page.get_by_role("tab", name="Artifacts").click()
        for name in ("figures", "exp3", "exp3.png"):
            page.get_by_text(name, exact=True).first.click()
        page.get_by_text("Path:").evaluate("line => line.style.visibility = 'hidden'")  # a folder of this machine
        shoot("figure")


def choose_columns(page: Page) -> None:
    """Show what runs are compared by, and hide what is the same for all."""
    page.get_by_role("button", name="Columns").click()
    search = page.get_by_placeholder("Search columns")
    for name in (*UNUSED, *COLUMNS):
        search.fill(name)
        page.wait_for_timeout(500)  # the list is made anew as one types
        page.locator("[data-radix-popper-content-wrapper]").get_by_text(name, exact=True).first.click()
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

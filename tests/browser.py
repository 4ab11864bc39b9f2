"""Pages as a person sees them: a real headless browser that may look at this machine and nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

VIEWPORT = (1400, 900)
WAIT_SECONDS = 60.0  # a page of the MLflow UI on a machine that does other things too

# What a page may load from besides this machine is a mistake; so is what the browser would load by itself.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
OWN_SCHEMES = {"about", "blob", "data", "file"}


@contextmanager
def open_page() -> Iterator[Page]:
    """An empty page of a headless Chromium, 1400 × 900, that fails the test on any request to another machine.

    Skips the test where there is no Chromium or no playwright.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium on the PATH: apt-get install chromium")
    strangers: list[str] = []

    def note(request: Request) -> None:
        if not is_local(request.url):
            strangers.append(request.url)

    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=list(QUIET))
        try:
            width, height = VIEWPORT
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(WAIT_SECONDS * 1000)
            page.on("request", note)
            yield page
        finally:
            browser.close()
    assert not strangers, f"the page asked other machines: {', '.join(strangers)}"


def is_local(url: str) -> bool:
    """Whether an address is a file, is part of the page, or is on the loopback interface."""
    parts = urlsplit(url)
    return parts.scheme in OWN_SCHEMES or parts.hostname in ("127.0.0.1", "localhost", "::1")

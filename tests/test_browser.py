"""The browser of the tests shows a page, and says so when the page asks another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import browser


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:5000/x", True),
        ("http://localhost:5000/x", True),
        ("file:///somewhere/report.html", True),
        ("data:image/png;base64,AA", True),
        ("https://cdn.example/vega.js", False),
        ("http://127.0.0.1.example/x", False),
    ],
)
def test_what_is_local(url: str, local: bool) -> None:
    assert browser.is_local(url) is local


def test_page_of_fixed_size(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>hello</p>")
    with browser.open_page() as page:
        page.goto((tmp_path / "page.html").as_uri())
        assert page.inner_text("p") == "hello"
        assert page.evaluate("[innerWidth, innerHeight]") == [1400, 900]


def test_page_that_asks_another_machine_fails(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<img src="https://cdn.example/x.png">')
    with pytest.raises(AssertionError, match=r"cdn\.example"), browser.open_page() as page:
        page.goto((tmp_path / "page.html").as_uri())

"""Tables in Markdown."""

from __future__ import annotations

from math import inf, nan

import pytest

from eosrepro.views import markdown


def test_a_bar_or_a_line_break_in_a_cell_does_not_end_it() -> None:
    assert markdown.table(["a", "b"], [["|θ|", "two\nlines"]]) == "| a | b |\n| --- | --- |\n| \\|θ\\| | two lines |"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (nan, ""),
        (0.0, "0"),
        (-0.0015444, "-0.001544"),
        (951.0, "951"),
        (1313.0, "1,313"),
        (12345.6, "12,346"),
        (inf, "inf"),
    ],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert markdown.number(value) == text

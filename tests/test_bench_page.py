"""The figures of a run of the benchmarks come into docs/comparison.md, and nothing else of that page changes."""

import datetime

import pytest

from tests.bench import page
from tests.bench.table import Row

_ROWS = [
    Row("warm | held", "1 /s", "2 /s nginx", 0.5, "≥ 0.4 ×", True),
    Row("cold", "3 s", "1 s straight", 3.0, "≤ 1 ×", False),
    Row("push, beside a peer: skipped"),
]


def test_figures_take_the_place_of_those_before_and_nothing_else_changes() -> None:
    begin, end = "<!-- figures: make bench ARGS=--write -->", "<!-- end of figures -->"
    once = page.written(f"# A\n\n{begin}\nyesterday\n{end}\nB\n", "Measured.", _ROWS)
    assert once.startswith(f"# A\n\n{begin}\n\nMeasured.\n\n| figure |")
    assert once.endswith(f"|\n\n{end}\nB\n")
    assert "yesterday" not in once
    assert page.written(once, "Measured.", _ROWS) == once


def test_a_missed_goal_and_a_skipped_peer_are_in_the_table() -> None:
    lines = page.markdown(_ROWS).splitlines()
    assert lines[2:] == [
        "| warm \\| held | 1 /s | 2 /s nginx | 0.50 × | ≥ 0.4 × | met |",
        "| cold | 3 s | 1 s straight | 3.00 × | ≤ 1 × | MISSED |",
        "| push, beside a peer: skipped |  |  |  |  |  |",
    ]


def test_a_page_without_the_comments_is_left_as_it_is() -> None:
    with pytest.raises(ValueError, match="the page has no"):
        page.written("# A\n", "Measured.", _ROWS)


def test_the_page_has_figures_with_their_date_and_machine() -> None:
    text = page.PAGE.read_text()
    assert page.written(text, "Measured.", _ROWS) != text
    said = page.machine(datetime.date(2026, 1, 2))
    assert said.startswith("Measured on 02 January 2026 with Python ")
    assert "Measured on " in text

"""What ``docs/failures.md`` says of each failure is shown by tests: none of its rows stands without one.

A test says which rows it shows: ``@pytest.mark.shows("a registry cuts downloads")``, with the row's first cell.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.metrics import DECLARED, PREFIX

_TESTS = Path(__file__).parent
_NAME = "docs/failures.md"
_PAGE = (_TESTS.parent / _NAME).read_text()
_COLUMNS = ["what fails", "what agents see", "what the mirror does", "what to do"]

Tables = dict[str, list[list[str]]]


def tables(page: str) -> Tables:
    """The tables of a page by the headings above them: all lines but the rule, in cells."""
    found: Tables = defaultdict(list)
    heading = ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| "):
            found[heading].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def rows(page: str) -> list[str]:
    """What fails, in all tables."""
    return [row[0] for table in tables(page).values() for row in table[1:]]


def shown(source: str) -> Iterator[tuple[str, str]]:
    """The rows that the tests of a file show, each with the test's name; read, not run."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", []):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.shows":
                assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), "the marker stands at a test"
                assert node.name.startswith("test_"), f"{node.name} is no test"
                yield from ((str(ast.literal_eval(argument)), node.name) for argument in decorator.args)


def all_shown() -> dict[str, list[str]]:
    """The tests of each row, as ``path::name``."""
    found = defaultdict(list)
    for file in sorted(_TESTS.rglob("test_*.py")):
        for row, test in shown(file.read_text()):
            found[row].append(f"{file.relative_to(_TESTS)}::{test}")
    return found


def test_every_row_is_shown_by_a_test() -> None:
    assert set(rows(_PAGE)) - set(all_shown()) == set()


def test_whatever_failure_a_test_shows_has_a_row() -> None:
    known = set(rows(_PAGE))
    assert {row: tests for row, tests in all_shown().items() if row not in known} == {}


def test_every_table_says_of_every_failure_what_is_seen_what_happens_and_what_to_do() -> None:
    found = tables(_PAGE)
    assert {"A registry", "Redis", "A replica", "The network between replicas", "The disk", "The process"} <= set(found)
    for heading, (columns, *lines) in found.items():
        assert columns == _COLUMNS, heading
        assert lines, heading
        for cells in lines:
            assert len(cells) == len(_COLUMNS), cells
            assert all(cells), cells
    assert len(set(rows(_PAGE))) == len(rows(_PAGE))


def test_the_settings_and_defaults_on_the_page_are_what_they_are() -> None:
    reference = (_TESTS.parent / "docs" / "configuration.md").read_text()
    found = re.findall(r"^\| `([\w.]+)`(?:<br>.*?)? \| [^|]* \| (?:`([^`]+)`)?", reference, re.MULTILINE)
    defaults = {key.rpartition(".")[2]: default for key, default in reversed(found)}
    said = re.findall(r"`(\w+)` \((\d+\w+)\b", _PAGE)
    assert len(said) >= 8
    assert [(key, value) for key, value in said if defaults.get(key) != value] == []
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)\b[^`]*`", _PAGE))
    assert named - set(defaults) - {PREFIX + one.name for one in DECLARED} == set()


def test_the_search_that_the_page_names_finds_tests() -> None:
    (wanted,) = re.findall(r"`grep -rn '(shows\(\"[^']*)' tests`", _PAGE)
    assert any(f"@pytest.mark.{wanted}" in file.read_text() for file in _TESTS.rglob("test_*.py"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('@pytest.mark.shows("a", "b")\ndef test_x(): ...', [("a", "test_x"), ("b", "test_x")]),
        ('class TestX:\n @pytest.mark.shows("a")\n async def test_y(self): ...', [("a", "test_y")]),
        ("@pytest.mark.slow\ndef test_x(): ...", []),
    ],
)
def test_markers_are_found_wherever_a_test_can_have_them(source: str, expected: list[tuple[str, str]]) -> None:
    assert list(shown(source)) == expected

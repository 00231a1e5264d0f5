"""The chart's README: an introduction, and a table of its values."""

import json
from collections.abc import Iterable
from pathlib import Path

from charts.values import Value

_INTRODUCTION = Path(__file__).with_name("introduction.md")
_KINDS = {
    "strings-by-name": "mapping of text",
    "strings": "list of text",
    "anything": "mapping",
    "settings": "mapping",
    "objects": "list",
}


def document(values: Iterable[Value]) -> str:
    """``README.md``."""
    rows = [_row(leaf) for value in values for leaf in value.leaves()]
    table = ["| value | kind | default | what it does |", "|---|---|---|---|", *rows]
    return f"{_INTRODUCTION.read_text()}\n" + "\n".join(table) + "\n"


def _row(value: Value) -> str:
    kind = _KINDS.get(value.kind, value.kind.replace("-", " "))
    if "enum" in value.schema:
        kind = " or ".join(
            f"`{json.dumps(allowed)}`" if allowed == "" else f"`{allowed}`" for allowed in value.schema["enum"]
        )
    cells = (f"`{value.path}`", kind, f"`{json.dumps(value.default, ensure_ascii=False)}`", value.about)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

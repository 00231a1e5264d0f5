"""The figures as a table in a page, between two comments, so that nobody copies them by hand."""

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from tests.bench.table import Row, cells

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"

_BEGIN = "<!-- figures: make bench ARGS=--write -->"
_END = "<!-- end of figures -->"


def machine(on: datetime.date) -> str:
    """When and on what it was measured, in a sentence; names no host."""
    return (
        f"Measured on {on:%d %B %Y} with Python {platform.python_version()} on {platform.system()}, "
        f"{os.cpu_count()} cores ({platform.machine()}), over loopback; medians, one worker unless said."
    )


def markdown(rows: Iterable[Row]) -> str:
    """The table as Markdown."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells(rows)]
    return "\n".join([head, "|---|---|---|---:|---|---|", *body])


def written(page: str, said: str, rows: Iterable[Row]) -> str:
    """The text of a page with these figures in the place of those before. Raises `ValueError` without the comments."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no {_BEGIN} or no {_END} behind it")
    return f"{before}{begin}\n\n{said}\n\n{markdown(rows)}\n\n{end}{after}"

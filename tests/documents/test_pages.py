"""The commands of every page are run, from its top to its end, in a world of its own."""

from pathlib import Path

import pytest

from tests.documents.blocks import Block
from tests.documents.test_blocks import run_here
from tests.documents.world import world

_PART = "charts/introduction.md"  # the beginning of charts/wasm-mirror/README.md, where its commands are run


def by_page() -> dict[str, list[Block]]:
    """The blocks of each page that have no test of their own."""
    found: dict[str, list[Block]] = {}
    for block in run_here():
        if not block.marker.startswith("run: ") and block.page != _PART:
            found.setdefault(block.page, []).append(block)
    return found


@pytest.mark.integration
@pytest.mark.timeout(280)
@pytest.mark.parametrize("page", by_page())
def test_every_command_of_a_page_does_what_the_page_says(page: str, tmp_path: Path) -> None:
    with world(tmp_path / "reader") as reader:
        for block in by_page()[page]:
            reader.check(block)

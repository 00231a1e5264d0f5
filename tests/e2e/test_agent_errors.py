"""The errors that ``docs/agents.md`` explains are those that the agent's own code gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agent_errors import SCENES, Stage, stage
from tests.support.tools import require

pytestmark = pytest.mark.needs("agent")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    require("agent")
    with stage(Path(tmp_path_factory.mktemp("stage"))) as one:
        yield one


@pytest.mark.parametrize("words", SCENES)
def test_an_agent_says_what_the_page_explains(at: Stage, words: str) -> None:
    assert words in SCENES[words](at)

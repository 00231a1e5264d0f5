"""The errors that ``docs/agents.md`` explains are those that the agent's own code gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agent_errors import MODULE, SCENES, Stage, stage
from tests.e2e.programs import agent, run
from tests.support.artifacts import compat, index, publish
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


@pytest.mark.needs("crane")
def test_the_digest_that_crane_prints_as_the_page_says_can_be_pinned(at: Stage) -> None:
    publish(at.up, "team/plugin", "index", index(compat(MODULE)))
    name = f"{at.mirror.host}/up/team/plugin"
    digest = run("crane", "digest", "--insecure", "--platform", "linux/amd64", f"{name}:index").strip()
    assert digest == str(compat(MODULE).digest)
    assert agent(f"oci://{name}@{digest}").ok

"""The Istio agent's own code takes what the mirror makes of artifacts that it refuses."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.programs import agent, agents
from tests.integration.test_repackage import MODULE, OTHER_NAME, REFUSED
from tests.support.artifacts import Artifact, cncf, publish
from tests.support.process import MirrorProcess
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream

pytestmark = pytest.mark.needs("agent")

SHA256 = hashlib.sha256(MODULE).hexdigest()
ON = {"wasm": {"repackage": "agents"}, "defaults": {"fresh_for": "0s"}}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    """A mirror of a registry that has each of the artifacts, by a tag with its number."""
    require("agent")
    with FaultyUpstream() as up, MirrorProcess(tmp_path_factory.mktemp("mirror"), {"up": up.url}, ON) as mirror:
        for number, artifact in enumerate(REFUSED.values()):
            publish(up, "team/plugin", f"v{number}", artifact)
        yield mirror


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=list(REFUSED))
def test_an_agent_takes_what_it_refused_under_the_tag_with_the_suffix(mirror: MirrorProcess, number: int) -> None:
    plain = agent(f"oci://{mirror.host}/up/team/plugin:v{number}")
    assert not plain.ok, "else there would be nothing to mend"
    assert agent(f"oci://{mirror.host}/up/team/plugin:v{number}-istio").sha256 == SHA256


@pytest.mark.parametrize("artifact", [cncf(MODULE), OTHER_NAME], ids=["cncf", "another name"])
def test_two_mirrors_make_one_digest_that_agents_can_pin_at_either_through_an_outage(
    tmp_path: Path, artifact: Artifact
) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        with (
            MirrorProcess(tmp_path / "one", {"up": up.url}, ON) as one,
            MirrorProcess(tmp_path / "two", {"up": up.url}, {**ON, "workers": 2}) as two,
        ):
            for mirror in (one, two):
                assert {got.sha256 for got in agents(f"oci://{mirror.host}/up/team/plugin:v1-istio", n=20)} == {SHA256}
            digests = {digest_of(mirror) for mirror in (one, two)}
            assert len(digests) == 1
            up.refuse()
            two.restart()
            for mirror in (one, two):
                pinned = f"oci://{mirror.host}/up/team/plugin@{next(iter(digests))}"
                assert agent(pinned).sha256 == SHA256
                assert agent(f"oci://{mirror.host}/up/team/plugin:v1-istio").sha256 == SHA256


def digest_of(mirror: MirrorProcess) -> str:
    """What the tag names at this mirror."""
    with httpx.Client(trust_env=False) as client:
        return client.head(f"{mirror.url}/v2/up/team/plugin/manifests/v1-istio").headers["docker-content-digest"]

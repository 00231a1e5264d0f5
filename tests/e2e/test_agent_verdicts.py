"""What we say of an artifact is what the agent's own code does with it, when it comes through the mirror."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.programs import Agent, agents_of
from tests.support.artifacts import publish
from tests.support.process import MirrorProcess
from tests.support.registry import DockerRegistry
from tests.support.upstream import FaultyUpstream
from tests.wasm.verdicts import LIMIT, Case, cases, described

pytestmark = pytest.mark.needs("agent")

CASES = {case.name: case for case in cases()}
LARGE = {"ISTIO_WASM_MAX_BINARY_SIZE_BYTES": str(LIMIT)}


def tag(case: Case) -> str:
    """Where it is published."""
    return f"v{list(CASES).index(case.name)}"


def pulled(mirror: MirrorProcess, which: list[Case]) -> Mapping[str, Agent]:
    """What agents get of each case, by its name."""
    got: dict[str, Agent] = {}
    for large in (False, True):
        urls = {case.name: f"oci://{mirror.host}/up/team/plugin:{tag(case)}" for case in which if case.large == large}
        if urls:
            results = agents_of(list(urls.values()), env=LARGE if large else None)
            got |= {name: results[url] for name, url in urls.items()}
    return got


@pytest.fixture(scope="module")
def agents() -> Iterator[Mapping[str, Agent]]:
    """What agents get of all cases, through a mirror."""
    with tempfile.TemporaryDirectory() as folder, FaultyUpstream() as up:
        for case in CASES.values():
            publish(up, "team/plugin", tag(case), case.artifact)
        with MirrorProcess(Path(folder), {"up": up.url}, {"wasm": {"max_module_size": "256MiB"}}) as mirror:
            yield pulled(mirror, list(CASES.values()))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_agent_does_as_we_say_and_for_the_same_reason(case: Case, agents: Mapping[str, Agent]) -> None:
    agent, description = agents[case.name], described(case)
    takes_it = agent.ok and agent.sha256 == case.sha256
    assert takes_it == description.agent.accepted, agent
    if takes_it:
        assert description.module_digest is not None
        assert agent.sha256 == description.module_digest.hex
    else:
        assert case.they_say in agent.error
        assert case.say in description.agent.reason


FROM_A_REGISTRY = (
    *(
        "raw",
        "compat",
        "docker",
        "compat, the last of three",
        "an index, a child without platform",
        "an index of an index",
    ),
    *("a list of Docker's", "cncf", "raw alone", "compat, the config last", "another name", "no platform of theirs"),
)


@pytest.mark.needs("docker-registry")
def test_the_agent_does_as_we_say_with_what_comes_from_a_real_registry(tmp_path: Path) -> None:
    which = [CASES[name] for name in FROM_A_REGISTRY]
    with DockerRegistry(tmp_path / "registry") as registry:
        for case in which:
            registry.push("team/plugin", tag(case), case.artifact)
        with MirrorProcess(tmp_path / "mirror", {"up": registry.url}) as mirror:
            for name, agent in pulled(mirror, which).items():
                case = CASES[name]
                assert agent.sha256 == case.sha256, name
                assert agent.ok == described(case).agent.accepted, name
                assert case.they_say in agent.error, name

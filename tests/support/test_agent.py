"""The agent's own code pulls from a real registry, and says what it does not take."""

import hashlib
from pathlib import Path

import pytest

from tests.e2e.programs import agent, agents
from tests.support.artifacts import cncf, compat, raw, wasm_module
from tests.support.registry import DockerRegistry

pytestmark = pytest.mark.needs("agent", "docker-registry")


def test_every_agent_gets_the_module(tmp_path: Path) -> None:
    module = wasm_module(100_000)
    with DockerRegistry(tmp_path) as registry:
        registry.push("team/plugin", "raw", raw(module))
        registry.push("team/plugin", "compat", compat(module))
        for tag in ("raw", "compat"):
            pulls = agents(f"oci://{registry.host}/team/plugin:{tag}", n=3)
            assert [(pull.ok, pull.sha256) for pull in pulls] == [(True, hashlib.sha256(module).hexdigest())] * 3


def test_what_an_agent_refuses_is_an_error_that_says_why(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path) as registry:
        registry.push("team/plugin", "cncf", cncf(wasm_module()))
        refused = agent(f"oci://{registry.host}/team/plugin:cncf")
        assert not refused.ok
        assert "could not fetch Wasm" in refused.error
        wrong = agent(f"oci://{registry.host}/team/plugin:cncf", checksum="0" * 64)
        assert "does not match" in wrong.error

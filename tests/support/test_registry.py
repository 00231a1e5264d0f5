"""The real registry holds what is pushed, over stops and kills."""

from pathlib import Path

import httpx
import pytest

from tests.support.artifacts import Artifact, cncf, compat, docker, index, raw, wasm_module
from tests.support.registry import DockerRegistry


def assert_held(registry: DockerRegistry, tag: str, artifact: Artifact) -> None:
    with httpx.Client(base_url=f"{registry.url}/v2/team/plugin", headers={"accept": artifact.media_type}) as client:
        assert client.get(f"/manifests/{tag}").content == artifact.body
        for digest, content in artifact.blobs.items():
            assert client.get(f"/blobs/{digest}").content == content


@pytest.mark.needs("docker-registry")
def test_every_layout_can_be_pushed_and_outlives_a_kill(tmp_path: Path) -> None:
    module = wasm_module(100_000)
    layouts = {"raw": raw(module), "compat": compat(module), "docker": docker(module), "cncf": cncf(module)}
    layouts["index"] = index(layouts["raw"], layouts["compat"])
    with DockerRegistry(tmp_path) as registry:
        for tag, artifact in layouts.items():
            assert registry.push("team/plugin", tag, artifact) == artifact.digest
            assert_held(registry, tag, artifact)
        registry.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(registry.url)
        registry.start()
        for tag, artifact in layouts.items():
            assert_held(registry, tag, artifact)

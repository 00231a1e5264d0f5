"""What one replica has made of an artifact, the others serve too: by its digest, and by the tag in an outage."""

from pathlib import Path

import httpx
import pytest

from tests.support.artifacts import OCI_LAYER, image, publish, tar_gz, wasm_module
from tests.support.replicas import replicated

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

MODULE = wasm_module(200_000)
ARTIFACT = image([(OCI_LAYER, tar_gz({"filter.wasm": MODULE}))])
SETTINGS = {"wasm": {"repackage": "agents"}, "defaults": {"fresh_for": "0s"}}
REPOSITORY = "/v2/up/team/plugin"


def test_a_replica_serves_what_another_has_made_while_upstream_is_down(tmp_path: Path) -> None:
    with (
        replicated(tmp_path, n=2, settings=SETTINGS) as (up, _, replicas),
        httpx.Client(trust_env=False, timeout=30) as client,
    ):
        publish(up, "team/plugin", "v1", ARTIFACT)
        first, second = (f"{url}{REPOSITORY}" for url in replicas.urls)
        made = client.get(f"{first}/manifests/v1-istio")
        assert made.status_code == 200
        up.refuse()
        pinned = client.get(f"{second}/manifests/{made.headers['docker-content-digest']}")
        assert pinned.content == made.content
        module, config = (layer["digest"] for layer in pinned.json()["layers"])
        assert client.get(f"{second}/blobs/{module}").content == MODULE
        assert client.get(f"{second}/blobs/{config}").content == b"{}"
        assert client.get(f"{second}/manifests/v1-istio").content == made.content

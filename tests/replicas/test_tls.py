"""Replicas that serve HTTPS trust each other by an authority of their own."""

from pathlib import Path

import pytest

from tests.integration.client import blob, manifest
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.certificates import self_signed
from tests.support.replicas import replicated

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server", "openssl")]

ARTIFACT = raw(wasm_module(200_000))


@pytest.mark.parametrize("trusted", [True, False])
async def test_bytes_are_taken_from_replicas_whose_authority_is_named_and_from_no_other(
    tmp_path: Path, trusted: bool
) -> None:
    own = self_signed(tmp_path)
    settings = {
        "tls": {"certificate": str(own.certificate), "key": str(own.key)},
        "cluster": {"ca_file": str(own.certificate) if trusted else None},
        "upstreams": {"up": {"hold_for": "1s"}},
    }
    tls = own.for_clients
    layer = ARTIFACT.layers[0]
    with replicated(tmp_path, n=2, settings=settings) as (up, _, replicas):
        publish(up, "team/plugin", "v1", ARTIFACT)
        first, second = (replica.url for replica in replicas)
        assert first.startswith("https://")
        assert (await manifest(first, "up/team/plugin", "v1", tls=tls)).whole
        assert (await blob(first, "up/team/plugin", layer, tls=tls)).whole
        up.refuse()
        got = await blob(second, "up/team/plugin", layer, tls=tls)
        assert (got.status, got.body == ARTIFACT.blobs[layer]) == ((200, True) if trusted else (503, False))

"""Upstreams as the settings would make them, in front of fake registries, and what tests ask of them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from mirror.config import Credentials, Defaults, EndpointSettings, UpstreamSettings
from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from mirror.upstream.blob import BlobStream
from mirror.upstream.failover import Upstream
from mirror.upstream.transport import Transport
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream

REPOSITORY = "team/plugin"
BLOB = bytes(range(256)) * 1000  # 256,000 bytes
BLOB_DIGEST = Digest.of(BLOB)
PASSWORD = "correct horse battery staple"
IDENTITY_TOKEN = "an-identity-token-that-opens-everything"
SECRETS = (PASSWORD, base64.b64encode(f"robot:{PASSWORD}".encode()).decode(), IDENTITY_TOKEN)
LOGIN = Credentials(username="robot", password=SecretStr(PASSWORD))


@asynccontextmanager
async def pulling_from(
    *endpoints: FaultyUpstream | EndpointSettings,
    credentials: Credentials | None = None,
    transport: Transport | None = None,
    wiring: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Upstream]:
    """The upstream ``corp``. ``wiring`` goes to `Upstream.of`, ``settings`` are those of an upstream."""
    written = UpstreamSettings(
        endpoints=tuple(EndpointSettings(url=one.url) if isinstance(one, FaultyUpstream) else one for one in endpoints),
        credentials=credentials,
        **settings,
    )
    upstream = Upstream.of("corp", written.effective("corp", Defaults()), transport=transport, **(wiring or {}))
    try:
        yield upstream
    finally:
        await upstream.aclose()


def within(seconds: float = 20.0) -> float:
    """The deadline that lies so many seconds ahead."""
    return asyncio.get_running_loop().time() + seconds


def manifest(**fields: object) -> dict[str, object]:
    """An image manifest without layers."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], **fields}


MANIFEST = json.dumps(manifest()).encode()
MANIFEST_DIGEST = Digest.of(MANIFEST)


def holding(up: FaultyUpstream) -> FaultyUpstream:
    """``up``, with `MANIFEST` under the tag ``v1`` and `BLOB` in `REPOSITORY`."""
    up.add_manifest(REPOSITORY, MANIFEST, tag="v1")
    up.add_blob(REPOSITORY, BLOB)
    return up


def private(up: FaultyUpstream) -> FaultyUpstream:
    """`holding` ``up``, which asks for the tokens of `LOGIN` or `IDENTITY_TOKEN`."""
    holding(up).require_bearer(TokenService({"robot": PASSWORD}, anonymous=False, refresh_token=IDENTITY_TOKEN))
    return up


async def content(stream: BlobStream) -> bytes:
    """All that comes, and close."""
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()


class Resolver:
    """A DNS of a few names. ``asked`` are the hosts in the order of the questions."""

    def __init__(self, **hosts: Sequence[str]) -> None:
        self.hosts: dict[str, Sequence[str]] = dict(hosts)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.hosts.get(host, [host])


class Naps:
    """A sleep that only notes how long; and a random that gives what it is set to."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.chance = 1.0

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)

    def random(self) -> float:
        return self.chance


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

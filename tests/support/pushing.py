"""Whoever pushes, request by request, as the OCI distribution specification has it."""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote, urlsplit

from mirror.digest import Digest
from tests.support.artifacts import Artifact
from tests.support.asking import Headers, Reply, ask, held_to_its_word

OCTETS = {"Content-Type": "application/octet-stream"}


class Asked(Protocol):
    """A mirror that can be asked: `tests.support.running.Running`."""

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply: ...


class At:
    """A server at a URL, asked over a connection for each request."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self.url = url
        self._address = (where.hostname or "", where.port or 0)

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """The answer; raises `OSError` or `asyncio.IncompleteReadError` where none comes."""
        return held_to_its_word(
            method, target, await ask(self._address, target, method=method, headers=headers, body=body)
        )


class Author:
    """Pushes to one repository. ``headers`` go with each request."""

    def __init__(self, mirror: Asked, repository: str = "hosted/team/plugin", headers: Mapping[str, str] | None = None):
        self.root = f"/v2/{repository}"
        self._mirror = mirror
        self._headers = dict(headers or {})

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Any request; ``target`` is an address, or the rest of one in this repository."""
        where = target if target.startswith("/") else f"{self.root}/{target}"
        return await self._mirror.ask(method, where, {**self._headers, **(headers or {})}, body)

    async def begin(self, query: str = "") -> str:
        """A new upload; gives its address."""
        reply = await self.ask("POST", f"blobs/uploads/{query}")
        assert (reply.status, reply.body) == (202, b""), reply
        location = reply.header("location")
        assert location is not None
        assert location.startswith(f"{self.root}/blobs/uploads/"), location
        assert location.endswith(f"/{reply.header('docker-upload-uuid')}")
        return location

    async def blob(self, content: bytes, digest: Digest | None = None) -> Reply:
        """Push a blob by POST and PUT; gives the answer to the latter."""
        return await self.finish(await self.begin(), digest or Digest.of(content), content)

    async def chunk(self, upload: str, start: int, content: bytes) -> Reply:
        """A ``PATCH`` with a range."""
        span = f"{start}-{start + len(content) - 1}"
        return await self.ask("PATCH", upload, {**OCTETS, "Content-Range": span}, content)

    async def finish(
        self, upload: str, digest: Digest, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """The ``PUT`` that ends an upload, with its last bytes."""
        return await self.ask("PUT", f"{upload}?digest={quote(str(digest))}", {**OCTETS, **(headers or {})}, content)

    async def manifest(self, artifact: Artifact, target: str) -> Reply:
        """Put the manifest alone."""
        return await self.ask("PUT", f"manifests/{target}", {"Content-Type": artifact.media_type}, artifact.body)

    async def push(self, artifact: Artifact, tag: str | None) -> Reply:
        """Push an artifact with all that it names; gives the answer to its manifest."""
        for child in artifact.children:
            assert (await self.push(child, None)).status == 201
        for digest, content in artifact.blobs.items():
            reply = await self.blob(content, digest)
            assert reply.status == 201, reply
        return await self.manifest(artifact, tag or str(artifact.digest))


async def whole(mirror: Asked, repository: str, target: str) -> bytes | None:
    """The manifest that ``target`` names, when it and all that it names can be pulled; None when there is none.

    Raises `AssertionError` when something of it cannot be pulled, or has other bytes.
    """
    where = f"/v2/{repository}"
    reply = await mirror.ask("GET", f"{where}/manifests/{target}")
    if reply.status == 404:
        return None
    assert (reply.status, reply.header("docker-content-digest")) == (200, str(Digest.of(reply.body))), reply
    fields = reply.json
    for child in fields.get("manifests", []):
        assert await whole(mirror, repository, child["digest"]) is not None, f"{target} names {child['digest']}"
    for named in [*([fields["config"]] if "config" in fields else []), *fields.get("layers", [])]:
        blob = await mirror.ask("GET", f"{where}/blobs/{named['digest']}")
        got = (blob.status, blob.whole and str(Digest.of(blob.body)))
        assert got == (200, named["digest"]), f"{repository}:{target} is half there: {blob}"
    return reply.body

"""Whoever pushes, request by request, as the OCI distribution specification has it."""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote

from mirror.digest import Digest
from tests.support.artifacts import Artifact
from tests.support.asking import Headers, Reply

OCTETS = {"Content-Type": "application/octet-stream"}


class Asked(Protocol):
    """A mirror that can be asked: `tests.support.running.Running`."""

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply: ...


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

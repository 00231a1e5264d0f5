"""One endpoint of an upstream: each question that the mirror asks it, asked once; its answer is held against the rules.

Source: OCI distribution specification 1.1, "Pull", "Content Discovery".
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import parse_qsl, urlencode

import httpx

from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    NameUnknown,
    UpstreamInvalid,
    UpstreamUnavailable,
)
from mirror.oci import MANIFEST_TYPES, MAX_MANIFEST_SIZE, Manifest, parse_object
from mirror.upstream import answers
from mirror.upstream.answers import ManifestHead, ReferrersPage, TagPage, failure, refuse_disguise
from mirror.upstream.blob import BlobStream
from mirror.upstream.session import Session, drain, read_body
from mirror.upstream.tokens import Login
from mirror.upstream.transport import Transport

_MAX_PAGE = 4 * 1024 * 1024
_ACCEPT_MANIFEST = {"accept": ", ".join(MANIFEST_TYPES)}
_ACCEPT_INDEX = {"accept": MANIFEST_TYPES[1]}
_ACCEPT_JSON = {"accept": "application/json"}
_ACCEPT_ALL = {"accept": "*/*"}

_HEAD_REFUSED = frozenset({400, 404, 405, 501})
"""Answers to a HEAD that may be about HEAD, and not about what was asked for."""


class Endpoint:
    """What `Upstream` offers, of one endpoint and without retries. Every method may raise `UpstreamError`.

    ``repository`` and what names the content were parsed before: they become part of a path as they are. ``prefix``
    stands in front of each repository there. ``own`` is a transport that nobody else uses; it is closed with the
    endpoint.
    """

    def __init__(
        self, session: Session, *, prefix: str = "", own: Transport | None = None, decides: bool = True
    ) -> None:
        """``decides``: that it refuses somebody is upstream's word, and no other endpoint is asked after it."""
        self._session = session
        self._prefix = prefix
        self._own = own
        self.decides = decides

    def on_trial(self, login: Login | None) -> Self:
        """The same endpoint as a client with this login finds it; it is closed with this one."""
        return type(self)(self._session.of_client(login, on_trial=True), prefix=self._prefix)

    @property
    def host(self) -> str:
        """How messages name it."""
        return self._session.host

    async def greet(self) -> None:
        """Ask for ``/v2/``, as `docker login` does: raises `UpstreamDenied` where the endpoint does not know us."""
        response = await self._session.ask("GET", "/v2/", "", _ACCEPT_JSON, scope="")
        if response.status_code >= 500 or response.status_code == 429:
            raise await self._failure(response, "/v2/", NameUnknown)
        await drain(response)

    async def head_manifest(self, repository: str, target: str) -> ManifestHead:
        """What the endpoint says of a manifest; by GET where it refuses HEAD, or does not tell the digest."""
        there = self._prefix + repository
        path, what = _manifest(there, target)
        async with self._answer("HEAD", path, there, _ACCEPT_MANIFEST) as response:
            if response.status_code == 200:
                refuse_disguise(response, self.host, what)
                digest = answers.digest(response)
                if digest is not None:
                    return ManifestHead(digest, answers.media_type(response), answers.length(response))
            elif not self._may_refuse_head(response):
                raise await self._failure(response, what, ManifestUnknown)
        manifest = await self.get_manifest(repository, target)
        return ManifestHead(manifest.digest, manifest.media_type, len(manifest.body))

    async def get_manifest(self, repository: str, target: str) -> Manifest:
        """A manifest, held against the digest asked for and the one that the endpoint names; `ManifestUnknown`."""
        there = self._prefix + repository
        path, what = _manifest(there, target)
        async with self._answer("GET", path, there, _ACCEPT_MANIFEST) as response:
            if response.status_code != 200:
                raise await self._failure(response, what, ManifestUnknown)
            refuse_disguise(response, self.host, what)
            body = await read_body(response, MAX_MANIFEST_SIZE, self.host, what)
        asked = Digest.parse(target) if ":" in target else None
        named = answers.digest(response)
        for expected in (asked, named):
            if expected is not None:
                self._compare(body, expected, what)
        digest = asked or named or Digest.of(body)
        try:
            return Manifest.parse(body, response.headers.get("content-type", ""), digest)
        except UpstreamInvalid as error:
            raise UpstreamInvalid(
                f"{self.host} sends a manifest for {what} that must not be believed: {error}",
                detail={"endpoint": self.host},
            ) from error

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob, None when the endpoint does not tell; `BlobUnknown`."""
        there = self._prefix + repository
        path, what = _blob(there, digest)
        async with self._answer("HEAD", path, there, _ACCEPT_ALL) as response:
            if response.status_code == 200:
                refuse_disguise(response, self.host, what)
                return answers.length(response)
            if not self._may_refuse_head(response):
                raise await self._failure(response, what, BlobUnknown)
        stream = await self.open_blob(repository, digest, 0)
        await stream.aclose()
        return stream.size

    async def open_blob(self, repository: str, digest: Digest, offset: int) -> BlobStream:
        """A blob from ``offset`` on, or all of it when the endpoint will not begin there; `BlobUnknown`."""
        there = self._prefix + repository
        path, what = _blob(there, digest)
        headers = _ACCEPT_ALL if offset == 0 else {**_ACCEPT_ALL, "range": f"bytes={offset}-"}
        response = await self._session.ask("GET", path, there, headers)
        try:
            if response.status_code == 416 and offset > 0:
                await drain(response)
                return await self.open_blob(repository, digest, 0)
            if response.status_code != 200 and not (response.status_code == 206 and offset > 0):
                raise await self._failure(response, what, BlobUnknown)
            refuse_disguise(response, self.host, what)
            return BlobStream.of(response, endpoint=self.host, asked=offset, clock=self._session.clock)
        except BaseException:
            await response.aclose()
            raise

    async def list_tags(self, repository: str, n: int | None, last: str | None) -> TagPage:
        """One page of tags; `NameUnknown`."""
        query = urlencode({key: value for key, value in (("n", n), ("last", last)) if value is not None})
        there = self._prefix + repository
        path, what = f"/v2/{there}/tags/list", f"the tags of {there}"
        async with self._answer("GET", f"{path}?{query}" if query else path, there, _ACCEPT_JSON) as response:
            if response.status_code != 200:
                raise await self._failure(response, what, NameUnknown)
            refuse_disguise(response, self.host, what)
            body = await read_body(response, _MAX_PAGE, self.host, what)
        return answers.read_tags(body, response.headers.get("link"), self.host)

    async def referrers(
        self, repository: str, digest: Digest, artifact_type: str | None, page: str | None
    ) -> ReferrersPage:
        """One page of what refers to ``digest``; `ManifestUnknown` where the endpoint has no such API."""
        query = dict(parse_qsl(page or ""))
        if artifact_type is not None:
            query["artifactType"] = artifact_type
        there = self._prefix + repository
        path, what = f"/v2/{there}/referrers/{digest}", f"the referrers of {there}@{digest}"
        path = f"{path}?{urlencode(query)}" if query else path
        async with self._answer("GET", path, there, _ACCEPT_INDEX) as response:
            if response.status_code != 200:
                raise await self._failure(response, what, ManifestUnknown)
            refuse_disguise(response, self.host, what)
            body = await read_body(response, _MAX_PAGE, self.host, what)
        index = parse_object(body, f"the index of referrers of {self.host}")
        if not isinstance(index.get("manifests"), list):
            raise UpstreamInvalid(f"{self.host} sends {what} without a list", detail={"endpoint": self.host})
        filters = "artifactType" if response.headers.get("oci-filters-applied", "").strip() == "artifactType" else None
        return ReferrersPage(body, filters, answers.next_query(response.headers.get("link")))

    async def aclose(self) -> None:
        """Stop what is under way, and close its own connections."""
        await self._session.aclose()
        if self._own is not None:
            await self._own.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, repository: str, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        response = await self._session.ask(method, path, repository, headers)
        try:
            yield response
        finally:
            await drain(response)

    def _may_refuse_head(self, response: httpx.Response) -> bool:
        """Whether a GET may fare better: storage to which we are redirected has signed its address for GET alone."""
        return response.status_code in _HEAD_REFUSED or not self._session.sent(response)

    async def _failure(self, response: httpx.Response, what: str, unknown: type[MirrorError]) -> MirrorError:
        status = response.status_code
        body = await drain(response)
        if status in (401, 403):  # of storage, for the endpoint's own were raised; its signature may have expired
            return UpstreamUnavailable(
                f"{self.host} sends us to storage that refuses us ({status})",
                detail={"endpoint": self.host, "status": status},
            )
        return failure(response, body, self.host, what, unknown)

    def _compare(self, body: bytes, expected: Digest, what: str) -> None:
        actual = Digest.of(body, expected.algorithm)
        if actual != expected:
            raise DigestMismatch(
                f"{self.host} sends bytes for {what} that do not have the digest {expected}",
                detail={"endpoint": self.host, "expected": str(expected), "actual": str(actual)},
            )


def _manifest(repository: str, target: str) -> tuple[str, str]:
    joint = "@" if ":" in target else ":"
    return f"/v2/{repository}/manifests/{target}", f"{repository}{joint}{target}"


def _blob(repository: str, digest: Digest) -> tuple[str, str]:
    return f"/v2/{repository}/blobs/{digest}", f"the blob {repository}@{digest}"

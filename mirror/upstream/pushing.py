"""The origin of an upstream, as it is pushed to: each request of a push, its answer held against the rules.

Bodies go up as they come, in chunks of HTTP/1.1 where their length is not known: so does docker, and a body that its
client has cut short can be ended where it is. What fails here does not count against the pulls of the same upstream.

Source: OCI distribution specification 1.1, "Push", "Content Management".
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

import httpx

from mirror.digest import Digest
from mirror.errors import DigestInvalid, MirrorError, UpstreamDenied, UpstreamInvalid, UpstreamRefused
from mirror.errors import UpstreamUnavailable as Unavailable
from mirror.oci import MANIFEST_TYPES, Manifest
from mirror.upstream import answers
from mirror.upstream.origins import origin_of
from mirror.upstream.session import Body, Session, drain
from mirror.upstream.tokens import Login
from mirror.upstream.transport import Transport

Turn = Callable[[str, str], AbstractAsyncContextManager[None]]
"""The right to have a request under way, by host and repository: `Upstream.push`."""

ANSWERS_WITHIN = 60.0
"""Seconds without a byte from the origin, or to it, after which a push fails: it may have to copy a large blob."""

_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,18})")
_LEAST = re.compile(r"\d{1,12}")
_MAX_LOCATION = 16 * 1024
_MAX_WARNINGS = 8
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.){1,500})"')
_NOT_OURS = frozenset({401, 407, 421, 426})
"""About the connection, or who is asking: to the author they would mean something else."""
_CODES = {
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    416: "BLOB_UPLOAD_INVALID",
    429: "TOOMANYREQUESTS",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an upload goes on (a URL, which may open it to whoever reads it), and how many bytes of it are there.

    ``size`` is None when the origin does not say, and may be 0 for 1: an upload without bytes is told as ``0-0`` too.
    ``min_chunk``: bytes that each chunk but the last must have there (``OCI-Chunk-Min-Length``).
    """

    location: str
    size: int | None
    min_chunk: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the origin says of a manifest that it took in: its digest, what it refers to, words for the author."""

    digest: Digest | None
    subject: Digest | None
    warnings: tuple[str, ...]


class Pushing:
    """One origin. Every method may raise `UpstreamError`, among them `UpstreamRefused`, and is tried once.

    ``repository`` and what names the content were parsed before: they become part of a path as they are. ``prefix``
    stands in front of each repository there. ``own`` is a transport that is closed with it.
    """

    def __init__(
        self, session: Session, *, prefix: str = "", own: Transport | None = None, turn: Turn | None = None
    ) -> None:
        """``turn`` is held for as long as each request is under way."""
        self._session = session
        self._turn = turn or _at_once
        self._prefix = prefix
        self._own = own
        self._acquainted = False

    def of_client(self, login: Login | None) -> Self:
        """The same origin, pushed to by a client with this login; it is closed with this one."""
        return type(self)(self._session.of_client(login), prefix=self._prefix, turn=self._turn)

    @property
    def host(self) -> str:
        """How messages name it."""
        return self._session.host

    async def begin(self, repository: str) -> Progress:
        """A new upload."""
        what = f"an upload to {self._prefix}{repository}"
        async with self._answer("POST", f"{self._uploads(repository)}", repository, what) as response:
            if response.status_code != 202:
                raise await self._failure(response, what)
            return self._begun(response)

    async def mount(self, repository: str, digest: Digest, source: str) -> Progress | None:
        """Have the blob of ``source`` in ``repository`` too: None when it is; else an upload that was begun instead."""
        what = f"the blob {self._prefix}{repository}@{digest}"
        query = f"?mount={digest.algorithm}%3A{digest.hex}&from={quote(self._prefix + source, safe='')}"
        scope = f"{self._scope(repository)} repository:{self._prefix}{source}:pull"
        async with self._answer("POST", self._uploads(repository) + query, repository, what, scope=scope) as response:
            if response.status_code == 201:
                return None
            if response.status_code != 202:
                raise await self._failure(response, what)
            return self._begun(response)

    async def append(
        self,
        repository: str,
        location: str,
        content: AsyncIterable[bytes],
        *,
        start: int | None = None,
        length: int | None = None,
    ) -> Progress:
        """Send the next bytes as they come. With ``start`` and ``length`` their place is told, as a chunk's is."""
        what = f"bytes of a blob of {self._prefix}{repository}"
        headers = {"content-type": "application/octet-stream"}
        if start is not None and length:
            headers |= {"content-range": f"{start}-{start + length - 1}", "content-length": str(length)}
        if not self._acquainted and self._is_here(location):  # a stream cannot be sent again after a challenge
            await self._look(repository, location)
        async with self._answer("PATCH", location, repository, what, headers, content) as response:
            if response.status_code not in (200, 201, 202, 204):
                raise await self._failure(response, what)
            return Progress(self._location(response, location), _size(response))

    async def status(self, repository: str, location: str) -> Progress:
        """How far an upload is."""
        what = f"an upload to {self._prefix}{repository}"
        async with self._answer("GET", location, repository, what) as response:
            if response.status_code not in (200, 202, 204):
                raise await self._failure(response, what)
            return Progress(self._location(response, location), _size(response))

    async def finish(self, repository: str, location: str, digest: Digest) -> None:
        """The upload is whole, and has this digest: the origin holds it against that."""
        what = f"the blob {self._prefix}{repository}@{digest}"
        joint = "&" if "?" in location else "?"
        url = f"{location}{joint}digest={digest.algorithm}%3A{digest.hex}"
        async with self._answer("PUT", url, repository, what) as response:
            if response.status_code not in (200, 201, 204):
                raise await self._failure(response, what)
            self._same(response, digest, what)

    async def cancel(self, repository: str, location: str) -> None:
        """Forget an upload. That it is gone already, or that the origin cannot forget any, is no failure."""
        what = f"an upload to {self._prefix}{repository}"
        async with self._answer("DELETE", location, repository, what) as response:
            if response.status_code >= 300 and response.status_code not in (404, 405, 501):
                raise await self._failure(response, what)

    async def put_manifest(self, repository: str, target: str, manifest: Manifest) -> Accepted:
        """Have the origin take in a manifest under ``target``, a tag or its digest in text."""
        joint = "@" if ":" in target else ":"
        what = f"the manifest {self._prefix}{repository}{joint}{target}"
        path = f"/v2/{self._prefix}{repository}/manifests/{target}"
        headers = {"content-type": manifest.media_type}
        async with self._answer("PUT", path, repository, what, headers, manifest.body) as response:
            if response.status_code not in (200, 201, 202):
                raise await self._failure(response, what)
            self._same(response, manifest.digest, what)
            warnings = _WARNING.findall(", ".join(response.headers.get_list("warning")))
            return Accepted(answers.digest(response), _subject(response), tuple(warnings[:_MAX_WARNINGS]))

    async def named(self, repository: str, tag: str) -> Digest | None:
        """What a tag names there now, None where there is no such tag."""
        what = f"a question about {self._prefix}{repository}:{tag}"
        path = f"/v2/{self._prefix}{repository}/manifests/{tag}"
        async with self._answer("HEAD", path, repository, what, {"accept": ", ".join(MANIFEST_TYPES)}) as response:
            if response.status_code == 404:
                return None
            found = answers.digest(response)
            if response.status_code != 200:
                raise await self._failure(response, what)
            if found is None:
                raise self._invalid(f"does not say what {self._prefix}{repository}:{tag} names")
            return found

    async def delete(self, repository: str, kind: str, target: str) -> None:
        """Have the origin delete ``target`` of the ``manifests`` or ``blobs``."""
        what = f"the deletion of {self._prefix}{repository}'s {target}"
        path = f"/v2/{self._prefix}{repository}/{kind}/{target}"
        scope = f"repository:{self._prefix}{repository}:pull,push,delete"
        async with self._answer("DELETE", path, repository, what, scope=scope) as response:
            if response.status_code not in (200, 202, 204):
                raise await self._failure(response, what)

    async def aclose(self) -> None:
        """Stop what is under way, and close all connections."""
        await self._session.aclose()
        if self._own is not None:
            await self._own.aclose()

    async def _look(self, repository: str, location: str) -> None:
        """Get acquainted, whatever the answer is."""
        async with self._answer("GET", location, repository, ""):
            pass

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        repository: str,
        what: str,
        headers: dict[str, str] | None = None,
        body: Body = b"",
        *,
        scope: str | None = None,
    ) -> AsyncIterator[httpx.Response]:
        scope = scope or self._scope(repository)
        async with self._turn(self.host, repository):
            try:
                response = await self._session.ask(
                    method, path, self._prefix + repository, headers, body=body, scope=scope
                )
            except UpstreamDenied:
                self._acquainted = False
                raise
            try:
                self._acquainted |= self._session.sent(response)
                yield response
            finally:
                await drain(response)

    def _scope(self, repository: str) -> str:
        return f"repository:{self._prefix}{repository}:pull,push"

    def _uploads(self, repository: str) -> str:
        return f"/v2/{self._prefix}{repository}/blobs/uploads/"

    def _is_here(self, location: str) -> bool:
        return origin_of(httpx.URL(location)) == origin_of(self._session.url)

    def _location(self, response: httpx.Response, usual: str | None = None) -> str:
        """Where an upload goes on: it may be at another host, which never sees a credential."""
        told = response.headers.get("location")
        if told is None and usual is not None:
            return usual
        if told is None or len(told) > _MAX_LOCATION:
            raise self._invalid("begins an upload, but does not say where it goes on")
        return str(self._session.located(response.url, told))

    def _begun(self, response: httpx.Response) -> Progress:
        least = response.headers.get("oci-chunk-min-length", "")
        return Progress(self._location(response), 0, int(least) if _LEAST.fullmatch(least) else 0)

    def _same(self, response: httpx.Response, digest: Digest, what: str) -> None:
        """Refuse an answer about other content than what was sent."""
        told = answers.digest(response)
        if told is not None and told.algorithm == digest.algorithm and told != digest:
            raise self._invalid(f"says that it took in {told} for {what}, which is {digest}")

    def _invalid(self, what: str) -> UpstreamInvalid:
        return UpstreamInvalid(f"{self.host} {what}", detail={"endpoint": self.host})

    async def _failure(self, response: httpx.Response, what: str) -> MirrorError:
        return refusal(response, await drain(response), self.host, what, self._session.sent(response))


def refusal(response: httpx.Response, body: bytes, endpoint: str, what: str, is_endpoints: bool) -> MirrorError:
    """The error for an answer to a push that is not good, in the words of the endpoint where these are to be trusted.

    ``is_endpoints``: it is the endpoint's own answer, not that of storage to which it has sent us.
    """
    status, codes = response.status_code, answers.error_codes(body)
    words = answers.words_of(response, body)
    detail: dict[str, object] = {"endpoint": endpoint, "status": status, **({"codes": codes} if codes else {})}
    said = f": {words}" if words else ""
    if not is_endpoints and status in (401, 403):
        return Unavailable(f"{endpoint} sends us to storage that refuses us ({status})", detail=detail)
    wait = answers.retry_after(response)
    if status >= 500 or status in (408, 425):
        return Unavailable(f"{endpoint} answers {status} to {what}{said}", detail=detail, retry_after=wait)
    if 400 <= status < 500 and status not in _NOT_OURS:
        code = codes[0] if codes else _CODES.get(status, "UNSUPPORTED")
        message = f"{endpoint} refuses {what} ({status}){said}"
        return UpstreamRefused(message, status=status, code=code, detail=detail, retry_after=wait)
    return UpstreamInvalid(f"{endpoint} answers {status} to {what}, which says nothing about it", detail=detail)


def _at_once(host: str, repository: str) -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _size(response: httpx.Response) -> int | None:
    found = _RANGE.fullmatch(response.headers.get("range", "").strip())
    if found is None:
        return None
    last = int(found[1])
    return last + 1 if last else 0


def _subject(response: httpx.Response) -> Digest | None:
    try:
        return Digest.parse(response.headers.get("oci-subject", ""))
    except DigestInvalid:
        return None

"""Uploads of blobs under ``/v2/<name>/blobs/uploads/``: begun, continued, finished, asked about, cancelled, mounted.

Source: OCI distribution specification 1.1, "Pushing blobs"; ``Docker-Upload-UUID`` is what docker looks for.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlencode

from starlette.types import Receive, Scope, Send

from mirror.digest import Digest
from mirror.edge.body import chunk_of, is_empty
from mirror.edge.headers import always, encode
from mirror.edge.respond import progress
from mirror.errors import DigestInvalid, MirrorError, NameInvalid, NameUnknown
from mirror.names import Place
from mirror.publish import BodyCut, Chunk, Publisher, Upload

_ALGORITHMS = ("sha256", "sha512")


@dataclass(frozen=True, slots=True)
class Push:
    """A request that changes something. ``name`` is the repository as the client calls it, ``asked`` its query.

    ``elsewhere`` is the place of another name that the client gives; ``readable`` says whether it may read a place.
    ``start`` is where the upload has to stand, as the replica has found it to which the request came, if not here.
    """

    scope: Scope
    receive: Receive
    send: Send
    name: str
    place: Place
    asked: Mapping[str, str]
    principal: str
    publisher: Publisher
    elsewhere: Callable[[str], Place]
    readable: Callable[[Place], bool]
    start: int | None = None

    async def answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an answer without a body."""
        length = [] if status == 204 else [("content-length", "0")]
        namespace = self.place.upstream if self.place.by_namespace else None
        fields = encode([*headers, *length, *always(namespace)])
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send({"type": "http.response.body"})

    def address(self, tail: str) -> str:
        """Where something of the repository is. Without a host: a proxy before this mirror may have another one."""
        namespace = self.asked.get("ns")
        return f"/v2/{self.name}/{tail}" + (f"?{urlencode({'ns': namespace})}" if namespace is not None else "")

    async def created(self, kind: str, digest: Digest, headers: list[tuple[str, str]] | None = None) -> None:
        """Answer that content is there."""
        found = [("location", self.address(f"{kind}/{digest}")), ("docker-content-digest", str(digest))]
        await self.answer(201, [*found, *(headers or [])])


class Forwarding(Protocol):
    """Who passes on requests for the uploads of other replicas: `mirror.edge.forward`."""

    @property
    def name(self) -> str:
        """What the ids of this replica's own uploads begin with."""
        ...

    def owner(self, upload: str) -> str | None:
        """The other replica that has the upload; None where none does that is known."""
        ...

    async def pass_on(self, push: Push, upload: str, owner: str) -> None:
        """Answer what the owner answers. Raises `MirrorError` before anything was sent, and `BodyCut`."""
        ...


async def begin(push: Push) -> None:
    """``POST``: a new upload; or a whole blob with ``?digest=``; or one of another repository with ``?mount=``."""
    asked = push.asked
    if "mount" in asked and await _mounted(push, Digest.parse(asked["mount"])):
        return
    if "digest" in asked and "mount" not in asked:
        await _whole(push, Digest.parse(asked["digest"]))
        return
    algorithm = asked.get("digest-algorithm", _ALGORITHMS[0])
    if algorithm not in _ALGORITHMS:
        raise DigestInvalid(f"digests of this algorithm are not supported; there are {' and '.join(_ALGORITHMS)}")
    upload = await push.publisher.begin(push.place, push.principal, algorithm=algorithm)
    least = [("oci-chunk-min-length", str(upload.min_chunk))] if upload.min_chunk else []
    await push.answer(202, [*_standing(push, upload), *least])


async def proceed(push: Push, upload: Upload) -> None:
    """``PATCH``: a chunk, with ``Content-Range`` or without."""
    await upload.append(_chunk(push))
    await push.answer(202, _standing(push, upload))


async def finish(push: Push, upload: Upload) -> None:
    """``PUT``: the last chunk, or all of the blob, or nothing more."""
    if "digest" not in push.asked:
        raise DigestInvalid("an upload is finished with ?digest=, the digest of the whole blob")
    digest = Digest.parse(push.asked["digest"])
    await upload.finish(digest, _last(push))
    await push.created("blobs", digest)


async def tell(push: Push, upload: Upload) -> None:
    """``GET``: where it stands."""
    await push.answer(204, _standing(push, upload))


async def cancel(push: Push, upload: Upload) -> None:
    """``DELETE``: forget it."""
    await upload.cancel()
    await push.answer(204, [("docker-upload-uuid", upload.id)])


def where(push: Push, upload: str) -> str:
    """The address of an upload."""
    return push.address(f"blobs/uploads/{upload}")


def _standing(push: Push, upload: Upload) -> list[tuple[str, str]]:
    place = ("location", where(push, upload.id))
    return [place, ("range", progress(upload.size)), ("docker-upload-uuid", upload.id)]


def _last(push: Push) -> Chunk | None:
    return None if is_empty(push.scope) else _chunk(push)


def _chunk(push: Push) -> Chunk:
    chunk = chunk_of(push.scope, push.receive)
    if chunk.start is not None or push.start is None:
        return chunk
    return replace(chunk, start=push.start, implied=True)


async def _whole(push: Push, digest: Digest) -> None:
    chunk = _last(push)
    upload = await push.publisher.begin(push.place, push.principal, algorithm=digest.algorithm)
    try:
        await upload.finish(digest, chunk)
    except (MirrorError, BodyCut):  # the client was never told its id
        with contextlib.suppress(MirrorError):
            await upload.cancel()
        raise
    await push.created("blobs", digest)


async def _mounted(push: Push, digest: Digest) -> bool:
    """Answer that the blob is there too, if it can be had from elsewhere; what the client may not read is nowhere."""
    source = None
    if name := push.asked.get("from"):
        try:
            source = push.elsewhere(name)
        except (NameInvalid, NameUnknown):
            return False
        if source.upstream != push.place.upstream or not push.readable(source):
            return False
    if not await push.publisher.mount(push.place, push.principal, digest, source, push.readable):
        return False
    await push.created("blobs", digest)
    return True

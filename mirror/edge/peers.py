"""``GET`` and ``HEAD`` under ``/peer/v1/``: what this replica gives to the others, who sign what they ask.

===========================================  =====================================================================
``blobs/<digest>``                           the bytes that it holds or is getting; ranges are honoured once the size
                                             is known, before that all comes from the first byte on
``blobs/<digest>?held=1``                    only what lies whole on its disk
``tags/<upstream>/<repository>?tag=…``       the entry in its own database, as JSON, signed
``links/<upstream>/<repository>?digest=…``   what stands of the link in its own database, as JSON, signed
===========================================  =====================================================================

Nothing here asks anyone else, begins a download, or tells more than "no" to who cannot sign.
"""

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from mirror.answer import Answer, Collapsed, Flowing, Held, Hit
from mirror.cluster.documents import of_link, of_tag
from mirror.cluster.secret import SCHEME, Secret
from mirror.digest import Digest
from mirror.edge.respond import challenging, header, send_answer, send_error, send_json
from mirror.errors import (
    BlobUnknown,
    MirrorError,
    NameInvalid,
    NotFound,
    Unauthorized,
    Unsupported,
    UpstreamUnavailable,
)
from mirror.metadata.base import LinkEntry, TagEntry
from mirror.oci import parse_name, parse_tag
from mirror.peers import ROOT
from mirror.store.blobs import BlobStore
from mirror.store.growing import Growing

_OCTETS = "application/octet-stream"


class Knowledge(Protocol):
    """What this replica knows by itself: its own `mirror.metadata.sqlite.SqliteMetadata`."""

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None: ...

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None: ...


class Room(Protocol):
    """What else replicas ask of one another: all addresses under ``/peer/v1/<name of the room>/``."""

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """Answer one request, whose signature is right. ``nonce`` signs the answer. Raises `MirrorError`."""
        ...


class PeerApp:
    """An ASGI application for the addresses under ``/peer/``.

    ``tail`` gives what a fill of this replica has of a digest so far, and begins none. ``own`` is the URL at which the
    others ask this replica, as its settings say it: what was signed for another one is not answered. ``now``: seconds
    since the epoch. ``rooms`` are by their names.
    """

    def __init__(
        self,
        secret: Secret,
        store: BlobStore,
        tail: Callable[[Digest], Growing | None],
        knows: Knowledge,
        own: str,
        now: Callable[[], float] = time.time,
        rooms: Mapping[str, Room] | None = None,
    ) -> None:
        self._secret = secret
        self._store = store
        self._tail = tail
        self._knows = knows
        self._own = own
        self._now = now
        self._rooms = rooms or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `Cut` when a body that has begun cannot be finished."""
        method = scope["method"]
        try:
            proof = header(scope, b"authorization")
            nonce = self._secret.verify(proof, method, self._own + _target(scope), self._now())
            kind, _, rest = scope["path"].removeprefix(ROOT).partition("/")
            query = _query(scope)
            if (room := self._rooms.get(kind)) is not None:
                await room.answer(scope, receive, send, query, nonce)
                return
            if method not in ("GET", "HEAD"):
                raise Unsupported("replicas answer one another GET and HEAD only at this address")
            match kind:
                case "blobs":
                    answer = self._blob(Digest.parse(rest), held=query.get("held") == "1")
                    await send_answer(scope, receive, send, answer, now=self._now(), namespace=None, ranged=True)
                case "tags" | "links":
                    document = await self._document(kind, rest, query)
                    body = json.dumps(document).encode()
                    signature = [("x-signature", self._secret.sign_answer(nonce, body))]
                    await send_json(send, method, body, signature, "application/json")
                case _:
                    raise NotFound("replicas have nothing for one another at this address")
        except Unauthorized as error:
            await send_error(challenging(send, SCHEME), method, error)
        except MirrorError as error:
            await send_error(send, method, error)

    def _blob(self, digest: Digest, *, held: bool) -> Answer:
        with contextlib.suppress(OSError):  # a disk that fails holds nothing; what passes it by may still be had
            if (blob := self._store.open(digest)) is not None:
                return Answer(_OCTETS, digest, Held(blob), Hit(), blob.stored_at)
        with contextlib.suppress(OSError):
            if not held and (growing := self._tail(digest)) is not None:
                return Answer(_OCTETS, digest, _Tailed(growing, whole_first=False, max_module_size=0), Collapsed())
        raise BlobUnknown(f"this replica does not have {digest}")

    async def _document(self, kind: str, name: str, query: Mapping[str, str]) -> dict[str, object]:
        upstream, _, repository = name.partition("/")
        upstream, repository = parse_name(upstream), parse_name(repository)
        if kind == "tags":
            entry = await self._knows.tag(upstream, repository, parse_tag(query.get("tag", "")))
            if entry is not None:
                return of_tag(entry)
        else:
            link = await self._knows.link(upstream, repository, Digest.parse(query.get("digest", "")))
            if link is not None:
                return of_link(link)
        raise NotFound("this replica knows nothing of it")


class _Tailed(Flowing):
    """A blob that is being filled, for another replica: each byte at once, but those that wait for the digest.

    Unlike an agent, a replica may have the beginning of an archive, for it keeps the rule for its own clients itself.
    """

    __slots__ = ()

    async def ready(self, start: int, end: int | None) -> None:
        """Wait until the size or the first byte is known; raise what stands against the answer already."""
        if self.content.failure is not None:
            raise self.content.failure.with_traceback(None)
        if self.content.beyond(start):
            raise UpstreamUnavailable(f"{self.content.digest} passes through this replica, and byte {start} is gone")
        if self.content.size is None:
            await self.content.reached(0)

    def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """The bytes as they come; cut when they turn out to be wrong."""
        return self.content.stream(start, end, tentative=True)


def _target(scope: Scope) -> str:
    """What was signed: the path as it was sent, and the query."""
    query = scope["query_string"]
    return bytes(scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")


def _query(scope: Scope) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=8))
    except ValueError as error:
        raise NameInvalid("the query has more than 8 parameters") from error

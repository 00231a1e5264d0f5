"""The other replicas: who of them holds what, the bytes of a blob from one of them, and what their databases know.

Everything is signed with the secret that they share (`mirror.cluster.secret`), and nothing is believed for that alone:
bytes are held against their digest by whoever takes them in. What a replica cannot give costs a request to upstream,
so none is waited for long, and one that keeps others waiting is left alone for a while.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx

from mirror import __version__
from mirror.cluster.documents import to_link, to_tag
from mirror.cluster.secret import Secret
from mirror.config.hosts import is_loopback, parse_endpoint
from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    MirrorError,
    NotFound,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.metadata.base import LinkEntry, TagEntry, is_later, stands_over
from mirror.oci import parse_object
from mirror.tracing import Kind, begin, carried, inside
from mirror.upstream.answers import failure, refuse_disguise
from mirror.upstream.blob import BlobStream
from mirror.upstream.origins import host_of
from mirror.upstream.session import drain, read_body
from mirror.upstream.transport import Transport
from mirror.upstream.trust import Reach

log = logging.getLogger(__name__)

ROOT = "/peer/v1/"
"""Where replicas answer one another."""

_ROUND = 0.5
"""Seconds for asking all replicas one thing."""

_HEAD_START = 0.15
"""Seconds that those which are said to hold a blob have before the others are asked beside them."""

_BEGINS_WITHIN = 2.0
"""Seconds until the answer of a replica that holds a blob has to begin, and until small content has come whole."""

_SHUNNED_FOR = 2.0
_DISTRUSTED_FOR = 300.0
_MAX_DISTRUSTED = 256
_MAX_DOCUMENT = 64 * 1024
_COMMON = {"accept-encoding": "identity", "user-agent": f"wasm-mirror/{__version__}"}

_MAX_PEERS = 64
"""Replicas that are asked one thing."""

_SHOWN = 80

_T = TypeVar("_T")


class _Peer:
    """One of the others, and what is remembered of it. Times are by the clock of `Peers`."""

    def __init__(self, address: str) -> None:
        """Raises `ValueError` for what is not the URL of a host."""
        self.address = address
        self.host = host_of(httpx.URL(parse_endpoint(address)))
        self.shunned_until = -math.inf
        self.complaint = ""
        self.distrusted: dict[Digest, float] = {}


class Peers:
    """Asks the other replicas. ``addresses`` are the URLs of those that are alive, ``own`` is that of this one.

    ``clock`` gives seconds that never go back, ``now`` seconds since the epoch. ``transport`` is its own: it dials
    them, and is closed with this.

    Their addresses stand in Redis, where somebody else may have put one. What such a host gets is a question that can
    be repeated for some minutes and no other, and what it answers is verified; and no address is dialled that no other
    replica can have, unless all are on one machine, as ``own`` says.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        own: str,
        secret: Secret,
        transport: Transport,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._addresses = addresses
        self._own = own
        self._secret = secret
        self._transport = transport
        self._clock = clock
        self._now = now
        self._peers: dict[str, _Peer] = {}
        self._reach = Reach.ENDPOINT if _is_on_loopback(own) else Reach.REPLICA

    async def open_blob(self, address: str, digest: Digest, *, offset: int, held: bool, deadline: float) -> BlobStream:
        """A blob from ``offset`` on, or from its beginning where that replica does not know its size yet.

        ``held``: only if it is whole there; else also while it is being filled. The answer has to begin before the
        ``deadline`` (the loop's clock), that of a held blob within 2 s. Raises `UpstreamError`, `BlobUnknown`.
        """
        peer = self._peer(address)
        target = f"{ROOT}blobs/{digest}" + ("?held=1" if held else "")
        latest = asyncio.get_running_loop().time() + _BEGINS_WITHIN
        try:
            async with asyncio.timeout_at(min(deadline, latest) if held else deadline):
                response, _ = await self._ask(
                    peer, "GET", target, f"the blob {digest}", {"range": f"bytes={offset}-"} if offset else {}
                )
        except TimeoutError as error:
            if held:
                self._shun(peer)
            raise UpstreamTimeout(
                f"{peer.host} does not begin to send {digest} in time", detail={"endpoint": peer.host}
            ) from error
        try:
            return BlobStream.of(response, endpoint=peer.host, asked=offset)
        except UpstreamInvalid:
            await response.aclose()
            raise

    async def find(self, digest: Digest, hinted: Sequence[str], without: Collection[str] = ()) -> str | None:
        """The address of a replica that holds the blob whole, within half a second; None when none says so.

        Those that are ``hinted`` at are asked first, and may take 2 s: they very likely save a download. Those in
        ``without`` are not asked at all.
        """
        others = [peer for peer in self._others(hinted) if peer.address not in without and self._trusts(peer, digest)]
        first = [peer for peer in others if peer.address in hinted]
        rest = [peer for peer in others if peer.address not in hinted]

        async def holds(peer: _Peer) -> bool | None:
            response, _ = await self._ask(peer, "HEAD", f"{ROOT}blobs/{digest}?held=1", f"the blob {digest}")
            await drain(response)
            return True

        within = _BEGINS_WITHIN if first else _ROUND
        async with contextlib.aclosing(self._answers((first, rest), holds, within)) as answers:
            async for peer, _ in answers:
                return peer.address
        return None

    async def holds(self, digest: Digest) -> bool | None:
        """Whether one of the others that are alive holds the blob whole.

        None when nobody says so, and not all have answered within half a second.
        """
        others = [peer for peer in self._others(self._addresses()) if self._trusts(peer, digest)]

        async def says(peer: _Peer) -> bool:
            try:
                response, _ = await self._ask(peer, "HEAD", f"{ROOT}blobs/{digest}?held=1", f"the blob {digest}")
            except BlobUnknown:
                return False
            await drain(response)
            return True

        silent = len(others)
        async with contextlib.aclosing(self._answers((others,), says)) as answers:
            async for _, held in answers:
                if held:
                    return True
                silent -= 1
        return None if silent else False

    async def content(self, digest: Digest, limit: int, hinted: Sequence[str] = ()) -> bytes | None:
        """Small content, a manifest, from a replica that holds it: at most ``limit`` bytes that have the digest.

        None when none gives it within some 2 s.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _BEGINS_WITHIN
        failed: set[str] = set()
        while loop.time() < ends_at and (address := await self.find(digest, hinted, failed)) is not None:
            failed.add(address)
            peer = self._peer(address)
            try:
                async with asyncio.timeout_at(ends_at):
                    what = f"the content {digest}"
                    response, _ = await self._ask(peer, "GET", f"{ROOT}blobs/{digest}?held=1", what)
                    body = await read_body(response, limit, peer.host, what)
            except TimeoutError:
                self._shun(peer)
                continue
            except (UpstreamError, NotFound) as error:
                self._complain(peer, error)
                continue
            if Digest.of(body, digest.algorithm) == digest:
                return body
            self._complain(peer, UpstreamInvalid(f"{peer.host} sends bytes for {digest} that do not have this digest"))
            self.cool_down(peer.host, digest)
        return None

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """The latest entry of a tag that a replica has in its own database, of those that tell within half a second."""
        target = f"{ROOT}tags/{upstream}/{repository}?{urlencode({'tag': tag})}"

        async def entry(peer: _Peer) -> TagEntry | None:
            return to_tag(await self._document(peer, target), upstream, repository, tag)

        entries: AsyncGenerator[tuple[_Peer, TagEntry]] = self._answers((self._others(),), entry)
        latest: TagEntry | None = None
        async with contextlib.aclosing(entries):
            async for _, found in entries:
                if latest is None or is_later(found, latest):
                    latest = found
        return latest

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """What stands of the link of a repository to a digest, by the replicas that tell within half a second what
        they have in their own databases.
        """
        target = f"{ROOT}links/{upstream}/{repository}?{urlencode({'digest': str(digest)})}"

        async def entry(peer: _Peer) -> LinkEntry | None:
            return to_link(await self._document(peer, target), upstream, repository, digest)

        entries: AsyncGenerator[tuple[_Peer, LinkEntry]] = self._answers((self._others(),), entry)
        stands: LinkEntry | None = None
        async with contextlib.aclosing(entries):
            async for _, found in entries:
                if stands is None or stands_over(found, stands):
                    stands = found
        return stands

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]:
        """A signed document of at most ``limit`` bytes that the replica at ``address`` answers to ``target``, a path
        below `ROOT` with its query. Raises `UpstreamError`, `NotFound`; the caller says how long it may take.
        """
        return await self._document(self._peer(address), f"{ROOT}{target}", limit)

    @property
    def alive(self) -> Sequence[str]:
        """The addresses of the others that are alive."""
        return [peer.address for peer in self._others(self._addresses())]

    def heard(self) -> Mapping[str, bool]:
        """The addresses of the others that are alive, those left alone too; and whether they answered at last."""
        return {peer.address: not peer.complaint for peer in self._others(self._addresses())}

    def cool_down(self, endpoint: str, digest: Digest) -> None:
        """Do not ask the replica whose stream named itself so for this blob for a while: it sent wrong bytes."""
        until = self._clock() + _DISTRUSTED_FOR
        for peer in self._peers.values():
            if endpoint == peer.host:
                peer.distrusted.pop(digest, None)
                peer.distrusted[digest] = until
                if len(peer.distrusted) > _MAX_DISTRUSTED:
                    del peer.distrusted[next(iter(peer.distrusted))]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def _others(self, wanted: Collection[str] = ()) -> list[_Peer]:
        """Those that are alive, but for this one and, unless they are ``wanted``, those left alone for now."""
        peers, alive = [], set(self._addresses())
        for address in islice(dict.fromkeys((*wanted, *self._addresses())), _MAX_PEERS):
            with contextlib.suppress(UpstreamInvalid):  # another release may write what is no address to this one
                if address != self._own and address in alive:
                    peers.append(self._peer(address))
        return [peer for peer in peers if peer.address in wanted or peer.shunned_until <= self._clock()]

    def _peer(self, address: str) -> _Peer:
        peer = self._peers.get(address)
        if peer is None:
            try:
                peer = _Peer(address)
            except ValueError as error:
                raise UpstreamInvalid(f"{address[:_SHOWN]!r} is not the address of a replica") from error
            alive = set(self._addresses())
            self._peers = {known: one for known, one in self._peers.items() if known in alive}
            self._peers[address] = peer
        return peer

    def _trusts(self, peer: _Peer, digest: Digest) -> bool:
        return peer.distrusted.get(digest, -math.inf) <= self._clock()

    def _shun(self, peer: _Peer) -> None:
        peer.shunned_until = self._clock() + _SHUNNED_FOR

    def _complain(self, peer: _Peer, error: MirrorError) -> None:
        """Say what is wrong with a replica, once until something else is."""
        if not isinstance(error, NotFound) and type(error).__name__ != peer.complaint:
            peer.complaint = type(error).__name__
            log.warning("replica %s", error)

    async def _answers(
        self, waves: Sequence[Sequence[_Peer]], ask: Callable[[_Peer], Awaitable[_T | None]], within: float = _ROUND
    ) -> AsyncGenerator[tuple[_Peer, _T]]:
        """What replicas answer, each as it comes, ``within`` seconds in all; not those that know nothing, or fail.

        All of a wave are asked at once, when the wave before has answered or has had its head start.
        """
        time = asyncio.get_running_loop().time
        ends_at = time() + within
        left = [wave for wave in waves if wave]
        asked: dict[asyncio.Task[_T | None], _Peer] = {}
        next_at = ends_at
        try:
            while left or asked:
                if left and (not asked or time() >= next_at):
                    asked |= {asyncio.create_task(self._answer(peer, ask)): peer for peer in left.pop(0)}
                    next_at = time() + _HEAD_START if left else ends_at
                patience = max(0.0, min(ends_at, next_at) - time())
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    peer, answer = asked.pop(task), task.result()
                    if answer is not None:
                        yield peer, answer
                if time() >= ends_at:
                    for peer in asked.values():
                        self._shun(peer)
                        self._complain(peer, UpstreamTimeout(f"{peer.host} does not answer within {within:g} s"))
                    return
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _answer(self, peer: _Peer, ask: Callable[[_Peer], Awaitable[_T | None]]) -> _T | None:
        try:
            answer = await ask(peer)
        except NotFound:
            answer = None
        except UpstreamError as error:
            self._complain(peer, error)
            return None
        peer.complaint = ""
        return answer

    async def _document(self, peer: _Peer, target: str, limit: int = _MAX_DOCUMENT) -> Mapping[str, Any]:
        """What a replica tells of itself, if it is signed; raises `UpstreamError`, `NotFound`."""
        response, nonce = await self._ask(peer, "GET", target, "what it knows")
        body = await read_body(response, limit, peer.host, "what it knows")
        if not self._secret.vouches_for(response.headers.get("x-signature"), nonce, body):
            raise UpstreamInvalid(f"{peer.host} tells what it knows without a valid signature")
        return parse_object(body, f"what {peer.host} knows")

    async def _ask(
        self, peer: _Peer, method: str, target: str, what: str, headers: Mapping[str, str] | None = None
    ) -> tuple[httpx.Response, str]:
        """A good answer, which the caller closes, and the nonce of the question.

        Raises `UpstreamError`, and `BlobUnknown` for a 404.
        """
        about = {"server.address": peer.host, "http.request.method": method}
        with inside(begin("ask replica", Kind.CLIENT, about)):
            return await self._asked(peer, method, target, what, {**_COMMON, **(headers or {}), **carried()})

    async def _asked(
        self, peer: _Peer, method: str, target: str, what: str, headers: Mapping[str, str]
    ) -> tuple[httpx.Response, str]:
        request = httpx.Request(method, f"{peer.address}{target}", headers=headers)
        # To this replica, and to no other: whoever is asked by mistake cannot ask the same of somebody else.
        signed = self._secret.sign(method, f"{peer.address}{request.url.raw_path.decode('ascii')}", self._now())
        request.headers["authorization"] = signed.header
        try:
            response = await self._transport.send(request, reach=self._reach, endpoint=peer.host)
        except UpstreamUnavailable:
            self._shun(peer)
            raise
        try:
            if response.status_code not in (200, 204, 206):
                raise await _refusal(response, peer.host, what)
            refuse_disguise(response, peer.host, what)
        except BaseException:
            await response.aclose()
            raise
        return response, signed.nonce


def _is_on_loopback(address: str) -> bool:
    try:
        return is_loopback(httpx.URL(parse_endpoint(address)).host)
    except ValueError:
        return False


async def _refusal(response: httpx.Response, host: str, what: str) -> MirrorError:
    body = await drain(response)
    if response.status_code == 401:
        return UpstreamUnavailable(
            f"{host} does not take our signature: another secret is in its cluster.secret_file, or its clock is wrong",
            detail={"endpoint": host, "status": 401},
        )
    return failure(response, body, host, what, BlobUnknown)

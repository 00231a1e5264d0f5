"""Uploads of other replicas: who has one, and requests for it that are passed on to there, with their bodies.

What is asked is signed (`mirror.cluster.secret`), and so are the answers, whole: what somebody else at the address of a
replica says reaches no client. Signed are the method, the upload, who asks, and path, query, ``Host`` and
``Content-Range`` as the client sent them; the body is not, it is held against the blob's digest at the end.

A signed request is good for some minutes, so somebody who has overheard one may send it again, with any body:

* ``GET`` tells how far an upload is, as it did before.
* ``DELETE``, or a ``PUT`` that was carried out: the upload is over, and ids are never given twice. 404.
* ``PATCH``, or a ``PUT`` with the last bytes: says, signed, where its bytes begin: as the client does by
  ``Content-Range``, or else as the owner has told this replica a moment before (`Passing.size`).
  Held against the upload while nobody else writes to it, that lets a body be taken in once: then the upload does not
  end there any more. 416, and nothing changes.
* any of them before its first sending has arrived, with another body: whoever can keep the first one back can change
  its bytes as well. They do not have the digest, and the upload fails. Against that there is TLS.

Addresses stand in Redis, where somebody else may have put one. So nothing is passed on but to who has proved lately at
that address, with the signature of an answer, to know the secret. Credentials of clients go along only where the owner
has to show them to an upstream (`auth.mode: upstream`).
"""

import json
import logging
import math
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from urllib.parse import urlencode

import httpcore
import httpx

from mirror import __version__
from mirror.cluster.secret import Secret
from mirror.config.hosts import is_loopback, parse_endpoint
from mirror.errors import MirrorError, NameInvalid, NotNow, UploadUnknown, UpstreamError, UpstreamInvalid
from mirror.oci import parse_object
from mirror.peers import ROOT
from mirror.store.uploads import name_of, replica_in
from mirror.upstream.dial import Dialler, may_be_a_replica
from mirror.upstream.duplex import Duplex, Outgoing, connected
from mirror.upstream.trust import OneTrust, Reach, Trust, usual

log = logging.getLogger(__name__)

ROOM = "uploads"
"""Where replicas are asked for their uploads: ``/peer/v1/uploads/<id>``."""

CREDENTIALS = "x-client-authorization"
"""The header with the client's ``Authorization``, where it has to be passed on."""

ONLY = ("", "size", "proof")
"""What is asked: what the client asks; how far the upload is; that a replica answers."""

_CONNECTS_WITHIN = 1.0
_DOUBTED_AFTER = 5.0
"""Seconds without a sign after which an owner is given up that is not said to be alive any more."""

_ANSWERS_WITHIN = 600.0
"""The same for one that is: at the end it may have to read all of an upload again, or wait for an upstream."""

_PROVED_FOR = 30.0
"""Seconds for which who has signed an answer is sent what clients send."""

_COME_BACK = 1.0
_MAX_OTHERS = 64
_MAX_TARGET = 16 * 1024
_MAX_ANSWER = 128 * 1024
_MAX_SIZE = 1 << 62
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Question:
    """A request for an upload, as a client has made it at another replica than the owner's.

    ``path`` is decoded, ``query`` raw; ``span`` is its ``Content-Range``, "" without one. ``start``: where the upload
    has to stand, if the client does not say that. ``only``: one of `ONLY`.
    """

    method: str
    upload: str
    principal: str
    path: str
    query: str = ""
    host: str = ""
    span: str = ""
    start: int | None = None
    only: str = ""

    @property
    def target(self) -> str:
        """The path below `ROOT`, with the query. Raises `NameInvalid` for what is too long."""
        asked = {"principal": self.principal, "path": self.path, "query": self.query, "host": self.host}
        if self.span:
            asked["span"] = self.span
        if self.start is not None:
            asked["start"] = str(self.start)
        if self.only:
            asked["only"] = self.only
        target = f"{ROOM}/{self.upload}?{urlencode(asked)}"
        if len(target) > _MAX_TARGET:
            raise NameInvalid("the address of the request is too long")
        return target

    @classmethod
    def of(cls, method: str, upload: str, asked: Mapping[str, str]) -> "Question":
        """What `target` says, its query parsed as ``asked``. Raises `NameInvalid`."""
        start, only = asked.get("start"), asked.get("only", "")
        missing = "principal" not in asked or "path" not in asked
        if missing or only not in ONLY or (start is not None and not _NUMBER.fullmatch(start)):
            raise NameInvalid("this is not a request for an upload that a replica passes on")
        return cls(
            method,
            upload,
            asked["principal"],
            asked["path"],
            asked.get("query", ""),
            asked.get("host", ""),
            asked.get("span", ""),
            int(start) if start is not None else None,
            only,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What the owner answers, for the client. ``size``: how far the upload is, if that was asked."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    size: int | None = None

    def document(self) -> bytes:
        """As JSON."""
        fields = {"v": 1, "status": self.status, "headers": self.headers, "body": b64encode(self.body).decode()}
        return json.dumps(fields if self.size is None else {**fields, "size": self.size}).encode()

    @classmethod
    def read(cls, document: bytes) -> "Reply":
        """What `document` gave. Raises `UpstreamInvalid`."""
        fields = parse_object(document, "the answer of a replica")
        status, headers, size = fields.get("status"), fields.get("headers"), fields.get("size")
        try:
            if type(status) is not int or not 200 <= status < 600 or not isinstance(headers, list):
                raise ValueError
            if size is not None and (type(size) is not int or not 0 <= size < _MAX_SIZE):
                raise ValueError
            pairs = tuple((str(name), str(value)) for name, value in headers)
            return cls(status, pairs, b64decode(fields.get("body", ""), validate=True), size)
        except (TypeError, ValueError) as error:
            raise UpstreamInvalid("the answer of a replica is malformed") from error


class Passing:
    """Asks the owners of uploads. ``addresses`` are the URLs of the replicas that are alive, ``own`` is this one's.

    ``clock`` gives seconds that never go back, ``now`` seconds since the epoch.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        own: str,
        secret: Secret,
        trust: Trust | None,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.name = name_of(own)
        """What the ids of this replica's uploads begin with."""
        self._addresses = addresses
        self._secret = secret
        self._trust = trust or OneTrust(usual())
        self._clock = clock
        self._now = now
        self._reach = Reach.ENDPOINT if is_loopback(httpx.URL(own).host) else Reach.REPLICA
        self._proved: dict[str, float] = {}
        self._dialler = Dialler(guarded=self._reach is Reach.REPLICA, admits=may_be_a_replica)

    def owner(self, upload: str) -> str | None:
        """The address of the other replica that has the upload; None where none that is alive has such a name."""
        name = replica_in(upload)
        if name is None or name == self.name:
            return None
        others = islice(self._addresses(), _MAX_OTHERS)
        return next((one for one in others if name_of(one) == name), None)

    async def size(self, owner: str, question: Question, credentials: str | None = None) -> Reply:
        """How far the upload of ``question`` is, or what stands against it. Raises as `ask`."""
        return await self.ask(owner, replace(question, method="GET", span="", only="size"), credentials=credentials)

    async def ask(
        self,
        owner: str,
        question: Question,
        content: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        credentials: str | None = None,
    ) -> Reply:
        """What the replica at ``owner`` answers, while ``content`` goes there: ``length`` bytes, None: not announced.

        ``credentials`` are the client's ``Authorization``, for owners that need it. Raises `UploadUnknown` when nobody
        is there any more; `NotNow` when it fails, or does not prove that it is a replica; and what the content raises.
        """
        target = f"{ROOT}{question.target}"
        if question.only != "proof" and self._clock() - self._proved.get(owner, -math.inf) > _PROVED_FOR:
            await self.ask(owner, Question("GET", "", "", "", only="proof"))
        try:
            url = httpx.URL(parse_endpoint(owner))
        except ValueError as error:
            raise _gone() from error
        try:
            tls = await self._trust.context(self._reach) if url.scheme == "https" else None
            stream = await connected(self._dialler, url, tls, _CONNECTS_WITHIN)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            log.info("%s, which has an upload that is asked for, cannot be reached: %s", owner, error)
            raise _gone() from error
        except UpstreamError as error:
            raise _not_now(error) from error
        signed = self._secret.sign(question.method, owner + target, self._now())
        headers = [("authorization", signed.header), ("user-agent", f"wasm-mirror/{__version__}")]
        if credentials is not None:
            headers.append((CREDENTIALS, credentials))
        outgoing = Outgoing(question.method, url, target, headers, content, length)
        return await self._answer(Duplex(stream, outgoing, self._clock), owner, signed.nonce)

    async def _answer(self, duplex: Duplex, owner: str, nonce: str) -> Reply:
        """What is answered, if a replica has signed it."""

        def gives_up(silent: float) -> bool:
            return silent > _ANSWERS_WITHIN or (silent > _DOUBTED_AFTER and owner not in self._addresses())

        try:
            heard = await duplex.exchange(_MAX_ANSWER, gives_up)
            if not self._secret.vouches_for(heard.headers.get("x-signature"), nonce, heard.body):
                raise UpstreamInvalid(
                    f"{owner} answers {heard.status} without a valid signature: another secret is in its "
                    "cluster.secret_file, its clock is wrong, or it stops"
                )
            alive = set(self._addresses())
            self._proved = {one: at for one, at in self._proved.items() if one in alive} | {owner: self._clock()}
            return Reply.read(heard.body)
        except UpstreamError as error:
            if owner not in self._addresses():
                raise _gone() from error
            raise _not_now(error) from error


def _gone() -> UploadUnknown:
    return UploadUnknown("there is no such upload: the replica that had it is gone; begin a new one")


def _not_now(error: MirrorError) -> NotNow:
    log.warning("a request for an upload could not be passed on: %s", error)
    return NotNow(
        "the replica that has this upload does not answer as it should; ask for the status of the upload, and go on "
        "there, or begin a new one",
        retry_after=_COME_BACK,
    )

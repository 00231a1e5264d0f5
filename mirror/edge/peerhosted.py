"""``GET`` under ``/peer/v1/hosted/``: what replicas tell and ask one another about hosted content. All answers are
JSON, and signed.

=====================================  =================================================================================
``entries?of=<identity>&after=<seq>``  entries that came to be known here after a number, if these are the records that
                                       are meant; else their name, and nothing
``sync?from=<address>``                who asks has changed something: it is read before this is answered
``keep?digest=…&from=<address>``       the blob is to lie on this disk; answered within a second or so, if only to say
                                       that it is on its way
=====================================  =================================================================================

``from`` must be where a replica is that is there. A replica whose records are damaged has no such room.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from mirror import following, spread
from mirror.cluster.secret import Secret
from mirror.digest import Digest
from mirror.edge.respond import send_json
from mirror.errors import NameInvalid, NotFound, Unsupported
from mirror.hosted.entries import of_entry
from mirror.peers import ROOT
from mirror.replication import Replication


class HostedRoom:
    """A `Room`, to stand in `PeerApp` under the name ``hosted``."""

    def __init__(self, replication: Replication, secret: Secret) -> None:
        self._replication = replication
        self._secret = secret

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """As `Room.answer`."""
        if scope["method"] != "GET":
            raise Unsupported("replicas ask one another about hosted content by GET", allow=("GET",))
        if self._replication.catalogue.damage is not None:
            raise NotFound("the records of hosted content are damaged here: nothing can be told of them")
        match scope["path"].removeprefix(f"{ROOT}hosted/"):
            case "entries":
                document = await self._entries(query.get("of", ""), _number(query, "after"))
            case "sync":
                document = await self._sync(query.get("from", ""))
            case "keep":
                document = await self._keep(Digest.parse(query.get("digest", "")), query.get("from", ""))
            case _:
                raise NotFound("replicas have nothing for one another at this address")
        body = await asyncio.to_thread(lambda: json.dumps(document).encode())
        signature = [("x-signature", self._secret.sign_answer(nonce, body))]
        await send_json(send, "GET", body, signature, "application/json")

    async def _entries(self, of: str, after: int) -> dict[str, object]:
        own = await self._identity()
        if of != own:
            return following.document(own, [], 0, more=True)
        portion = await self._replication.catalogue.entries(after, following.PORTION)
        entries = await asyncio.to_thread(lambda: [of_entry(entry) for entry in portion.entries])
        return following.document(own, entries, portion.next, portion.more)

    async def _sync(self, address: str) -> dict[str, object]:
        await self._replication.heard_of(address)
        return {"v": following.VERSION}

    async def _keep(self, digest: Digest, address: str) -> dict[str, object]:
        await self._replication.refuse_stranger(address)
        return spread.document(await self._replication.spread.keep(digest, address))

    async def _identity(self) -> str:
        """What tells these records from all others, also from a copy of them that another replica was started with."""
        identity = await self._replication.catalogue.identity()
        return hashlib.blake2b(f"{identity} {self._replication.address}".encode(), digest_size=16).hexdigest()


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise NameInvalid(f"{name} is not a number")
    return int(text)

"""``GET`` under ``/peer/v1/pins/``: what replicas tell one another of pins. All answers are JSON, and signed.

=====================================  =================================================================================
``records?have=<prints>&first=<n>``    the records of this replica, in groups, from a group on: those that have another
                                       fingerprint than the one in ``have``
``sync?from=<address>``                who asks has changed something: it is read before this is answered
=====================================  =================================================================================

``from`` must be where a replica is that is there.
"""

import asyncio
import json
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from mirror.cluster.secret import Secret
from mirror.edge.respond import send_json
from mirror.errors import NameInvalid, NotFound, Unsupported
from mirror.gossip import ROOM, VERSION, Gossip
from mirror.peers import ROOT


class PinsRoom:
    """A `Room`, to stand in `PeerApp` under the name ``pins``."""

    def __init__(self, gossip: Gossip, secret: Secret) -> None:
        self._gossip = gossip
        self._secret = secret

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """As `Room.answer`."""
        if scope["method"] != "GET":
            raise Unsupported("replicas ask one another about pins by GET", allow=("GET",))
        match scope["path"].removeprefix(f"{ROOT}{ROOM}/"):
            case "records":
                have, first = query.get("have", ""), _number(query.get("first", ""))
                body = await asyncio.to_thread(lambda: json.dumps(self._gossip.document(have, first)).encode())
            case "sync":
                await self._gossip.heard_of(query.get("from", ""))
                body = json.dumps({"v": VERSION}).encode()
            case _:
                raise NotFound("replicas have nothing for one another at this address")
        signature = [("x-signature", self._secret.sign_answer(nonce, body))]
        await send_json(send, "GET", body, signature, "application/json")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise NameInvalid("first is not a number")
    return int(text)

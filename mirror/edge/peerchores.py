"""``GET`` under ``/peer/v1/chores/``: what replicas ask one another to do on their own disks. Answers are JSON, signed.

==================================  ====================================================================================
``purge?what=…&portion=<number>``   what is purged goes from this disk too, unless something here names it; how many
                                    bytes went. The first portion of all that is asked at once is number 0
==================================  ====================================================================================
"""

import json
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from mirror.chores import ROOM, answer, parse
from mirror.cluster.secret import Secret
from mirror.edge.respond import send_json
from mirror.errors import NotFound, Unsupported
from mirror.peers import ROOT
from mirror.purging import Purging


class ChoresRoom:
    """A `Room`, to stand in `PeerApp` under the name ``chores``."""

    def __init__(self, purging: Purging, secret: Secret) -> None:
        self._purging = purging
        self._secret = secret

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """As `Room.answer`."""
        if scope["method"] != "GET":
            raise Unsupported("replicas ask one another for chores by GET", allow=("GET",))
        if scope["path"].removeprefix(f"{ROOT}{ROOM}/") != "purge":
            raise NotFound("replicas have nothing for one another at this address")
        wanted = parse(query.get("what", ""))
        disposed = await self._purging.here(wanted, anew=query.get("portion", "0") == "0")
        body = json.dumps(answer(disposed)).encode()
        signature = [("x-signature", self._secret.sign_answer(nonce, body))]
        await send_json(send, "GET", body, signature, "application/json")

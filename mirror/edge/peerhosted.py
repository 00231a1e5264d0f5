"""``GET`` under ``/peer/v1/hosted/``: what replicas tell and ask one another about hosted content. A `Room`."""

from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from mirror.cluster.secret import Secret
from mirror.replication import Replication


class HostedRoom:
    """A `Room`, to stand in `PeerApp` under the name ``hosted``."""

    def __init__(self, replication: Replication, secret: Secret) -> None:
        self._replication = replication
        self._secret = secret

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """As `Room.answer`."""
        raise NotImplementedError

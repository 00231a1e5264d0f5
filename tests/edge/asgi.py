"""An ASGI application, asked without a server: what it sends, message by message."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Sent:
    """The messages of one answer."""

    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> Mapping[str, str]:
        pairs = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self.messages[0]["headers"]]
        assert len(dict(pairs)) == len(pairs), f"a header came twice: {pairs}"
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def finished(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


async def asked(
    app: ASGIApp, path: str, method: str = "GET", *, query: str = "secret=1", headers: Mapping[str, str] | None = None
) -> Sent:
    """What ``app`` sends for a request."""
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("192.0.2.7", 1),
    }
    sent = Sent()
    await app(scope, nothing_more, sent.send)
    return sent


async def nothing_more() -> Message:
    """What is received after the request."""
    return {"type": "http.disconnect"}


class Fixed:
    """An application that sends some messages, and then raises."""

    def __init__(self, *messages: Message, then: BaseException | None = None) -> None:
        self._messages = messages
        self._then = then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self._messages:
            await send(message)
        if self._then is not None:
            raise self._then

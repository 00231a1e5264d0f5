"""An admin API of operations that tests can see through, asked without a server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.types import Message, Scope

from mirror.config import Settings
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.edge.api.operation import Asked, Call, Operation, Streamed, Told
from mirror.edge.api.results import References, Result, Results, results_of
from mirror.errors import ManifestUnknown, UpstreamTimeout
from mirror.names import Names
from mirror.oci import Reference
from tests.edge.asgi import Sent

SETTINGS = Settings.model_validate(
    {"listen": "127.0.0.1:8080", "names": ["mirror.example:5000", "wasm.mesh"], "upstreams": {"ghcr.io": {}}}
)
HERE = {"host": "127.0.0.1:8080"}
JSON = {**HERE, "content-type": "application/json"}


class Sought(Asked):
    """A query."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    pinned: bool | None = None
    sort: Annotated[str, Field(pattern="^(size|hits)$")] = "size"
    reference: list[str] = Field(default_factory=list)
    as_: str | None = Field(None, alias="as")


class Wanted(Asked):
    """A body."""

    references: Annotated[list[str], Field(min_length=1, max_length=3)]
    pin: bool = False
    parallel: Annotated[int, Field(ge=1, le=64)] = 8


class Echo(Told):
    """What was asked."""

    path: dict[str, str]
    who: str
    query: dict[str, Any] | None
    body: dict[str, Any] | None


class Stand:
    """An `Admin` with an operation of each kind; remembers the calls."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.calls: list[Call] = []
        self.taken = b""
        self.told: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False
        self.stops = False
        self.admin = Admin(Guard(settings), list(self._operations()), Names(settings), lambda: self.stops)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        *,
        query: str = "",
        headers: Mapping[str, str] = HERE,
        stays: bool = False,
    ) -> Sent:
        """What is sent for a request; ``stays``: the client waits for the answer's end, however long that takes."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        fields = {**headers, **({"content-length": str(len(pieces[0]))} if len(pieces) == 1 and pieces[0] else {})}
        if len(pieces) > 1:
            fields["transfer-encoding"] = "chunked"
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": f"/api/v1/{path}",
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
            "client": ("127.0.0.1", 40000),
        }
        messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]

        async def receive() -> Message:
            if messages:
                return messages.pop(0)
            if stays:
                await asyncio.get_running_loop().create_future()
            return {"type": "http.disconnect"}

        sent = Sent()
        await self.admin(scope, receive, sent.send)
        return sent

    def _operations(self) -> Iterable[Operation]:
        echo = self._echo
        yield Operation(method="GET", path="things", summary="List them", answer=Echo, handler=echo, query=Sought)
        yield Operation(method="POST", path="things", summary="Add", answer=Echo, handler=echo, body=Wanted, status=202)
        yield Operation(method="GET", path="things/{thing}", summary="Show one", answer=Echo, handler=echo)
        yield Operation(method="DELETE", path="things/{thing}", summary="Drop one", answer=Echo, handler=echo)
        yield Operation(method="GET", path="things/special", summary="Show it", answer=Echo, handler=echo)
        yield Operation(method="DELETE", path="by/{reference:path}", summary="Drop", answer=Echo, handler=echo)
        yield Operation(method="POST", path="chore", summary="Do it", answer=Echo, handler=echo)
        yield Operation(
            method="POST", path="each", summary="Do it to each", answer=Results, handler=self._each, body=References
        )
        yield Operation(method="GET", path="broken", summary="Break", answer=Echo, handler=_break)
        yield Operation(method="POST", path="wait", summary="Wait", answer=Echo, handler=self._wait)
        yield Operation(
            method="POST", path="raw", summary="Take", answer=Echo, handler=self._take, takes="application/x-tar"
        )
        yield Operation(
            method="GET",
            path="events",
            summary="Tell",
            answer=None,
            gives="text/event-stream",
            handler=lambda call: self._stream("text/event-stream"),
        )
        yield Operation(
            method="GET",
            path="archive",
            summary="Give",
            answer=None,
            gives="application/x-tar",
            handler=lambda call: self._stream("application/x-tar"),
        )

    async def _echo(self, call: Call) -> Echo:
        self.calls.append(call)
        if call.scope["method"] != "GET":
            call.note("it was a test")
        if call.path.get("thing") == "absent":
            raise ManifestUnknown("there is no such thing")
        call.headers.append(("location", "/api/v1/things/1"))
        query, body = (None if model is None else model.model_dump() for model in (call.query, call.body))
        return Echo(path=dict(call.path), who=call.who, query=query, body=body)

    async def _wait(self, call: Call) -> Echo:
        self.calls.append(call)
        await asyncio.get_running_loop().create_future()
        return await self._echo(call)

    async def _each(self, call: Call) -> Results:
        async def act(text: str, reference: Reference) -> Result:
            if reference.tag == "slow":
                raise UpstreamTimeout("it takes too long")
            return Result(reference=text, result="done", digest=str(reference))

        return await results_of(call.body.references, call.reference, act)

    async def _take(self, call: Call) -> Echo:
        async for piece in call.stream():
            self.taken += piece
        return await self._echo(call)

    async def _stream(self, media_type: str) -> Streamed:
        async def content() -> AsyncIterator[bytes]:
            try:
                while (piece := await self.told.get()) is not None:
                    if isinstance(piece, Exception):
                        raise piece
                    yield piece
            finally:
                self.closed = True

        return Streamed(content(), media_type, [("x-more", "1")])


async def _break(call: Call) -> Echo:
    raise RuntimeError("a secret of the mirror's own")


def fault(sent: Sent) -> dict[str, Any]:
    """The one error of an answer."""
    (error,) = json.loads(sent.body)["errors"]
    found: dict[str, Any] = error
    return found

"""The application for the addresses under ``/api/v1/``: it finds the operation, has it carried out, and answers."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from mirror.config.values import shown
from mirror.edge.api.asked import body_of, query_of
from mirror.edge.api.guard import CHALLENGE, Guard
from mirror.edge.api.openapi import described
from mirror.edge.api.operation import JSON, ROOT, Call, Operation, Streamed
from mirror.edge.headers import encode
from mirror.edge.respond import Cut, challenging, send_error
from mirror.errors import MirrorError, NotFound, Unauthorized, Unsupported, UpstreamUnavailable
from mirror.names import Names
from mirror.publish import BodyCut

log = logging.getLogger(__name__)

_HEADERS = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))
_LOOK_EVERY = 0.25  # seconds; whether the mirror is about to stop, while an answer streams
_EVENTS = "text/event-stream"


class Admin:
    """An ASGI application for `ROOT`. ``draining`` tells whether the mirror is about to stop: events end then."""

    def __init__(
        self,
        guard: Guard,
        operations: Sequence[Operation],
        names: Names,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._guard = guard
        self._names = names
        self._draining = draining
        self.operations = (*operations, described(operations))
        # What is written out comes before what a parameter might mean.
        ordered = sorted(self.operations, key=lambda one: len(one.parameters))
        self._routes = [(one.pattern(), one) for one in ordered]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        guarded = _Guarded(send)
        try:
            await self._answer(scope, receive, guarded)
        except asyncio.CancelledError:  # the time to finish is over
            if guarded.begun:
                raise
            await send_error(guarded, scope["method"], UpstreamUnavailable("the mirror is stopping; ask again"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        try:
            who = await self._guard.check(scope)
            operation, path = self._operation(method, scope["path"].removeprefix(ROOT))
        except Unauthorized as error:
            await send_error(challenging(send, CHALLENGE), method, error)
            return
        except MirrorError as error:
            await send_error(send, method, error)
            return
        call = Call(scope, receive, self._names, path, who)
        if operation.changes:
            send = _noted(send, call)
        try:
            await self._carry_out(operation, call, receive, send)
        except BodyCut as cut:
            raise Cut from cut
        except MirrorError as error:
            await send_error(send, method, error)

    async def _carry_out(self, operation: Operation, call: Call, receive: Receive, send: Send) -> None:
        """Answer. Raises `MirrorError` only while the status line has not been sent."""
        call.query = query_of(operation, call.scope)
        call.body = await body_of(operation, call.scope, receive)
        try:
            answer = await operation.handler(call)
        except (MirrorError, BodyCut):
            raise
        except Exception as error:
            log.exception("%s %s failed", operation.method, operation.path)
            raise MirrorError("the mirror failed; its log says why") from error
        if isinstance(answer, Streamed):
            await self._stream(call.scope, receive, send, answer)
        else:
            await _send_model(send, call.scope["method"], answer, operation.status, call.headers)

    def _operation(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        """The operation, and the parameters of its path. Raises `NotFound` and `Unsupported`."""
        found = [(one, match.groupdict()) for pattern, one in self._routes if (match := pattern.fullmatch(path))]
        if not found:
            here = ", ".join(sorted({f"{ROOT}{one.template}" for one in self.operations}))
            raise NotFound(f"there is nothing at this address; there is {here}")
        template = found[0][0].template
        same = [(one, parameters) for one, parameters in found if one.template == template]
        wanted = "GET" if method == "HEAD" else method
        for one, parameters in same:
            if one.method == wanted:
                return one, parameters
        allow = [name for one, _ in same for name in (("GET", "HEAD") if one.method == "GET" else (one.method,))]
        raise Unsupported(f"{ROOT}{template} takes {', '.join(allow)}", allow=tuple(allow))

    async def _stream(self, scope: Scope, receive: Receive, send: Send, answer: Streamed) -> None:
        """Send it as it comes, until it ends, the client leaves, or the mirror is about to stop."""
        headers = encode([("content-type", answer.media_type), *answer.headers])
        content = answer.content
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            ends = [asyncio.ensure_future(_gone(receive))]
            if answer.media_type == _EVENTS:
                ends.append(asyncio.ensure_future(self._stopping()))
            pouring = asyncio.ensure_future(_pour(send, answer))
            try:
                await asyncio.wait((pouring, *ends), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (pouring, *ends):
                    if not task.done():
                        task.cancel()
                await asyncio.gather(pouring, *ends, return_exceptions=True)
            if not pouring.cancelled():
                pouring.result()
            elif self._draining():
                await send({"type": "http.response.body"})
        finally:
            if (close := getattr(content, "aclose", None)) is not None:
                with contextlib.suppress(MirrorError, OSError):
                    await close()

    async def _stopping(self) -> None:
        while not self._draining():  # noqa: ASYNC110 - the server says it to who asks, and calls nobody
            await asyncio.sleep(_LOOK_EVERY)


async def _pour(send: Send, answer: Streamed) -> None:
    try:
        async for data in answer.content:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.sleep(0)  # to a client that has left, uvicorn "sends" without a pause
    except (MirrorError, OSError) as error:
        log.warning("an answer of the admin API was cut: %s", error)
        raise Cut from error
    await send({"type": "http.response.body"})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_model(
    send: Send, method: str, answer: BaseModel, status: int, extra: Sequence[tuple[str, str]]
) -> None:
    body = await asyncio.to_thread(lambda: answer.model_dump_json(by_alias=True).encode())
    headers = encode([("content-type", JSON), ("content-length", str(len(body))), *extra])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


class _Guarded:
    """``send`` with what every answer of the admin API carries: nothing keeps it, and nothing guesses what it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own = {name for name, _ in message["headers"]}
            more = [(name, value) for name, value in encode(_HEADERS) if name not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await self._send(message)


def _noted(send: Send, call: Call) -> Send:
    """``send`` that logs the change and what became of it."""

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            words = "".join(f"; {note}" for note in call.notes)
            method, path = call.scope["method"], shown(call.scope["path"])
            log.info("%s %s by %s: %d%s", method, path, call.who, message["status"], words)
        await send(message)

    return noted

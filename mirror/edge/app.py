"""The ASGI application: what answers which address, the addresses for machines, and errors that tell no secrets."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.edge.account import settle
from mirror.edge.respond import Cut, send_error
from mirror.errors import MirrorError, NotFound, UpstreamUnavailable
from mirror.metrics import Metrics

log = logging.getLogger(__name__)
access = logging.getLogger("mirror.access")

_FRONT = "/"


@dataclass(frozen=True, slots=True)
class Beside:
    """The applications of a port of their own, and what tells whether a request came in there."""

    rooms: Mapping[str, ASGIApp]
    takes: Callable[[Scope], bool]


class App:
    """What the server runs.

    ``rooms`` are the applications, each under the beginning of the paths that it answers; the first that fits is
    asked. The one under ``/`` answers that path alone. Those of ``beside`` are asked in place of these at another port.
    ``draining`` tells whether the mirror is about to stop, ``begun`` whether it knows what it has to know before it is
    asked. Each request is counted in ``metrics``.
    """

    def __init__(
        self,
        rooms: Mapping[str, ASGIApp],
        draining: Callable[[], bool],
        *,
        log_access: bool,
        metrics: Metrics | None = None,
        begun: Callable[[], bool] = lambda: True,
        beside: Beside | None = None,
    ) -> None:
        self._begun = begun
        self._rooms, self._front = _arranged(rooms)
        self._beside = beside
        self._rooms_beside, self._front_beside = _arranged({} if beside is None else beside.rooms)
        self._draining = draining
        self._metrics = metrics or Metrics()
        self._log_access = log_access
        self._machines: ASGIApp = Starlette(
            routes=[Route("/healthz", self._alive), Route("/readyz", self._ready)],
            exception_handlers={404: self._nothing_here, 405: self._nothing_here},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if self._log_access:
            send = _logged(scope, send)
        if self._draining():
            send = _closing(send)
        began = time.perf_counter()
        status = sent = 0
        finished = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            elif body := message.get("body"):
                sent += len(body)
            return send(message)

        try:
            await self._room(scope)(scope, receive, watched)
            finished = True
        except Cut:
            # To return with the body unfinished is how the server is told to cut the connection.
            return
        except asyncio.CancelledError:  # the time to finish is over
            if not status:
                await send_error(watched, scope["method"], UpstreamUnavailable("the mirror is stopping; ask again"))
                finished = True
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await send_error(watched, scope["method"], MirrorError("the mirror failed; its log says why"))
                finished = True
        finally:
            settle(self._metrics, scope, began, status, sent, finished)

    def _room(self, scope: Scope) -> ASGIApp:
        path = scope["path"]
        is_beside = self._beside is not None and self._beside.takes(scope)
        for beginning, room in self._rooms_beside if is_beside else self._rooms:
            if path.startswith(beginning):
                return room
        front = self._front_beside if is_beside else self._front
        return front if front is not None and path == _FRONT else self._machines

    async def _alive(self, request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, request: Request) -> Response:
        if self._draining():
            return PlainTextResponse("stopping\n", 503)
        if not self._begun():
            return PlainTextResponse("beginning\n", 503)
        return PlainTextResponse("ready\n")

    async def _nothing_here(self, request: Request, error: Exception) -> Response:
        if self._beside is not None and self._beside.takes(request.scope):
            there = (
                "the dashboard is at /, the admin API is under /api/v1/, metrics are at /metrics; the registry has "
                "another port"
            )
        else:
            apart = self._beside is not None
            other = "the dashboard, the admin API and /metrics have another port" if apart else "the dashboard is at /"
            there = f"the registry is under /v2/, modules are under /modules/; {other}"
        nothing = NotFound(f"there is nothing at this address; {there}")
        return JSONResponse({"errors": [{"code": nothing.code, "message": nothing.message}]}, 404)


def _arranged(rooms: Mapping[str, ASGIApp]) -> tuple[tuple[tuple[str, ASGIApp], ...], ASGIApp | None]:
    """The rooms that are found by how a path begins; and the one under `_FRONT`, if there is one."""
    return tuple((beginning, room) for beginning, room in rooms.items() if beginning != _FRONT), rooms.get(_FRONT)


def _closing(send: Send) -> Send:
    """While the mirror drains, every answer asks its client to connect anew, elsewhere."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing


def _logged(scope: Scope, send: Send) -> Send:
    began = time.monotonic()

    async def logged(message: Message) -> None:
        if message["type"] == "http.response.start":
            client = scope["client"][0] if scope.get("client") else "-"
            seconds = time.monotonic() - began
            access.info(
                "%s %s %s %d %.3f s",
                client,
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                message["status"],
                seconds,
            )
        await send(message)

    return logged

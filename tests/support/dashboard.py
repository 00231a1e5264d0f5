"""A mirror that is nothing but its dashboard: the real page, and an admin API that answers what a test has made up.

For what a real mirror does not bring about in a second: ten thousand modules, hostile names, a broken disk, an hour's
history. Its answers are the models of the admin API, so that they have the shapes of the real ones.

::

    with Pretended() as mirror:
        mirror.modules = [module("ghcr.io/team/plugin:1")]
        …                                  # a browser at mirror.url
        mirror.tell("overview", overview(draining=True))
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from mirror.digest import Digest
from mirror.edge.api.askers import AskersTold
from mirror.edge.api.described import Described
from mirror.edge.api.events import ModulesMoved
from mirror.edge.api.fills import AllFills
from mirror.edge.api.modules import ModulesTold, ModuleTold
from mirror.edge.api.overview import HistoryTold, Overview
from mirror.edge.api.pins import PinsTold
from mirror.edge.api.prewarm import JobList
from mirror.edge.api.replicas import Replicas
from mirror.edge.api.upstreams import Endpoint, OneUpstream, Upstreams
from mirror.edge.dashboard.app import DashboardApp
from tests.support.ports import bound_socket
from tests.support.waiting import wait_until

_LOOK_EVERY = 0.01  # seconds


class Pretended:
    """Serves at ``url`` from the start of the ``with`` statement to its end; may be changed at any time."""

    def __init__(self) -> None:
        self.modules: Sequence[ModuleTold] = ()
        self.described: Mapping[str, Described] = {}
        self.askers = AskersTold(askers=[], total=0)
        self.pins = PinsTold(pins=[])
        self.history = HistoryTold(step=30, points=[])
        self.requests: list[str] = []
        """``GET /api/v1/modules?limit=100``"""
        self.taken = True
        """Whether connections for events are taken: else the answer is 503."""
        self._told: dict[str, BaseModel] = {
            "overview": overview(),
            "upstreams": Upstreams(upstreams=[upstream("ghcr.io")]),
            "fills": AllFills(fills=[], total=0),
            "replicas": Replicas(own=None, others=[]),
            "prewarm": JobList(jobs=[]),
        }
        self._news: list[tuple[str, BaseModel]] = []
        self._cuts = 0
        app = Starlette(
            routes=[
                Route("/api/v1/events", self._events),
                Route("/api/v1/modules", self._listed),
                Route("/api/v1/modules/{reference:path}", self._described),
                Route("/api/v1/{name}", self._answered),
                Mount("/", DashboardApp()),
            ]
        )
        self._socket = bound_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="pretended", daemon=True
        )

    def tell(self, kind: str, model: BaseModel) -> None:
        """Let this be so from now on, and tell the open pages."""
        if kind in self._told:
            self._told[kind] = model
        self._news.append((kind, model))

    def moved(self) -> None:
        """Tell the open pages that the list of modules is worth fetching anew."""
        self.tell("modules", ModulesMoved(changed=len(self._news)))

    def cut(self) -> None:
        """Cut the connections for events."""
        self._cuts += 1

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started, what="the server serves")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cuts += 1
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _events(self, request: Request) -> Response:
        self._note(request)
        if not self.taken:
            return JSONResponse({"errors": [{"code": "UPSTREAM_UNAVAILABLE", "message": "not now"}]}, 503)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        told, cuts = len(self._news), self._cuts
        for kind, model in self._told.items():
            yield _event(kind, model)
        while cuts == self._cuts:
            while told < len(self._news):
                yield _event(*self._news[told])
                told += 1
            await asyncio.sleep(_LOOK_EVERY)

    async def _listed(self, request: Request) -> Response:
        self._note(request)
        asked = request.query_params
        rows = [one for one in self.modules if _wanted(one, asked)]
        limit, first = int(asked["limit"]), int(asked.get("after", 0))
        after = str(first + limit) if first + limit < len(rows) else None
        return _json(ModulesTold(modules=rows[first : first + limit], next=after, total=len(rows)))

    async def _described(self, request: Request) -> Response:
        self._note(request)
        found = self.described.get(request.path_params["reference"])
        if found is None:
            return JSONResponse({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "it is not here"}]}, 404)
        return _json(found)

    async def _answered(self, request: Request) -> Response:
        self._note(request)
        own = {"history": self.history, "askers": self.askers, "pins": self.pins}
        return _json({**self._told, **own}[request.path_params["name"]])

    def _note(self, request: Request) -> None:
        query = f"?{request.url.query}" if request.url.query else ""
        self.requests.append(f"{request.method} {request.url.path}{query}")


def overview(**changes: Any) -> Overview:
    """That of a mirror of which all is well; ``changes`` are laid over it."""
    now = time.time()
    disk = {
        "bytes": 3 << 30,
        "blobs": 420,
        "limit": 20 << 30,
        "free": 60 << 30,
        "pinned": 1 << 30,
        "hosted": 200 << 20,
        "problem": None,
    }
    own: dict[str, object] = {
        "version": "0.1.0",
        "own": None,
        "began_at": now - 4000,
        "now": now,
        "workers": 1,
        "listen": "127.0.0.1:8080",
        "admin_listen": None,
        "names": [],
        "metadata": {"store": "sqlite", "up": True},
        "lookups": {"hit": 990, "stale": 0, "collapsed": 4, "miss": 6, "negative": 0},
        "last_hour": {
            "hits": 994,
            "lookups": 1000,
            "ratio": 0.994,
            "sent_bytes": 40 << 30,
            "upstream_bytes": 96 << 20,
        },
        "fills": 0,
        "waiters": 0,
        "draining": False,
    }
    return Overview.model_validate({**own, **changes, "disk": {**disk, **changes.get("disk", {})}})


def upstream(name: str, **changes: Any) -> OneUpstream:
    """One that answers; ``changes`` are laid over it, and over its only endpoint those that it has, too."""
    own = {
        "host": name,
        "healthy": True,
        "breaker": "closed",
        "opens_for": 0,
        "rests_for": 0,
        "cools_for": 0,
        "rate_limit": None,
        "last_error": None,
        "last_error_at": None,
        "requests": 240,
        "failures": 0,
    }
    endpoint = {key: changes.get(key, value) for key, value in own.items()}
    rest = {
        "name": name,
        "offline": False,
        "push": "deny",
        "allow": ["**"],
        "reachable": True,
        "requests": endpoint["requests"],
        "failures": endpoint["failures"],
        "mean_seconds": 0.084,
        "bytes": 96 << 20,
        "endpoints": [Endpoint.model_validate(endpoint)],
    }
    return OneUpstream.model_validate({**rest, **{key: value for key, value in changes.items() if key in rest}})


def module(reference: str, **changes: Any) -> ModuleTold:
    """A tag of a plugin that agents take; ``changes`` are laid over it."""
    name, _, tag = reference.rpartition(":")
    registry, _, repository = name.partition("/")
    own = {
        "reference": reference,
        "upstream": registry,
        "repository": repository,
        "tag": tag,
        "digest": str(Digest.of(reference.encode())),
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size": 1 << 20,
        "complete": True,
        "hits": 12,
        "used_at": time.time() - 200,
        "fetched_at": time.time() - 8,
        "fresh": True,
        "pinned": False,
        "layout": "oci raw",
        "abi": ["0.2.1"],
        "verdict": "accepted",
        "why": None,
    }
    return ModuleTold.model_validate({**own, **changes})


def described(text: str) -> Described:
    """An artifact of which all that its author may choose is ``text``, and which nobody takes."""
    item = {"name": text, "kind": "function", "signature": "i32 -> i32"}
    refused = {"accepted": False, "reason": text, "remedy": text}
    told = {
        "sha256": "0" * 64,
        "layer": 0,
        "file": text,
        "size": 4000,
        "version": 1,
        "kind": "core",
        "abi": ["0.2.1"],
        "name": text,
        "imports": {text: [item]},
        "lacking": {text: [item]},
        "exports": [item],
        "memories": [{"minimum": 2, "maximum": None, "imported": False, "memory64": False, "shared": False}],
        "sections": [],
        "producers": [{"role": "language", "name": text, "version": text}],
        "left_out": 3,
    }
    return Described.model_validate(
        {
            "layout": text,
            "digest": str(Digest.of(text.encode())),
            "media_type": text,
            "index": None,
            "module": told,
            "problem": None,
            "accepted": False,
            "accepted_by": dict.fromkeys(("agents", "envoy_gateway", "envoy"), refused),
            "warnings": [text],
            "complete": False,
            "found": [{"layer": 0, "name": text, "size": 4000, "wasm": True}],
        }
    )


def _wanted(one: ModuleTold, asked: Mapping[str, str]) -> bool:
    return (
        asked.get("search", "").lower() in one.reference.lower()
        and asked.get("verdict", one.verdict) == one.verdict
        and asked.get("upstream", one.upstream) == one.upstream
        and asked.get("repository", one.repository) == one.repository
        and (asked.get("pinned") != "true" or one.pinned)
    )


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _event(kind: str, model: BaseModel) -> str:
    return f"event: {kind}\ndata: {model.model_dump_json()}\n\n"

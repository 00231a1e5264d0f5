"""``/v2``: from a scope to an answer; pushes are handed over. Source: OCI distribution specification 1.1.

This is the path of every pull, so it is one function from the scope on, in front of any router. The path is taken from
``scope["path"]``, which nothing but the request line decides (CVE-2026-48710).
"""

import json
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.types import Receive, Scope, Send

from mirror.edge.account import LOOKUP, OPERATION, UPSTREAM, Given, of_failure
from mirror.edge.auth import Gate, send_refusal
from mirror.edge.headers import always, cache_status
from mirror.edge.push import Pushes, takes
from mirror.edge.respond import header, query, send_answer, send_json
from mirror.errors import MirrorError, PaginationInvalid, UpstreamDenied
from mirror.hosting import Listings
from mirror.listing import Page
from mirror.names import Names, Place
from mirror.oci import OCI_INDEX, Reference, RegistryPath, Resource, parse_path
from mirror.pull import Pulling

_MAX_POSITION = 2048


class Registry:
    """An ASGI application for the addresses under ``/v2``."""

    def __init__(
        self, names: Names, pull: Pulling, listing: Listings, gate: Gate, pushes: Pushes, given: Given
    ) -> None:
        """``given`` is told of each manifest that a client is given."""
        self._names = names
        self._pull = pull
        self._listing = listing
        self._gate = gate
        self._pushes = pushes
        self._given = given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `Cut` when a body that has begun cannot be finished."""
        namespace = None
        try:
            asked = query(scope)
            path = parse_path(scope["path"])
            scope[OPERATION] = path.resource.value
            if takes(scope["method"], path):
                await self._push(scope, receive, send, path, asked)
                return
            if path.resource is Resource.BASE:
                await self._gate.greet(
                    scope, self._names.upstream(ns=asked.get("ns"), host=header(scope, b"host") or "")
                )
                await send_json(send, scope["method"], {}, always(None), "application/json")
                return
            principal = await self._gate.reader(scope)
            place = self._names.place(path.name, ns=asked.get("ns"), host=header(scope, b"host") or "")
            scope[UPSTREAM] = place.upstream
            namespace = place.upstream if place.by_namespace else None
            passage = await self._gate.pull(scope, principal, place, path.resource, path.tag, path.digest)
            if passage is None:
                await self._answer(scope, receive, send, path, place, asked, principal)
            else:
                await passage.through(
                    lambda send: self._answer(scope, receive, send, path, place, asked, principal), send
                )
        except MirrorError as error:
            scope[LOOKUP] = of_failure(error)
            await send_refusal(send, scope["method"], error, namespace)

    async def _push(
        self, scope: Scope, receive: Receive, send: Send, path: RegistryPath, asked: Mapping[str, str]
    ) -> None:
        try:
            await self._pushes.answer(scope, receive, send, path, asked)
        except UpstreamDenied as denied:
            raise self._gate.refused(denied) from denied

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: RegistryPath,
        place: Place,
        asked: Mapping[str, str],
        principal: str,
    ) -> None:
        """Answer a request that may be answered."""
        namespace = place.upstream if place.by_namespace else None
        match path.resource:
            case Resource.MANIFEST:
                reference = Reference(place.upstream, place.repository, path.tag, path.digest)
                answer, now = await self._pull.manifest(reference), time.time()
                self._given(answer.digest, scope, principal, now)
                await send_answer(scope, receive, send, answer, now=now, namespace=namespace, ranged=False)
            case Resource.BLOB:
                reference = Reference(place.upstream, place.repository, digest=path.digest)
                answer = await self._pull.blob(reference, read=scope["method"] == "GET")
                await send_answer(scope, receive, send, answer, now=time.time(), namespace=namespace, ranged=True)
            case Resource.TAGS:
                await self._tags(scope, send, path, place, asked, namespace)
            case Resource.REFERRERS:
                await self._referrers(scope, send, path, place, asked, namespace)

    async def _tags(
        self,
        scope: Scope,
        send: Send,
        path: RegistryPath,
        place: Place,
        asked: Mapping[str, str],
        namespace: str | None,
    ) -> None:
        n = _number(asked.get("n"))
        page = await self._listing.tags(place, n=n, last=_position(asked.get("last")))
        extra = _paged(path, page, asked, namespace, ("last", "n"))
        body = {"name": path.name, "tags": json.loads(page.body)}
        await send_json(send, scope["method"], body, extra, "application/json")

    async def _referrers(
        self,
        scope: Scope,
        send: Send,
        path: RegistryPath,
        place: Place,
        asked: Mapping[str, str],
        namespace: str | None,
    ) -> None:
        assert path.digest is not None
        page = await self._listing.referrers(
            place, path.digest, artifact_type=asked.get("artifactType"), page=asked.get("page")
        )
        extra = _paged(path, page, asked, namespace, ("page",))
        if filters := page.headers.get("filters"):
            extra.append(("oci-filters-applied", filters))
        await send_json(send, scope["method"], page.body, extra, OCI_INDEX)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise PaginationInvalid("n must be a whole number, 0 or more")
    return int(text.lstrip("0")[:18] or "0")


def _position(text: str | None) -> str | None:
    """A ``last``: a tag, or whatever else an upstream wrote into its ``Link`` (Amazon's registries do)."""
    if not text:
        return None
    if len(text) > _MAX_POSITION or not text.isascii() or not text.isprintable() or " " in text:
        raise PaginationInvalid("last must be a tag, or come from the Link of the page before")
    return text


def _paged(
    path: RegistryPath, page: Page, asked: Mapping[str, str], namespace: str | None, names: tuple[str, ...]
) -> list[tuple[str, str]]:
    """The headers of a page, with a ``Link`` to the next one at this mirror."""
    headers = [("cache-status", cache_status(page.outcome)), *always(namespace)]
    following = {name: value for name in names if (value := page.headers.get(name))}
    if following:
        kept = {name: asked[name] for name in ("artifactType", "ns") if name in asked}
        tail = f"referrers/{path.digest}" if path.resource is Resource.REFERRERS else "tags/list"
        headers.append(("link", f'</v2/{path.name}/{tail}?{urlencode({**following, **kept})}>; rel="next"'))
    return headers

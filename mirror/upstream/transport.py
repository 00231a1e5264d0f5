"""Requests on the wire: two pools of HTTP/1.1 connections, and the one place where foreign errors become ours.

The httpx client is left out on purpose, its transport is the level that we want: no cookies, no ``.netrc``, no
credentials out of URLs, no redirects that nobody judged, no decoding of bodies.
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import cast

import httpcore
import httpx

from mirror.errors import UpstreamCutShort, UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.upstream.dial import Dialler, NotPublic, Resolver, resolve
from mirror.upstream.origins import host_of

_CONNECT_WITHIN = 5.0
_IDLE_FOR = 10.0
_KEEP_ALIVE = 30.0
_MAX_CONNECTIONS = 256
_MAX_IDLE = 32


class Transport:
    """Sends requests and gives responses whose body is still to come.

    ``trusted`` hosts stand in the settings; all others are dialled under guard (see `mirror.upstream.dial`), in a pool
    of their own, so that no connection is ever shared between the two. ``connect_within`` (for DNS and TCP, and again
    for TLS) and ``idle_for`` (between two bytes) are seconds.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver = resolve,
        connect_within: float = _CONNECT_WITHIN,
        idle_for: float = _IDLE_FOR,
    ) -> None:
        # At DEBUG it logs the header of each response: signed addresses of storage, which open it to who reads them.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        self._tls = tls or _default_tls()
        self._resolver = resolver
        self._timeouts = {"connect": connect_within, "read": idle_for, "write": idle_for, "pool": idle_for}
        self._pools: dict[bool, httpcore.AsyncConnectionPool] = {}

    async def send(self, request: httpx.Request, *, trusted: bool, endpoint: str) -> httpx.Response:
        """Send ``request`` and wait for the response's header. The caller closes the response.

        A request that fails because a kept-alive connection turned out dead is sent once more, at once.
        Raises `UpstreamUnavailable`, `UpstreamTimeout`, or `UpstreamInvalid` when a guarded host is not public;
        ``endpoint`` is whom these blame when another host fails.
        """
        pool = self._pool(trusted)
        attempt = _Attempt(request, self._timeouts)
        try:
            try:
                response = await pool.handle_async_request(attempt.request)
            except (httpcore.RemoteProtocolError, httpcore.ReadError):
                if attempt.dialled:
                    raise
                response = await pool.handle_async_request(_Attempt(request, self._timeouts).request)
        except _FOREIGN as error:
            raise translated(error, request.url, endpoint) from error
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response, request.url, endpoint), request=request
        )

    def _pool(self, trusted: bool) -> httpcore.AsyncConnectionPool:
        pool = self._pools.get(trusted)
        if pool is None:
            pool = self._pools[trusted] = httpcore.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=_MAX_IDLE,
                keepalive_expiry=_KEEP_ALIVE,
                network_backend=Dialler(guarded=not trusted, resolver=self._resolver),
            )
        return pool

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()


@cache
def _default_tls() -> ssl.SSLContext:
    """Trust in the usual authorities, or those of ``SSL_CERT_FILE``; shared, for reading them takes 40 ms."""
    return httpx.create_ssl_context()


class _Attempt:
    """A request as httpcore wants it; ``dialled`` says whether a new connection was made for it."""

    def __init__(self, request: httpx.Request, timeouts: Mapping[str, float]) -> None:
        self.dialled = False
        self.request = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.content,
            extensions={"timeout": timeouts, "trace": self._trace},
        )

    async def _trace(self, event: str, _: object) -> None:
        if event == "connection.connect_tcp.started":
            self.dialled = True


class _Body(httpx.AsyncByteStream):
    """A response's body as it comes, raw."""

    def __init__(self, response: httpcore.Response, url: httpx.URL, endpoint: str) -> None:
        self._response = response
        self._url = url
        self._endpoint = endpoint

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        try:
            async for chunk in cast(AsyncIterator[bytes], self._response.stream):
                received += len(chunk)
                yield chunk
        except _FOREIGN as error:
            failure = translated(error, self._url, self._endpoint)
            if isinstance(failure, UpstreamUnavailable):
                failure = UpstreamCutShort(failure.message, received=received, detail=failure.detail)
            raise failure from error

    async def aclose(self) -> None:
        await self._response.aclose()


_FOREIGN = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


def translated(error: Exception, url: httpx.URL, endpoint: str) -> UpstreamError:
    """Our error for httpcore's. Names the host, never the path or the query: these may hold a secret."""
    host = host_of(url)
    where = host if host == endpoint else f"{host}, to which {endpoint} sends us,"
    detail = {"endpoint": endpoint} if host == endpoint else {"endpoint": endpoint, "host": host}
    match error:
        case NotPublic():
            return UpstreamInvalid(
                f"{endpoint} sends us to {host}, which is not an address of the public internet; where that is right, "
                "name it in that endpoint's auth_hosts (token services) or redirect_hosts (storage)",
                detail=detail,
            )
        case httpcore.PoolTimeout():
            return UpstreamTimeout(f"too many connections are busy, none is left to ask {host}", detail=detail)
        case httpcore.TimeoutException():  # in the words of our own stream and dialler
            return UpstreamTimeout(f"{where} {error}", detail=detail)
        case httpcore.ConnectError():
            return UpstreamUnavailable(f"{where} {_why(error.args[0])}", detail=detail)
        case httpcore.NetworkError():
            return UpstreamUnavailable(f"{where} cut the connection", detail=detail)
        case _:
            return UpstreamUnavailable(f"{where} ended its answer too early, or it is not HTTP", detail=detail)


def _why(cause: object) -> str:
    match cause:
        case socket.gaierror():
            return "does not resolve to an address"
        case ConnectionRefusedError():
            return "refuses connections"
        case ConnectionError():
            return "cuts the connection at once"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted: {cause.verify_message}"
        case ssl.SSLError():
            return "does not speak TLS as we do"
        case _:
            return "cannot be reached"

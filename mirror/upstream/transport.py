"""Requests on the wire: pools of HTTP/1.1 connections, and the one place where foreign errors become ours.

The httpx client is left out on purpose, its transport is the level that we want: no cookies, no ``.netrc``, no
credentials out of URLs, no redirects that nobody judged, no decoding of bodies.
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Self, cast

import httpcore
import httpx

from mirror.errors import UpstreamCutShort, UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.upstream.dial import (
    Dialler,
    NotPublic,
    ProxyDialler,
    ProxyFailed,
    Resolver,
    may_be_a_replica,
    refusal,
    resolve,
)
from mirror.upstream.origins import host_of
from mirror.upstream.proxy import Proxies, Proxy
from mirror.upstream.trust import OneTrust, Reach, Trust, usual

_CONNECT_WITHIN = 5.0
_IDLE_FOR = 10.0
_KEEP_ALIVE = 30.0
_MAX_CONNECTIONS = 256
_MAX_IDLE = 32


class Transport:
    """Sends requests and gives responses whose body is still to come.

    Hosts that were only learnt from an answer are dialled under guard (see `mirror.upstream.dial`). There is a pool of
    connections for each `Reach`, so that none is ever lent to a host that may do less. ``connect_within`` (for DNS and
    TCP, and again for TLS) and ``idle_for`` (between two bytes) are seconds.
    """

    def __init__(
        self,
        *,
        trust: Trust | None = None,
        proxies: Proxies | None = None,
        resolver: Resolver = resolve,
        connect_within: float = _CONNECT_WITHIN,
        idle_for: float = _IDLE_FOR,
    ) -> None:
        # At DEBUG it logs the header of each response: signed addresses of storage, which open it to who reads them.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        self._trust = trust or OneTrust(usual())
        self._proxies = proxies or Proxies()
        self._resolver = resolver
        self._timeouts = {"connect": connect_within, "read": idle_for, "write": idle_for, "pool": idle_for}
        self._pools: dict[tuple[Reach, Proxy | None, bool], _Pool] = {}

    def trusting(self, trust: Trust) -> Self:
        """Another one, alike but for its trust."""
        return type(self)(
            trust=trust,
            proxies=self._proxies,
            resolver=self._resolver,
            connect_within=self._timeouts["connect"],
            idle_for=self._timeouts["read"],
        )

    async def send(self, request: httpx.Request, *, reach: Reach, endpoint: str) -> httpx.Response:
        """Send ``request`` and wait for the response's header. The caller closes the response.

        A request that fails because a kept-alive connection turned out dead is sent once more, at once, unless its body
        is a stream. Raises `UpstreamUnavailable`, `UpstreamTimeout`, or `UpstreamInvalid` when a guarded host is not
        public; ``endpoint`` is whom these blame when another host fails.
        """
        proxy = self._proxies.between(request.url)
        with_tls = request.url.scheme == "https"
        pool = self._pool(reach, proxy, with_tls)
        if with_tls:
            pool.tls = await self._trust.context(reach)
        handed_to = None if with_tls else proxy
        attempt = _Attempt(request, self._timeouts, handed_to)
        try:
            try:
                response = await pool.handle_async_request(attempt.request)
            except (httpcore.RemoteProtocolError, httpcore.ReadError):
                if attempt.dialled or not isinstance(attempt.content, bytes):
                    raise
                response = await pool.handle_async_request(_Attempt(request, self._timeouts, handed_to).request)
            if handed_to is not None and response.status == 407:
                await response.aclose()
                raise ProxyFailed(refusal(handed_to, 407))
        except _FOREIGN as error:
            raise translated(error, request.url, endpoint) from error
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response, request.url, endpoint), request=request
        )

    def _pool(self, reach: Reach, proxy: Proxy | None, with_tls: bool) -> "_Pool":
        key = (reach, proxy, with_tls)
        pool = self._pools.get(key)
        if pool is None:
            guarded = reach in (Reach.LEARNT, Reach.REPLICA)
            admits = may_be_a_replica if reach is Reach.REPLICA else None
            pool = self._pools[key] = _Pool(
                Dialler(guarded=guarded, resolver=self._resolver, admits=admits)
                if proxy is None
                else ProxyDialler(proxy, tunnel=with_tls, guarded=guarded, tls=usual(), resolver=self._resolver)
            )
        return pool

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()


class _Pool(httpcore.AsyncConnectionPool):
    """A pool whose ``tls`` may be replaced: connections that are made after that have the new one."""

    def __init__(self, dialler: Dialler | ProxyDialler) -> None:
        super().__init__(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_IDLE)
        self.tls: ssl.SSLContext | None = None
        self._dialler = dialler

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """Called by httpcore for each new connection."""
        return httpcore.AsyncHTTPConnection(
            origin=origin, ssl_context=self.tls, keepalive_expiry=_KEEP_ALIVE, network_backend=self._dialler
        )


class _Attempt:
    """A request as httpcore wants it; ``dialled`` says whether a new connection was made for it.

    What is handed to a proxy names the whole URL (RFC 9112, section 3.2.2), and who we are for the proxy.
    """

    def __init__(self, request: httpx.Request, timeouts: Mapping[str, float], handed_to: Proxy | None) -> None:
        self.dialled = False
        whole = isinstance(request.stream, httpx.ByteStream)
        self.content = request.content if whole else cast(AsyncIterable[bytes], request.stream)
        target, headers = request.url.raw_path, list(request.headers.raw)
        if handed_to is not None:
            target = b"http://" + request.url.netloc + target
            if handed_to.authorization is not None:
                headers.append((b"proxy-authorization", handed_to.authorization.get_secret_value().encode("ascii")))
        self.request = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=target,
            ),
            headers=headers,
            content=self.content,
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
        case NotPublic() if host == endpoint:
            return UpstreamInvalid(
                f"{host} leads to an address that no other replica can have; see its cluster.advertise", detail=detail
            )
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
        case ProxyFailed():
            return UpstreamUnavailable(f"{where} cannot be reached: {error}", detail=detail)
        case httpcore.ConnectError():
            return UpstreamUnavailable(f"{where} {_why(error.args[0])}", detail=detail)
        case httpcore.NetworkError():
            cause = error.args[0] if error.args else None
            why = _why(cause) if isinstance(cause, ssl.SSLError) else "cut the connection"
            return UpstreamUnavailable(f"{where} {why}", detail=detail)
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
        case ssl.SSLCertVerificationError(verify_code=code) if code in _WRONG_NAME:
            return f"has a certificate that is not trusted, for it is another host's: {cause.verify_message}"
        case ssl.SSLCertVerificationError():
            return (
                f"has a certificate that is not trusted: {cause.verify_message}; where its authority is a private one, "
                "name that in the endpoint's ca_file"
            )
        case ssl.SSLError(reason=reason) if any(word in (reason or "") for word in _ABOUT_OUR_CERTIFICATE):
            return f"does not take the client_certificate of the endpoint, or wants one ({reason})"
        case ssl.SSLError():
            return "does not speak TLS as we do"
        case _:
            return "cannot be reached"


_WRONG_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

# Of the alerts (RFC 8446, section 6.2) those that a server sends for what we show it, or do not.
_ABOUT_OUR_CERTIFICATE = (
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_",
    "ALERT_UNKNOWN_CA",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_ACCESS_DENIED",
)

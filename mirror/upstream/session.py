"""Asking one endpoint: proving who we are, following redirects, and never telling a secret to anyone else."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import httpx

from mirror import __version__
from mirror.errors import UpstreamDenied, UpstreamError, UpstreamInvalid, UpstreamTimeout
from mirror.flight import Flights
from mirror.oci import parse_object
from mirror.upstream.answers import failure, length, refuse_disguise
from mirror.upstream.auth import Authenticator, Reply, Send
from mirror.upstream.credentials import LoginSource
from mirror.upstream.origins import host_of, is_named, origin_of
from mirror.upstream.tokens import Login, Token, TokenRequest, read_token
from mirror.upstream.transport import Transport
from mirror.upstream.trust import Reach

MAX_REDIRECTS = 5
_COMMON = {"accept-encoding": "identity", "user-agent": f"wasm-mirror/{__version__}"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_OAUTH = frozenset({404, 405})
_MAX_ERROR = 64 * 1024
_MAX_TOKEN_ANSWER = 1024 * 1024
_TOKEN_WITHIN = 15.0
"""Seconds for a token service's whole answer."""


class Session:
    """A conversation with one endpoint. ``host`` names it in messages; ``clock`` gives seconds."""

    def __init__(
        self,
        url: str,
        *,
        auth_hosts: Iterable[str],
        redirect_hosts: Iterable[str],
        logins: LoginSource,
        setting: str,
        transport: Transport,
        clock: Callable[[], float],
        observe: Callable[[httpx.Response], None] | None = None,
    ) -> None:
        """``observe`` is called with the header of each answer that the endpoint itself has sent."""
        self.url = httpx.URL(url)
        self.host = host_of(self.url)
        self._auth_hosts = tuple(auth_hosts)
        self._redirect_hosts = tuple(redirect_hosts)
        self._logins = logins
        self._transport = transport
        self.clock = clock
        self._observe = observe
        self._auth = Authenticator(self.url, self._auth_hosts, setting, clock)
        self._tokens: Flights[Token] = Flights()

    async def ask(
        self, method: str, path: str, repository: str, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The endpoint's answer to a request about ``repository``, with its body still to come; the caller closes it.

        ``path`` is encoded, and may have a query. Any status may come but a redirect, and 401 and 403 of the endpoint,
        which are raised as `UpstreamDenied`. Raises `UpstreamError`.
        """
        login = await self._logins.login(repository)
        try:
            return await self._ask_as(login, method, path, repository, headers)
        except UpstreamDenied:
            fresh = await self._logins.instead_of(login, repository)
            if fresh is None:
                raise
        self._auth.forget_tokens()
        return await self._ask_as(fresh, method, path, repository, headers)

    async def _ask_as(
        self, login: Login | None, method: str, path: str, repository: str, headers: Mapping[str, str] | None
    ) -> httpx.Response:
        flow = self._auth.flow(repository, login)
        response: httpx.Response | None = None
        try:
            step = next(flow)
            while True:
                if response is not None:
                    await drain(response)
                    response = None
                if isinstance(step, TokenRequest):
                    step = flow.send(await self._token(step))
                    continue
                response = await self._follow(self._request(method, path, headers, step), self._redirect_hosts)
                # A host that a redirect led to has no say in how we prove who we are.
                status = response.status_code if self.sent(response) else 200
                step = flow.send(Reply(status, tuple(response.headers.get_list("www-authenticate"))))
        except StopIteration:
            assert response is not None
            if response.status_code == 403 and self.sent(response):
                await response.aclose()
                raise self._auth.denied(403, login) from None
            return response
        except BaseException:
            if response is not None:
                await response.aclose()
            raise

    def sent(self, response: httpx.Response) -> bool:
        """Whether the endpoint itself sent ``response``, and not a host that it redirected to."""
        return origin_of(response.url) == origin_of(self.url)

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self._tokens.aclose()
        await self._logins.aclose()

    def _request(self, method: str, path: str, headers: Mapping[str, str] | None, step: Send) -> httpx.Request:
        request = httpx.Request(method, self.url.join(path), headers={**_COMMON, **(headers or {})})
        if step.authorization is not None:
            request.headers["authorization"] = step.authorization.get_secret_value()
        return request

    async def _follow(self, request: httpx.Request, named: Iterable[str]) -> httpx.Response:
        """Send a request, and go where its answers redirect to, at most `MAX_REDIRECTS` times.

        ``Authorization`` stays behind when scheme, host or port change (CVE-2020-15157). Hosts that are not ``named``
        in the settings are dialled under guard, each of them.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._transport.send(request, reach=self._reach(request.url, named), endpoint=self.host)
            if self._observe is not None and self.sent(response):
                self._observe(response)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None or request.method not in ("GET", "HEAD"):
                return response
            await drain(response)
            request = self._redirected(request, location)
        raise self._invalid(f"redirects more than {MAX_REDIRECTS} times")

    def _reach(self, url: httpx.URL, named: Iterable[str]) -> Reach:
        if origin_of(url) == origin_of(self.url):
            return Reach.ENDPOINT
        return Reach.NAMED if is_named(url, named) else Reach.LEARNT

    def _redirected(self, request: httpx.Request, location: str) -> httpx.Request:
        try:
            url = request.url.join(location)
        except httpx.InvalidURL as error:
            raise self._invalid("redirects to what is not a URL") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise self._invalid("redirects to what is not an http or https URL")
        if request.url.scheme == "https" and url.scheme == "http":
            raise self._invalid(f"redirects to {host_of(url)} without TLS")
        headers = request.headers.copy()
        del headers["host"]
        if origin_of(url) != origin_of(request.url):
            headers.pop("authorization", None)
        return httpx.Request(request.method, url, headers=headers)

    def _invalid(self, what: str) -> UpstreamInvalid:
        return UpstreamInvalid(f"{self.host} {what}", detail={"endpoint": self.host})

    async def _token(self, wanted: TokenRequest) -> Token:
        """The token, asked for once for all who need it now."""
        task, _ = self._tokens.join((wanted.key, wanted.login), lambda: self._get_token(wanted))
        try:
            return await asyncio.shield(task)
        except UpstreamError:
            self._auth.forget_service()
            raise

    async def _get_token(self, wanted: TokenRequest) -> Token:
        host, what = host_of(httpx.URL(wanted.key.realm)), "a token"
        try:
            async with asyncio.timeout(_TOKEN_WITHIN):
                response = await self._send_for_token(wanted.request())
                if response.request.method == "POST" and response.status_code in _NO_OAUTH:
                    await drain(response)
                    response = await self._send_for_token(wanted.request(without_oauth=True))
                if response.status_code == 200:
                    refuse_disguise(response, host, what)
                    body = await read_body(response, _MAX_TOKEN_ANSWER, host, what)
                    fields = parse_object(body, f"the answer of the token service {host}")
                    return read_token(fields, response.headers.get("date"), self.clock(), host)
                body = await drain(response)
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"the token service {host} did not answer within {_TOKEN_WITHIN:g} s", detail={"endpoint": self.host}
            ) from error
        if response.status_code in (401, 403):
            raise self._auth.refused(wanted, response.status_code)
        raise failure(response, body, f"the token service {host}", what, UpstreamInvalid)

    async def _send_for_token(self, request: httpx.Request) -> httpx.Response:
        request.headers.update(_COMMON)
        return await self._follow(request, self._auth_hosts)


async def read_body(response: httpx.Response, limit: int, host: str, what: str) -> bytes:
    """The whole body, and close the response; raises `UpstreamInvalid` as soon as it is longer than ``limit``."""
    try:
        body = bytearray()
        if (length(response) or 0) <= limit:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > limit:
                    break
            else:
                return bytes(body)
    finally:
        await response.aclose()
    raise UpstreamInvalid(
        f"{host} sends more than the {limit} bytes that {what} may have", detail={"endpoint": host, "limit": limit}
    )


async def drain(response: httpx.Response) -> bytes:
    """The rest of an answer, if it is short, so that its connection can be used again; and close it. Never raises."""
    try:
        size = length(response)
        if response.is_stream_consumed:
            return b""
        if response.request.method == "HEAD" or (size is not None and size <= _MAX_ERROR):
            return b"".join([chunk async for chunk in response.aiter_raw()])
    except UpstreamError:
        pass
    finally:
        await response.aclose()
    return b""

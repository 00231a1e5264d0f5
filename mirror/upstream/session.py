"""Asking one endpoint: proving who we are, following redirects, and never telling a secret to anyone else."""

import asyncio
import copy
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import httpx

from mirror import __version__
from mirror.errors import UpstreamDenied, UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.flight import Flights
from mirror.oci import parse_object
from mirror.tracing import CARRIERS, carried
from mirror.upstream.answers import failure, length, refuse_disguise, words_of
from mirror.upstream.auth import Authenticator, Authenticators, Reply, Send, Whose
from mirror.upstream.credentials import LoginSource, OnlyOne
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

Body = bytes | AsyncIterable[bytes]
"""What a request carries; a stream can be sent only once."""


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
        whose: Whose = Whose.MIRRORS,
    ) -> None:
        """``observe`` is called with the header of each answer that the endpoint itself has sent.

        ``logins`` are the mirror's, or clients', as ``whose`` says.
        """
        self.url = httpx.URL(url)
        self.host = host_of(self.url)
        self._auth_hosts = tuple(auth_hosts)
        self._redirect_hosts = tuple(redirect_hosts)
        self._logins = logins
        self._transport = transport
        self.clock = clock
        self._observe = observe
        self._whose = whose
        self._auths = Authenticators(lambda: Authenticator(self.url, self._auth_hosts, setting, clock))
        self._tokens: Flights[Token] = Flights()

    def of_client(self, login: Login | None, *, on_trial: bool = False) -> Self:
        """The same conversation as a client would have it, with this login; it is closed with this one."""
        theirs = copy.copy(self)
        theirs._logins = OnlyOne(login)
        theirs._whose = Whose.ON_TRIAL if on_trial else Whose.CLIENTS
        return theirs

    async def ask(
        self,
        method: str,
        path: str,
        repository: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: Body = b"",
        scope: str | None = None,
    ) -> httpx.Response:
        """The endpoint's answer to a request about ``repository``, with its body still to come; the caller closes it.

        ``path`` is encoded, and may have a query. Any status may come but 401 and 403 of the endpoint, which are raised
        as `UpstreamDenied`, and a redirect of a GET or HEAD. Raises `UpstreamError`. ``scope`` is for what changes
        something there (see `Authenticator.flow`); a refusal is then told in the endpoint's own words.

        ``path`` may be a URL that the endpoint has named. At another origin it is asked without credentials.
        """
        url = self.url.join(path)
        if origin_of(url) != origin_of(self.url):
            return await self._follow(_request(method, url, headers, body), self._redirect_hosts)
        login = await self._logins.login(repository)
        asked = _Asked(method, url, repository, headers, body, scope)
        while True:
            try:
                return await self._ask_as(login, asked)
            except UpstreamDenied as failure:
                fresh = await self._logins.instead_of(login, repository, failure)
                if fresh is None:
                    raise
                self._auths.forget(login)
                login = fresh

    async def _ask_as(self, login: Login | None, asked: "_Asked") -> httpx.Response:
        auth = self._auths.of(login)
        flow = auth.flow(asked.repository, login, asked.scope, self._whose)
        response: httpx.Response | None = None
        try:
            step = next(flow)
            while True:
                if response is not None:
                    await drain(response)
                    response = None
                if isinstance(step, TokenRequest):
                    step = flow.send(await self._token(step, auth))
                    continue
                response = await self._follow(self._next_request(asked, step), self._redirect_hosts)
                # A host that a redirect led to has no say in how we prove who we are.
                status = response.status_code if self.sent(response) else 200
                step = flow.send(Reply(status, tuple(response.headers.get_list("www-authenticate"))))
        except StopIteration:
            assert response is not None
            if response.status_code == 403 and self.sent(response):
                raise await _in_words(auth.denied(403, login, self._whose), response, asked) from None
            return response
        except UpstreamDenied as failure:
            raise await _in_words(failure, response, asked) from None
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

    def _next_request(self, asked: "_Asked", step: Send) -> httpx.Request:
        if asked.sent and not isinstance(asked.body, bytes):
            raise UpstreamUnavailable(
                f"{self.host} asked in the middle of an upload who is pushing; begin it again",
                detail={"endpoint": self.host},
                retry_after=1,
            )
        asked.sent = True
        request = _request(asked.method, asked.url, {**(asked.headers or {}), **carried()}, asked.body)
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
        url = self.located(request.url, location)
        headers = request.headers.copy()
        del headers["host"]
        if origin_of(url) != origin_of(request.url):
            for name in ("authorization", *CARRIERS):
                headers.pop(name, None)
        return httpx.Request(request.method, url, headers=headers)

    def located(self, base: httpx.URL, location: str) -> httpx.URL:
        """Where a ``Location`` in an answer to ``base`` leads; raises `UpstreamInvalid` where nobody should go."""
        try:
            url = base.join(location)
        except httpx.InvalidURL as error:
            raise self._invalid("redirects to what is not a URL") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise self._invalid("redirects to what is not an http or https URL")
        if base.scheme == "https" and url.scheme == "http":
            raise self._invalid(f"redirects to {host_of(url)} without TLS")
        return url

    def _invalid(self, what: str) -> UpstreamInvalid:
        return UpstreamInvalid(f"{self.host} {what}", detail={"endpoint": self.host})

    async def _token(self, wanted: TokenRequest, auth: Authenticator) -> Token:
        """The token, asked for once for all who need it now."""
        task, _ = self._tokens.join(wanted, lambda: self._get_token(wanted, auth))
        try:
            return await asyncio.shield(task)
        except UpstreamError:
            auth.forget_service()
            raise

    async def _get_token(self, wanted: TokenRequest, auth: Authenticator) -> Token:
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
            raise auth.refused(wanted, response.status_code, self._whose)
        raise failure(response, body, f"the token service {host}", what, UpstreamInvalid)

    async def _send_for_token(self, request: httpx.Request) -> httpx.Response:
        request.headers.update(_COMMON)
        return await self._follow(request, self._auth_hosts)


@dataclass(slots=True)
class _Asked:
    """A request, whoever sends it; ``sent``: once at least."""

    method: str
    url: httpx.URL
    repository: str
    headers: Mapping[str, str] | None
    body: Body
    scope: str | None
    sent: bool = False


async def _in_words(failure: UpstreamDenied, response: httpx.Response | None, asked: _Asked) -> UpstreamDenied:
    """A refusal of what changes something, with what the endpoint says of it in ``response``, which is closed."""
    told = ""
    if response is not None:
        body = await drain(response)
        told = words_of(response, body) if asked.scope else ""
    return UpstreamDenied(f"{failure.message}; it says: {told}", detail=failure.detail) if told else failure


def _request(method: str, url: httpx.URL, headers: Mapping[str, str] | None, body: Body) -> httpx.Request:
    return httpx.Request(method, url, headers={**_COMMON, **(headers or {})}, content=body or None)


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

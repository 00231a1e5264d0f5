"""One request to ``/v2/`` of an endpoint, step by step as a pull does it, remembering each step for a finding."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime

import httpx

from mirror import __version__
from mirror.errors import NameUnknown, UpstreamError
from mirror.oci import parse_object
from mirror.upstream.answers import failure, refuse_disguise
from mirror.upstream.auth import Authenticator, Reply, Send
from mirror.upstream.challenges import parse_challenges
from mirror.upstream.credentials import LoginSource
from mirror.upstream.origins import host_of
from mirror.upstream.session import drain, read_body
from mirror.upstream.tokens import Login, Token, TokenRequest, read_token
from mirror.upstream.transport import Transport
from mirror.upstream.trust import Reach

_PATH = "/v2/"
_HEADERS = {"accept-encoding": "identity", "user-agent": f"wasm-mirror/{__version__} (doctor)"}
_MAX_ANSWER = 1 << 20


@dataclass(slots=True)
class Seen:
    """What was met on the way.

    ``knows_login``: the credentials could be had, or there are none. ``clock_ahead`` is how many seconds the endpoint's
    clock is ahead of ours.
    """

    knows_login: bool = False
    login: Login | None = None
    schemes: tuple[str, ...] = ()
    token: TokenRequest | None = None
    clock_ahead: float | None = None
    seconds: list[float] = field(default_factory=list)
    rate_limits: dict[str, str] = field(default_factory=dict)
    redirected_to: str | None = None

    @property
    def realm(self) -> str | None:
        """The host at which tokens are given out."""
        return None if self.token is None else host_of(httpx.URL(self.token.key.realm))


class Caller:
    """Asks for ``/v2/``. ``setting`` is the key of the endpoint's credentials; ``now`` is the wall clock."""

    def __init__(
        self,
        url: str,
        *,
        auth_hosts: tuple[str, ...],
        logins: LoginSource,
        setting: str,
        transport: Transport,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url = httpx.URL(url)
        self._host = host_of(self._url)
        self._auth = Authenticator(self._url, auth_hosts, setting, clock)
        self._logins = logins
        self._transport = transport
        self._clock = clock
        self._now = now
        self._send: Send = Send(None)
        self.seen = Seen()

    async def ask(self) -> None:
        """Be answered as a registry answers; raises `UpstreamError`, or `NameUnknown` where there is no registry."""
        self.seen.login = await self._logins.login("")
        self.seen.knows_login = True
        flow = self._auth.flow("", self.seen.login)
        response: httpx.Response | None = None
        try:
            step = next(flow)
            while True:
                if isinstance(step, TokenRequest):
                    step = flow.send(await self._token(step))
                    continue
                if response is not None:
                    await drain(response)
                response = await self._get(step)
                step = flow.send(Reply(response.status_code, tuple(response.headers.get_list("www-authenticate"))))
        except StopIteration:
            assert response is not None
            await self._judge(response)
        finally:
            if response is not None:
                await response.aclose()

    async def again(self) -> None:
        """Ask once more, as the last time, to see how long it takes."""
        await drain(await self._get(self._send))

    async def _get(self, step: Send) -> httpx.Response:
        request = httpx.Request("GET", self._url.join(_PATH), headers=_HEADERS)
        if step.authorization is not None:
            request.headers["authorization"] = step.authorization.get_secret_value()
        self._send = step
        began, began_at = self._clock(), self._now()
        response = await self._transport.send(request, reach=Reach.ENDPOINT, endpoint=self._host)
        self.seen.seconds.append(self._clock() - began)
        self._learn(response, (began_at + self._now()) / 2)
        return response

    def _learn(self, response: httpx.Response, at: float) -> None:
        challenges = parse_challenges(tuple(response.headers.get_list("www-authenticate")))
        self.seen.schemes = self.seen.schemes or tuple(challenge.scheme for challenge in challenges)
        self.seen.rate_limits |= rate_limits(response)
        date = answered_at(response)
        if date is not None:
            self.seen.clock_ahead = date - at

    async def _token(self, step: TokenRequest) -> Token:
        """A token for no repository: whether there is one that doctor knows of, nobody can tell."""
        step = replace(step, key=replace(step.key, scope=""))
        self.seen.token = step
        request = step.request()
        request.headers.update(_HEADERS)
        host = host_of(request.url)
        reach = Reach.LEARNT if not step.trusted else Reach.ENDPOINT if host == self._host else Reach.NAMED
        response = await self._transport.send(request, reach=reach, endpoint=self._host)
        if response.status_code == 200:
            refuse_disguise(response, host, "a token")
            body = await read_body(response, _MAX_ANSWER, host, "a token")
            fields = parse_object(body, f"the answer of the token service {host}")
            return read_token(fields, response.headers.get("date"), self._clock(), host)
        body = await drain(response)
        if response.status_code in (401, 403):
            raise self._auth.refused(step, response.status_code)
        raise failure(response, body, f"the token service {host}", "a token", NameUnknown)

    async def _judge(self, response: httpx.Response) -> None:
        """Raise what is wrong with the last answer."""
        if response.is_redirect and "location" in response.headers:
            self.seen.redirected_to = _target(response)
        elif response.status_code == 403:
            raise self._auth.denied(403, self.seen.login)
        elif response.status_code != 200:
            raise failure(response, await drain(response), self._host, _PATH, NameUnknown)
        else:
            refuse_disguise(response, self._host, _PATH)


def answered_at(response: httpx.Response) -> float | None:
    """The ``Date`` of an answer, in seconds since 1970; None without one."""
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return None


def rate_limits(response: httpx.Response) -> dict[str, str]:
    """What an answer says of limits to the number of requests."""
    return {
        name: value[:80]
        for name, value in response.headers.items()
        if name.removeprefix("x-").startswith("ratelimit") and name != "docker-ratelimit-source"
    }


def _target(response: httpx.Response) -> str:
    """Scheme and host of a redirect; the rest may hold a secret."""
    try:
        url = response.request.url.join(response.headers["location"])
        return f"{url.scheme}://{host_of(url)}"
    except (httpx.InvalidURL, UpstreamError):
        return "what is not a URL"

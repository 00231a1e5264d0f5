"""How an endpoint wants to be asked: challenges, tokens, and what follows from them. Does no I/O.

`Authenticator.flow` is a generator: it yields what is to be done next (`Send` the request, or get the token of a
`TokenRequest`) and is sent the `Reply` or the `Token`; whoever drives it has the network. When it returns, the last
reply is the answer.

Source: Distribution's token authentication (https://distribution.github.io/distribution/spec/auth/token/).
"""

import enum
import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Self

import httpx
from pydantic import SecretStr

from mirror.errors import UpstreamDenied, UpstreamInvalid
from mirror.tags import Lru
from mirror.upstream.challenges import Challenge, parse_challenges
from mirror.upstream.origins import host_of, is_named, origin_of
from mirror.upstream.tokens import Login, Token, TokenKey, TokenRequest

_MAX_TOKENS = 4096
_MAX_LOGINS = 1000
"""Logins whose tokens are kept at an endpoint; of more, those that were not used for the longest are forgotten."""
_NAME = "\x00"
_SCOPE = f"repository:{_NAME}:pull"


class Whose(enum.Enum):
    """Whose login it is: the mirror's, as its settings have it; a client's; or one of a client that is on trial.

    On trial it is shown unasked, and tokens that it has got before do not count: it may have been changed since.
    """

    MIRRORS = "this mirror's"
    CLIENTS = "a client's"
    ON_TRIAL = "on trial"


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send the request, with this ``Authorization``."""

    authorization: SecretStr | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the status, and the ``WWW-Authenticate`` fields."""

    status: int
    challenges: tuple[str, ...] = ()


class Authenticator:
    """What has been learnt of one endpoint: how it challenges, and the tokens for its repositories.

    ``setting`` is the key of its credentials in the settings, for messages. ``clock`` gives seconds. Each login has an
    authenticator of its own, so that none is ever asked with another's tokens.
    """

    def __init__(
        self, endpoint: httpx.URL, auth_hosts: Iterable[str], setting: str, clock: Callable[[], float]
    ) -> None:
        self._endpoint = endpoint
        self._auth_hosts = tuple(auth_hosts)
        self._setting = setting
        self._clock = clock
        self._tokens: dict[TokenKey, Token] = {}
        self._service: _TokenService | None = None  # of the last Bearer challenge
        self._wants_basic = False

    def acquainted_as(self, other: "Authenticator") -> None:
        """Take over what another one knows of the endpoint, and which is no secret: how it challenges."""
        self._service, self._wants_basic = other._service, other._wants_basic

    def flow(
        self, repository: str, login: Login | None, scope: str | None = None, whose: Whose = Whose.MIRRORS
    ) -> Generator[Send | TokenRequest, Reply | Token, None]:
        """The steps of one request about ``repository``. Raises `UpstreamDenied` when none is left.

        ``scope`` is what a token got beforehand must be good for, where that is more than a pull.

        Once the endpoint has challenged, the token for a repository that was never asked about is got beforehand, so
        that each pull saves the round trip to a 401. A 400 may mean that a token has ended: ECR Public answers so, and
        without a challenge (https://github.com/aws/containers-roadmap/issues/2835). To a push it is an answer.
        """
        used = yield from self._foreseen(repository, login, scope, whose)
        reply = yield from _sent(used)
        if reply.status == 400 and scope is None and used is not None and self._service is not None:
            self._drop(used)
            reply = yield from _sent(None)
        if reply.status != 401:
            return
        challenge = self._choose(reply)
        if challenge is None:
            raise self.denied(401, login, whose)
        if challenge.scheme == "basic":
            self._wants_basic, self._service = True, None
            if login is None or login.is_identity_token or used == login.basic():
                raise self.denied(401, login, whose)
            reply = yield from _sent(login.basic())
            if reply.status == 401:
                raise self.denied(401, login, whose)
        else:
            request = self._challenged(challenge, repository, login, scope)
            self._drop(used)
            known = self._tokens.get(request.key)
            token = yield from self._token(request, whose)
            reply = yield from _sent(token.bearer())
            if reply.status == 401 and token is known:  # no better than the one before: all may have been revoked
                self._drop(token.bearer())
                token = yield from self._token(request, whose)
                reply = yield from _sent(token.bearer())
            if reply.status == 401:
                raise self.refused(request, 401, whose)

    def forget_service(self) -> None:
        """Wait for the next challenge: the token service that is known failed, and may have moved."""
        self._service = None

    def denied(self, status: int, login: Login | None, whose: Whose = Whose.MIRRORS) -> UpstreamDenied:
        """The error for a refusal: names the endpoint, and the setting that would help, where it is the mirror's."""
        host = host_of(self._endpoint)
        if whose is not Whose.MIRRORS:
            words = "asks for credentials" if login is None else "refuses your credentials"
            return UpstreamDenied(f"{host} {words} ({status})", detail={"endpoint": host, "status": status})
        message = (
            f"{host} asks for credentials ({status}); set {self._setting}"
            if login is None
            else f"{host} refuses this mirror's credentials ({status}); check {self._setting}"
        )
        return UpstreamDenied(message, detail={"endpoint": host, "status": status, "setting": self._setting})

    def refused(self, request: TokenRequest, status: int, whose: Whose = Whose.MIRRORS) -> UpstreamDenied:
        """The error for a token service that gives no token, or one that does not help."""
        if not request.withheld:
            return self.denied(status, request.login, whose)
        host, realm = host_of(self._endpoint), host_of(httpx.URL(request.key.realm))
        if whose is not Whose.MIRRORS:
            return UpstreamDenied(
                f"{host} wants your credentials to go to {realm}; they went nowhere, for that host is not among the "
                "endpoint's auth_hosts in the mirror's settings",
                detail={"endpoint": host, "status": status, "realm": realm},
            )
        return UpstreamDenied(
            f"{host} wants the credentials of {self._setting} to go to {realm}; they went nowhere, for that host is "
            "not among the endpoint's auth_hosts",
            detail={"endpoint": host, "status": status, "setting": self._setting},
        )

    def _foreseen(
        self, repository: str, login: Login | None, scope: str | None, whose: Whose
    ) -> Generator[TokenRequest, Reply | Token, SecretStr | None]:
        """The ``Authorization`` that the endpoint is likely to want; None before its first challenge."""
        if self._service is not None:
            realm, service, usual = self._service.scoped(repository)
            wanted = usual if scope is None else scope
            token = yield from self._token(self._token_request(realm, service, wanted, login), whose)
            return token.bearer()
        known = self._wants_basic or whose is Whose.ON_TRIAL
        if known and login is not None and not login.is_identity_token:
            return login.basic()
        return None

    def _token(self, request: TokenRequest, whose: Whose) -> Generator[TokenRequest, Reply | Token, Token]:
        on_trial = whose is Whose.ON_TRIAL
        if on_trial and request.withheld:
            raise self.refused(request, 401, whose)
        token = self._tokens.get(request.key)
        if token is not None and self._clock() < token.refresh_at and not on_trial:
            return token
        fresh = yield request
        assert isinstance(fresh, Token)
        if on_trial and request.login is not None and fresh.is_nobodys:
            raise self.refused(request, 401, whose)
        self._keep(request.key, fresh)
        return fresh

    def _keep(self, key: TokenKey, token: Token) -> None:
        self._tokens.pop(key, None)
        self._tokens[key] = token
        if len(self._tokens) > _MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    def _drop(self, refused: SecretStr | None) -> None:
        """Forget a token that was refused; one that somebody else has got since then stays."""
        self._tokens = {key: token for key, token in self._tokens.items() if token.bearer() != refused}

    def _choose(self, reply: Reply) -> Challenge | None:
        challenges = parse_challenges(reply.challenges)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                return challenge
        return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)

    def _challenged(
        self, challenge: Challenge, repository: str, login: Login | None, scope: str | None
    ) -> TokenRequest:
        """A token for what the challenge names; for ``scope`` where it names nothing."""
        service = _TokenService.learnt(challenge, repository)
        realm, name, usual = service.scoped(repository)
        wanted = scope if scope is not None and "scope" not in challenge.parameters else usual
        request = self._token_request(realm, name, wanted, login)
        if repository or "scope" not in challenge.parameters:  # that of /v2/ itself may name any repository
            self._service = service
        return request

    def _token_request(self, realm: str, service: str, scope: str, login: Login | None) -> TokenRequest:
        try:
            url = httpx.URL(realm)
        except httpx.InvalidURL as error:
            raise self._bad_realm("is not a URL") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise self._bad_realm("is not an http or https URL")
        if self._endpoint.scheme == "https" and url.scheme != "https":
            raise self._bad_realm("is not https, as the endpoint is")
        vouched = origin_of(url) == origin_of(self._endpoint) or is_named(url, self._auth_hosts)
        return TokenRequest(
            TokenKey(realm, service, scope), login if vouched else None, vouched, login is not None and not vouched
        )

    def _bad_realm(self, what: str) -> UpstreamInvalid:
        host = host_of(self._endpoint)
        return UpstreamInvalid(f"{host} asks for a token from a realm that {what}", detail={"endpoint": host})


class Authenticators:
    """One `Authenticator` for each login at one endpoint. ``make`` makes one that knows nothing yet."""

    def __init__(self, make: Callable[[], Authenticator]) -> None:
        self._make = make
        self._latest = make()
        self._known: Lru[Login | None, Authenticator] = Lru(_MAX_LOGINS)

    def of(self, login: Login | None) -> Authenticator:
        """What is known of how the endpoint takes this login, and its tokens: nobody else's."""
        found = self._known.get(login)
        if found is None:
            found = self._make()
            found.acquainted_as(self._latest)
            self._known.put(login, found)
        self._latest = found
        return found

    def forget(self, login: Login | None) -> None:
        """Forget the tokens of a login that was refused."""
        self._known.drop(login)


@dataclass(frozen=True, slots=True)
class _TokenService:
    """Where a challenge sent us for tokens. ``scope`` has a `_NAME` in the place of the repository's name."""

    realm: str
    service: str
    scope: str

    @classmethod
    def learnt(cls, challenge: Challenge, repository: str) -> Self:
        given = challenge.parameters.get("scope") or _SCOPE.replace(_NAME, repository)
        scope = re.sub(rf"(?<=[:/]){re.escape(repository)}(?=:)", _NAME, given)
        return cls(challenge.parameters["realm"], challenge.parameters.get("service", ""), scope)

    def scoped(self, repository: str) -> tuple[str, str, str]:
        """Realm, service and scope for ``repository``."""
        return self.realm, self.service, self.scope.replace(_NAME, repository)


def _sent(authorization: SecretStr | None) -> Generator[Send, Reply | Token, Reply]:
    reply = yield Send(authorization)
    assert isinstance(reply, Reply)
    return reply

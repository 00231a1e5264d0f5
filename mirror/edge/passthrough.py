"""``auth.mode: upstream``: clients' own credentials decide, at the upstream that they are for.

Who may read there is `mirror.auth.verdicts`. What a pull or push then needs of the upstream may be asked with the same
credentials, where the mirror has none of its own (`mirror.upstream.lent`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from starlette.types import Message, Scope, Send

from mirror.auth.verdicts import Verdicts, refusal
from mirror.digest import Digest
from mirror.edge.basic import basic
from mirror.edge.respond import header
from mirror.errors import BlobUnknown, Denied, MirrorError, Unauthorized, UpstreamDenied
from mirror.names import Place
from mirror.oci import Resource
from mirror.upstream.lenders import Loan, Logins
from mirror.upstream.lent import Lent
from mirror.upstream.tokens import Login

_LONGEST = 16 * 1024
"""Bytes of a password: those of cloud registries are tokens of a few thousand."""

REMEDY: Final = "send the user and the password that you have for the registry"


@dataclass(frozen=True, slots=True)
class Passage:
    """One client's way to one repository, after a yes."""

    place: Place
    principal: str
    loan: Loan

    async def through(self, work: Callable[[Send], Awaitable[None]], send: Send) -> None:
        """Do ``work``, which sends an answer, as often as it takes for others' refusals not to count.

        Whose own credentials were refused meanwhile gets that, and not the content that another's have brought.
        """

        async def checked(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.loan.check()
            await send(message)

        try:
            await self.loan.persist(lambda: work(checked))
        except UpstreamDenied as denied:
            if self.loan.refusal is None:  # it was the mirror's own
                raise
            where = self.place.upstream, self.place.repository
            raise refusal(*where, status_of(denied), anonymous=not self.principal) from denied


class PassThrough:
    """Clients' credentials, each for the upstream that it is meant for."""

    def __init__(
        self, verdicts: Verdicts, logins: Logins, lent: Mapping[str, Lent], pushed_to: Iterable[str] = ()
    ) -> None:
        """``pushed_to``: the upstreams that clients push to through this mirror."""
        self._pushed_to = frozenset(pushed_to)
        self._verdicts = verdicts
        self._logins = logins
        self._lent = lent
        for name, lender in lent.items():
            lender.on_refusal(self._refuted(name))

    async def greet(self, scope: Scope, upstream: str | None) -> None:
        """Raise where the credentials of a request are none that ``upstream`` takes; None: it is not known which."""
        login = login_of(scope)
        if login is None:
            raise Unauthorized(f"this mirror lets pull whom the registry lets: {REMEDY}")
        if upstream is not None:
            await self._verdicts.vouch(upstream, login, self._introduced(login))

    async def reader(
        self, scope: Scope, place: Place, resource: Resource, tag: str | None, digest: Digest | None
    ) -> Passage:
        """The way of a request that reads; raises what `Verdicts.may_pull` does.

        Who asks whether a blob is there, to push it if not, may have the right to push, and none to pull: the answer
        is that it is not, if only the credentials are right, and upstream decides about the push.
        """
        login = login_of(scope)
        principal = self._introduced(login)
        target = tag or (str(digest) if digest is not None else "")
        try:
            left = await self._verdicts.may_pull(place, resource, target, login, principal)
        except (Unauthorized, Denied):
            before_a_push = resource is Resource.BLOB and scope["method"] == "HEAD"
            if login is None or not before_a_push or place.upstream not in self._pushed_to:
                raise
            await self._verdicts.vouch(place.upstream, login, principal)
            raise BlobUnknown(f"{target} is none that your credentials may read; push it") from None
        until = asyncio.get_running_loop().time() + left
        return Passage(place, principal, self._lent[place.upstream].lend(place.repository, principal, login, until))

    def writer(self, scope: Scope) -> str:
        """The principal of a request that writes, "" for anonymous: upstream decides what it may."""
        return self._introduced(login_of(scope))

    async def aclose(self) -> None:
        """Stop asking."""
        await self._verdicts.aclose()

    def _introduced(self, login: Login | None) -> str:
        principal = self._verdicts.principal(login)
        if login is not None:
            self._logins.introduce(principal, login)
        return principal

    def _refuted(self, upstream: str) -> Callable[[str, str], None]:
        return lambda principal, repository: self._verdicts.refuted(upstream, repository, principal)


def login_of(scope: Scope) -> Login | None:
    """The credentials of a request, as a registry is sent them; None for anonymous. Raises `Unauthorized`."""
    given = basic(header(scope, b"authorization"), REMEDY)
    if given is None:
        return None
    if len(given.password) > _LONGEST:
        raise Unauthorized(f"a password may have {_LONGEST} bytes at most")
    try:
        password = given.password.decode()
    except UnicodeDecodeError:
        password = ""
    if not given.exact or (given.password and not password):
        raise Unauthorized(f"user and password must be UTF-8: {REMEDY}")
    return Login(given.user, SecretStr(password))


def refused_push(denied: UpstreamDenied) -> MirrorError:
    """What a client hears of a push that upstream refuses to its credentials."""
    if status_of(denied) == 403:
        return Denied(denied.message, detail=denied.detail)
    return Unauthorized(denied.message, detail=denied.detail)


def status_of(denied: UpstreamDenied) -> int:
    """Whether a refusal was 401 or 403."""
    return 403 if isinstance(denied.detail, dict) and denied.detail.get("status") == 403 else 401

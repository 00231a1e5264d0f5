"""Who asks, and what they may do: Basic credentials, the users of the settings, and the rules for them.

======================  ==============================================================================================
``/v2/``                200 while nothing asks for credentials; once there are users, 401 without credentials or with
                        wrong ones: `docker` and `skopeo` send what they have only when they are asked for it here,
                        and agents go on either way
reading                 ``auth.mode: none``: everyone, and credentials that come along are not looked at;
                        ``htpasswd``: users, by the rules
writing                 users, by the rules; where there is no file of users, whoever is on this machine
======================  ==============================================================================================

Sources: RFC 7617 (Basic); RFC 9110, section 11; OCI distribution specification 1.1, "Authentication".
"""

import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Scope, Send

from mirror.auth.htpasswd import SETTING, Users
from mirror.auth.rules import ANONYMOUS, Action, Rules
from mirror.config import Settings
from mirror.config.hosts import is_loopback, join, split
from mirror.config.values import shown
from mirror.edge.respond import challenging, header, send_error
from mirror.errors import Denied, MirrorError, Unauthorized
from mirror.names import Place

CHALLENGE: Final = "Basic realm=wasm-mirror"
"""Without quotes: agents refuse a quoted realm that is no URL; and `regctl` refuses a challenge without a realm."""


@dataclass(frozen=True, slots=True)
class Basic:
    """What a client says it is."""

    user: str
    password: bytes = field(repr=False)


class Gate:
    """Who may read and write. A principal is the name of a user, or `ANONYMOUS`.

    Without a file of users, nobody can be told from anybody: then all may write who reach a mirror that listens on
    loopback, by a name of this machine (see `mirror.edge.admin.Guard`), and not from a web page of another origin.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds that never go back."""
        auth = settings.auth
        self._users = None if auth.file is None else Users(auth.file, verdict_for=auth.verdict_for, clock=clock)
        self._rules = Rules(auth.rules)
        self._everyone_reads = auth.mode == "none"
        self._on_loopback = is_loopback(settings.host)
        self._own = frozenset(settings.names)

    async def greet(self, scope: Scope) -> None:
        """``/v2/``: raise `Unauthorized` where a client should send credentials, or other ones."""
        if self._users is not None:
            await self._user(self._users, scope)

    async def reader(self, scope: Scope) -> str:
        """The principal of a request that reads; raises `Unauthorized` where that has to be a user, and is none."""
        return ANONYMOUS if self._everyone_reads else await self.principal(scope)

    async def principal(self, scope: Scope) -> str:
        """The principal of a request that writes; raises `Unauthorized` when nobody like that may write anything."""
        if self._users is not None:
            return await self._user(self._users, scope)
        self._must_be_here(scope)
        return ANONYMOUS

    def allow(self, principal: str, action: Action, place: Place) -> None:
        """Raise `Denied` when the rules do not let the principal, one that was found above, do that; else nothing."""
        if action is Action.PULL and self._everyone_reads:
            return
        if self._users is None:
            if not self._on_loopback:
                raise _closed()
            return
        repository = f"{place.upstream}/{place.repository}"
        if principal == ANONYMOUS:
            raise _login("this is for users")
        if not self._rules.may(principal, action, repository):
            raise Denied(
                f"{principal} may not {action.value} {repository}: auth.rules in the mirror's settings say what users "
                "may do"
            )

    async def aclose(self) -> None:
        """Stop what is under way."""
        if self._users is not None:
            await self._users.aclose()

    async def _user(self, users: Users, scope: Scope) -> str:
        given = basic(header(scope, b"authorization"))
        if given is None:
            raise _login("this mirror asks who you are")
        if not await users.verify(given.user, given.password):
            raise _login("there is no such user, or the password is wrong")
        return given.user

    def _must_be_here(self, scope: Scope) -> None:
        if not self._on_loopback:
            raise _closed()
        host, origin = header(scope, b"host"), header(scope, b"origin")
        if host is not None and not self._is_own(host):
            raise Unauthorized(
                f"the request is for {shown(host)}, and without users only requests for a loopback address, or for one "
                f"of `names` in the mirror's settings, may write: ask there, or set {SETTING}, an htpasswd file"
            )
        if origin is not None and not self._is_own(origin.partition("://")[2]):
            raise Unauthorized(
                f"the request comes from a web page of {shown(origin)}, and without users no other site may write: set "
                f"{SETTING} in the mirror's settings, an htpasswd file"
            )

    def _is_own(self, host: str) -> bool:
        called = split(host)
        return called is not None and (
            is_loopback(called[0]) or join(*called) in self._own or join(called[0], None) in self._own
        )


def basic(authorization: str | None) -> Basic | None:
    """The credentials of a request; None without any: empty ones are none. Raises `Unauthorized`.

    Source: RFC 7617, section 2.
    """
    if not authorization:
        return None
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise _login("this mirror takes Basic authentication only")
    try:
        user, colon, password = binascii.a2b_base64(text.strip(), strict_mode=True).partition(b":")
    except ValueError:
        colon = b""
    if not colon:
        raise _login("the Authorization header is not one of Basic authentication")
    return Basic(user.decode("utf-8", "replace"), password) if user or password else None


async def send_refusal(send: Send, method: str, error: MirrorError, namespace: str | None = None) -> None:
    """Send an error; a 401 with the challenge that it must have."""
    if isinstance(error, Unauthorized):
        send = challenging(send, CHALLENGE)
    await send_error(send, method, error, namespace)


def _login(why: str) -> Unauthorized:
    return Unauthorized(f"{why}: log in as a user of the mirror's {SETTING}")


def _closed() -> Unauthorized:
    return Unauthorized(
        f"nothing can be pushed here: set {SETTING} in the mirror's settings, an htpasswd file; without users pushes "
        "are open only while the mirror listens on a loopback address"
    )

"""Who asks, and what they may do: Basic credentials, the users of the settings, and the rules for them.

======================  ==============================================================================================
``/v2/``                200 while nothing asks for credentials; once there are users, 401 without credentials or with
                        wrong ones: `docker` and `skopeo` send what they have only when they are asked for it here,
                        and agents go on either way
reading                 ``auth.mode: none``: everyone, and credentials that come along are not looked at;
                        ``htpasswd``: users, by the rules
                        ``upstream``: of an upstream, whom it lets read; of hosted content, users by the rules where
                        there is a file of them, and else everyone
writing                 users, by the rules; where there is no file of users, whoever is on this machine. In mode
                        ``upstream`` the upstream decides what is pushed to it, and nothing else
======================  ==============================================================================================

Sources: RFC 9110, section 11; OCI distribution specification 1.1, "Authentication".
"""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from starlette.types import Scope, Send

from mirror.auth.failures import FailedLogins
from mirror.auth.htpasswd import LONGEST, SETTING, Users
from mirror.auth.rules import ANONYMOUS, Action, Rules
from mirror.config import Settings
from mirror.config.hosts import is_loopback, join, split
from mirror.config.values import shown
from mirror.digest import Digest
from mirror.edge.basic import AS_A_USER, basic
from mirror.edge.passthrough import REMEDY, Passage, PassThrough, refused_push
from mirror.edge.respond import challenging, header, send_error
from mirror.errors import Denied, MirrorError, Unauthorized, UpstreamDenied
from mirror.names import Place
from mirror.oci import Resource

CHALLENGE: Final = "Basic realm=wasm-mirror"
"""Without quotes: agents refuse a quoted realm that is no URL; and `regctl` refuses a challenge without a realm."""


class Gate:
    """Who may read and write. A principal is the name of a user, or `ANONYMOUS`.

    Without a file of users, nobody can be told from anybody: then all may write who reach a mirror that listens on
    loopback, by a name of this machine (see `mirror.edge.api.guard.Guard`), and not from a web page of another origin.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        passthrough: PassThrough | None = None,
    ) -> None:
        """``clock`` gives seconds that never go back; ``passthrough`` is for `auth.mode: upstream`, and only for it."""
        auth = settings.auth
        if (auth.mode == "upstream") != (passthrough is not None):
            raise ValueError(f"auth.mode {auth.mode} cannot be kept so")
        self._passthrough = passthrough
        self._hosted = settings.hosted.prefix
        self._failed = FailedLogins(clock)
        self._users = None if auth.file is None else Users(auth.file, verdict_for=auth.verdict_for, clock=clock)
        self._rules = Rules(auth.rules)
        self._everyone_reads = auth.mode == "none" or (auth.mode == "upstream" and auth.file is None)
        self._on_loopback = is_loopback(settings.host)
        self._own = frozenset(settings.names)

    async def greet(self, scope: Scope, upstream: str | None = None) -> None:
        """``/v2/``: raise `Unauthorized` where a client should send credentials, or other ones.

        ``upstream`` is the one that the request names, if it is known which.
        """
        if self._passthrough is not None:
            if await self._is_user(scope):
                return
            try:
                await self._passthrough.greet(scope, upstream)
            except Unauthorized:
                self._note(scope, upstream or SETTING)
                raise
        elif self._users is not None:
            await self._user(self._users, scope)

    async def reader(self, scope: Scope) -> str:
        """The principal of a request that reads; raises `Unauthorized` where that has to be a user, and is none."""
        if self._everyone_reads or self._passthrough is not None:
            return ANONYMOUS
        return await self.principal(scope)

    async def pull(
        self,
        scope: Scope,
        principal: str,
        place: Place,
        resource: Resource,
        tag: str | None = None,
        digest: Digest | None = None,
    ) -> Passage | None:
        """Return if ``principal``, the `reader`, may read that; raises `Unauthorized` or `Denied`.

        In `auth.mode: upstream` the place's upstream is asked, unless it has said so lately: then `NotFound` may be
        raised, and `UpstreamError` where nobody knows; and the answer has to be sent by way of what is returned.
        """
        if self._passthrough is None:
            self.allow(principal, Action.PULL, place)
        elif place.upstream != self._hosted:
            try:
                return await self._passthrough.reader(scope, place, resource, tag, digest)
            except Unauthorized:
                self._note(scope, place.upstream)
                raise
        elif self._users is not None:
            self.allow(await self._user(self._users, scope), Action.PULL, place)
        return None

    async def principal(self, scope: Scope, place: Place | None = None) -> str:
        """The principal of a request that writes; raises `Unauthorized` when nobody like that may write anything."""
        if self._passthrough is not None and place is not None and place.upstream != self._hosted:
            principal = self._passthrough.writer(scope)
            if principal == ANONYMOUS and not self._on_loopback:
                raise Unauthorized(
                    f"who pushes to {shown(place.upstream)} is who its credentials say: send yours for it"
                )
            if principal == ANONYMOUS:
                self._must_be_here(scope)
            return principal
        if self._users is not None:
            return await self._user(self._users, scope)
        self._must_be_here(scope)
        return ANONYMOUS

    def allow(self, principal: str, action: Action, place: Place) -> None:
        """Raise `Denied` when the rules do not let the principal, one that was found above, do that; else nothing."""
        if self._passthrough is not None and place.upstream != self._hosted:
            return  # upstream decides, and is asked
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

    def refused(self, denied: UpstreamDenied) -> MirrorError:
        """What a client hears of a push that upstream refuses: whether it is to send credentials, or other ones."""
        return denied if self._passthrough is None else refused_push(denied)

    async def aclose(self) -> None:
        """Stop what is under way."""
        if self._users is not None:
            await self._users.aclose()
        if self._passthrough is not None:
            await self._passthrough.aclose()

    async def _user(self, users: Users, scope: Scope) -> str:
        given = basic(header(scope, b"authorization"))
        if given is None:
            raise _login("this mirror asks who you are")
        if not await users.verify(given.user, given.password):
            self._failed.note(given.user, _address(scope), SETTING)
            raise _login("there is no such user, or the password is wrong")
        return given.user

    def _note(self, scope: Scope, where: str) -> None:
        """Have it logged that credentials were refused, if there were any."""
        with contextlib.suppress(Unauthorized):
            if (given := basic(header(scope, b"authorization"))) is not None:
                self._failed.note(given.user, _address(scope), where)

    async def _is_user(self, scope: Scope) -> bool:
        """Whether these are a user's of the file. Passwords that upstreams take may be longer than bcrypt's."""
        given = basic(header(scope, b"authorization"), REMEDY)
        if self._users is None or given is None or len(given.password) > LONGEST:
            return False
        return await self._users.verify(given.user, given.password)

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


async def send_refusal(send: Send, method: str, error: MirrorError, namespace: str | None = None) -> None:
    """Send an error; a 401 with the challenge that it must have."""
    if isinstance(error, Unauthorized):
        send = challenging(send, CHALLENGE)
    await send_error(send, method, error, namespace)


def _login(why: str) -> Unauthorized:
    return Unauthorized(f"{why}: {AS_A_USER}")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "an unknown address"


def _closed() -> Unauthorized:
    return Unauthorized(
        f"nothing can be pushed here: set {SETTING} in the mirror's settings, an htpasswd file; without users pushes "
        "are open only while the mirror listens on a loopback address"
    )

"""Who may use the admin API: a token, and without one whoever sits at the machine, but no web page of another site."""

import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.types import Scope

from mirror.auth.failures import FailedLogins
from mirror.config import Settings
from mirror.config.hosts import is_loopback, split
from mirror.config.values import shown
from mirror.edge.respond import header
from mirror.errors import Denied, StartError, Unauthorized
from mirror.upstream.watched import Watched

CHALLENGE: Final = "Bearer"

_SETTING = "admin.token_file"
_SHORTEST = 16
_MAX_FILE = 4096
_OWN_SITE = ("same-origin", "none")  # a page of the mirror's own, or no page at all


class Guard:
    """Who may use the admin API: who has the token; without one, whoever reaches a mirror that listens on loopback.

    Such a request has to be for a loopback address by its ``Host`` too: a web page whose author lets its name resolve
    to 127.0.0.1 (DNS rebinding) is else a client on this machine. And it may not come from a page of another origin,
    which is how browsers call what a page sends without asking. ``clock`` gives seconds that never go back.

    Sources: RFC 6750, section 2.1; RFC 6454, section 7; W3C Fetch Metadata, section 2.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        file = settings.admin.token_file
        self._token = None if file is None else Watched({_SETTING: file}, read_token, clock)
        self._on_loopback = is_loopback(settings.admin_host)
        self._failed = FailedLogins(clock)

    async def check(self, scope: Scope) -> str:
        """Who asks, in words. Raises `Unauthorized`, or `Denied` for a web page, unless its headers prove that it may.

        Wrong tokens are logged; none at all is a question.
        """
        client = scope.get("client")
        address = str(client[0]) if client else "an unknown address"
        if self._token is not None:
            given = header(scope, b"authorization")
            if not _matches(given, await self._token.get()):
                if given:
                    self._failed.note_token(address)
                raise Unauthorized(
                    f"the admin API asks for the token in {_SETTING}: send it as Authorization: Bearer <token>"
                )
            return f"who has the token, at {address}"
        self._must_be_here(header(scope, b"host"))
        _must_be_own(header(scope, b"host"), header(scope, b"origin"), header(scope, b"sec-fetch-site"))
        return f"who is on loopback, at {address}"

    def _must_be_here(self, host: str | None) -> None:
        if not self._on_loopback:
            raise Unauthorized(
                f"the admin API is closed: set {_SETTING} in the mirror's settings, a file that holds a token; without "
                "one it is open only while it listens on a loopback address, by listen or by admin.listen"
            )
        if host is not None and not ((called := split(host)) and is_loopback(called[0])):
            raise Unauthorized(
                f"the request is for {shown(host)}, and without a token the admin API answers only at a loopback "
                f"address such as localhost: ask there, or set {_SETTING} in the mirror's settings, a file that holds "
                "a token"
            )


def _matches(authorization: str | None, token: bytes) -> bool:
    scheme, _, given = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)


def _must_be_own(host: str | None, origin: str | None, site: str | None) -> None:
    """Raise `Denied` for what a browser sends on behalf of a page that is not of this very address."""
    foreign = origin is not None and origin.partition("://")[2].lower() != (host or "").lower()
    if foreign or (site is not None and site.lower() not in _OWN_SITE):
        of = shown(origin) if foreign else "another site"
        raise Denied(
            f"the request comes from a web page of {of}, and without a token no other site may use the admin API: ask "
            f"from a program, or set {_SETTING} in the mirror's settings, a file that holds a token"
        )


def check_token(settings: Settings) -> None:
    """Read the token once, before anything serves. Raises `StartError`."""
    file = settings.admin.token_file
    if file is not None:
        try:
            read_token(file)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or error
            raise StartError(
                f"{_SETTING} {file} cannot be used: {words}; let it hold a token, such as what "
                "`openssl rand -hex 32` prints"
            ) from None  # a cause might show what was read


def read_token(path: Path) -> bytes:
    """The token in a file: printable ASCII, of `_SHORTEST` characters or more. Raises `OSError`, `ValueError`."""
    with path.open("rb") as file:
        token = file.read(_MAX_FILE).strip()
    if len(token) < _SHORTEST:
        raise ValueError(f"it holds fewer than {_SHORTEST} characters")
    if len(token) >= _MAX_FILE or not all(0x21 <= sign <= 0x7E for sign in token):
        raise ValueError("it holds more than one token of printable ASCII characters, without blanks")
    return token

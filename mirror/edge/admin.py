"""``/api/v1/``: what operators ask of a running mirror, and what the commands ask for them. JSON.

===========================  =======================================================
``modules/<reference>``      what is known of an artifact; the upstream comes first
===========================  =======================================================
"""

import hmac
import time
from collections.abc import Callable
from pathlib import Path

from starlette.types import Receive, Scope, Send

from mirror.config import Settings
from mirror.config.hosts import is_loopback, split
from mirror.config.values import shown
from mirror.edge.respond import challenging, header, send_error, send_json
from mirror.errors import MirrorError, NotFound, StartError, Unauthorized, Unsupported
from mirror.modules import Modules
from mirror.names import Names
from mirror.oci import Reference, parse_reference
from mirror.upstream.watched import Watched
from mirror.wasm.description import as_json

ROOT = "/api/v1/"

_SETTING = "admin.token_file"
_SCHEME = "Bearer"
_SHORTEST = 16
_MAX_FILE = 4096


class Guard:
    """Who may use the admin API: who has the token; without one, whoever reaches a mirror that listens on loopback.

    Such a request has to be for a loopback address by its ``Host`` too: a web page whose author lets its name resolve
    to 127.0.0.1 (DNS rebinding) is else a client on this machine. ``clock`` gives seconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        file = settings.admin.token_file
        self._token = None if file is None else Watched({_SETTING: file}, read_token, clock)
        self._on_loopback = is_loopback(settings.host)

    async def check(self, authorization: str | None, host: str | None) -> None:
        """Raise `Unauthorized` unless ``authorization`` and ``host``, the headers' values, prove that the client may.

        Source: RFC 6750, section 2.1.
        """
        if self._token is not None:
            scheme, _, given = (authorization or "").partition(" ")
            right = await self._token.get()
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), right):
                raise Unauthorized(
                    f"the admin API asks for the token in {_SETTING}: send it as Authorization: Bearer <token>"
                )
        elif not self._on_loopback:
            raise Unauthorized(
                f"the admin API is closed: set {_SETTING} in the mirror's settings, a file that holds a token; without "
                "one it is open only while the mirror listens on a loopback address"
            )
        elif host is not None and not ((called := split(host)) and is_loopback(called[0])):
            raise Unauthorized(
                f"the request is for {shown(host)}, and without a token the admin API answers only at a loopback "
                f"address such as localhost: ask there, or set {_SETTING} in the mirror's settings, a file that holds "
                "a token"
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


class Admin:
    """An ASGI application for the addresses under ``/api/v1/``."""

    def __init__(self, guard: Guard, names: Names, modules: Modules) -> None:
        self._guard = guard
        self._names = names
        self._modules = modules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        try:
            await self._guard.check(header(scope, b"authorization"), header(scope, b"host"))
            kind, _, rest = scope["path"].removeprefix(ROOT).partition("/")
            if kind != "modules" or not rest:
                raise NotFound(f"there is nothing at this address; {ROOT}modules/<reference> describes an artifact")
            if method not in ("GET", "HEAD"):
                raise Unsupported("descriptions are read, by GET and HEAD")
            description = await self._modules.describe(self._reference(rest))
            await send_json(send, method, as_json(description), _HEADERS, "application/json")
        except Unauthorized as error:
            await send_error(challenging(send, _SCHEME), method, error)
        except MirrorError as error:
            await send_error(send, method, error)

    def _reference(self, text: str) -> Reference:
        named = parse_reference(text)
        place = self._names.place(named.name, ns=None, host="")
        return Reference(place.upstream, place.repository, named.tag, named.digest)


_HEADERS = [("cache-control", "no-store"), ("x-content-type-options", "nosniff")]

"""Where the mirror listens: the registry's port and, where that is set, another one for the admin API."""

import errno
import socket
from collections.abc import Callable

from starlette.types import Scope

from mirror.config import Settings
from mirror.config.hosts import join, split
from mirror.errors import StartError
from mirror.occupants import occupant

BACKLOG = 4096


class Listeners:
    """The sockets. ``admin`` is None where the admin API is at the registry's port."""

    def __init__(self, registry: socket.socket, admin: socket.socket | None) -> None:
        self.registry = registry
        self.admin = admin

    @property
    def sockets(self) -> list[socket.socket]:
        """All of them."""
        return [self.registry] if self.admin is None else [self.registry, self.admin]

    def at_admin(self) -> Callable[[Scope], bool] | None:
        """What tells whether a request came in at the admin API's own port; None where it has none.

        Ports tell them apart, or, where two addresses of this machine have the same one, the address.
        """
        if self.admin is None:
            return None
        own = self.admin.getsockname()[:2]
        port = own[1]
        if port != self.registry.getsockname()[1]:
            return lambda scope: bool(scope["server"][1] == port)
        return lambda scope: tuple(scope["server"]) == own

    def close(self) -> None:
        """Listen no more."""
        for listener in self.sockets:
            listener.close()


def bind(settings: Settings) -> Listeners:
    """Take the ports. Raises `StartError` when one cannot be had."""
    registry = _bound(settings.listen, "`listen` (or --listen, WASM_MIRROR_LISTEN)")
    if settings.admin.listen is None:
        return Listeners(registry, None)
    try:
        return Listeners(registry, _bound(settings.admin.listen, "`admin.listen`"))
    except StartError:
        registry.close()
        raise


def address_of(listener: socket.socket) -> str:
    """``HOST:PORT``, as it was given by the system."""
    return join(*listener.getsockname()[:2])


def _bound(address: str, setting: str) -> socket.socket:
    located = split(address)
    assert located is not None, "it was parsed when it was set"
    listener = None
    try:
        family, _, _, _, where = socket.getaddrinfo(*located, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise StartError(_cannot_listen(address, setting, error)) from error
    return listener


def _cannot_listen(address: str, setting: str, error: OSError) -> str:
    elsewhere = f"set {setting} to another address"
    if error.errno == errno.EADDRINUSE:
        located = split(address)
        by = located and located[1] and occupant(located[1])
        return f"{address} is in use by {by or 'another program'}; stop it, or {elsewhere}"
    if error.errno == errno.EACCES:
        return f"{address} may not be listened on by this user; set {setting} to a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{address} cannot be listened on: it is no address of this machine; {elsewhere}: 127.0.0.1 is this "
            "machine alone, 0.0.0.0 every network it is in"
        )
    return f"{address} cannot be listened on: {error.strerror or error}; {elsewhere}"

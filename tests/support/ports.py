"""Ports for servers that tests start as programs, or stop and start again."""

import socket
from types import TracebackType
from typing import Self


class ReservedPort:
    """A free port, kept from others by a socket that is bound to it but never listens.

    While it is reserved connections to it are refused, and a server that sets ``SO_REUSEADDR`` (as asyncio, uvicorn
    and Go do) may listen there, as often as it likes. Linux gives it to nobody who asks for any free port.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self._socket = bound_socket(address, 0)
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bound_socket(address: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet."""
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends small pieces at once only where it sees this
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound

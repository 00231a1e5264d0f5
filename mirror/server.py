"""Serving: uvicorn, and an orderly stop."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn

from mirror.config import Settings
from mirror.listening import BACKLOG, Listeners
from mirror.store.directory import DataDirectory
from mirror.tls import Tls
from mirror.wiring import wired

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that goes on accepting for a while after it was told to stop, so that whoever balances can notice.

    Agents do not retry a refused connection. ``draining`` turns true at once, ``/readyz`` says so, and the listeners
    close only after ``drain_for`` seconds; then running requests have the time that the configuration allows.

    The first SIGTERM or SIGINT stops it in order, the second at once. A supervisor's worker may get the same SIGTERM
    twice, from whoever stops the whole group and from the supervisor; there SIGQUIT says that it is to hurry.
    """

    def __init__(self, config: uvicorn.Config, drain_for: float, *, supervised: bool) -> None:
        super().__init__(config)
        self._drain_for = drain_for
        self._hurried = asyncio.Event()
        self._handlers = (
            {signal.SIGTERM: self.stop, signal.SIGQUIT: self.hurry}
            if supervised
            else dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._told)
        )

    @property
    def draining(self) -> bool:
        """Whether it was told to stop."""
        return self.should_exit

    def stop(self) -> None:
        """Stop in order."""
        self.should_exit = True

    def hurry(self) -> None:
        """Stop at once."""
        self.should_exit = self.force_exit = True
        self._hurried.set()

    def _told(self) -> None:
        if self.should_exit:
            self.hurry()
        else:
            self.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while serving; unlike uvicorn's own, an orderly stop ends with status 0."""
        loop = asyncio.get_running_loop()
        for sig, handler in self._handlers.items():
            loop.add_signal_handler(sig, handler)
        try:
            yield
        finally:
            for sig in self._handlers:
                loop.remove_signal_handler(sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then let uvicorn close."""
        log.info("stopping: connections are accepted for another %g s; a second signal hurries", self._drain_for)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_for):
                await self._hurried.wait()
        await super().shutdown(sockets)


async def serve(
    settings: Settings, directory: DataDirectory, listeners: Listeners, tls: Tls | None, parent: int | None
) -> None:
    """Serve until told to stop. ``parent``: a descriptor that becomes readable when the supervisor has died."""
    _raise_file_limit()
    server: Server | None = None
    async with wired(settings, directory, lambda: server is not None and server.draining, listeners.at_admin()) as app:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=max(1, round(settings.stop_within)),
        )
        config.load()
        config.ssl = tls.context if tls is not None else None
        server = Server(config, settings.drain_for, supervised=parent is not None)
        watching = asyncio.create_task(tls.watch()) if tls is not None else None
        try:
            with _stopping_when_orphaned(parent, server):
                await server.serve(sockets=listeners.sockets)
        finally:
            if watching is not None:
                watching.cancel()


@contextlib.contextmanager
def _stopping_when_orphaned(parent: int | None, server: Server) -> Iterator[None]:
    """Stop in order once the supervisor has died."""
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(parent)  # it stays readable
        log.error("the supervisor has died; this worker stops too")
        server.stop()

    loop.add_reader(parent, stop)
    try:
        yield
    finally:
        loop.remove_reader(parent)


def _raise_file_limit() -> None:
    """A herd of agents is a connection each: take as many descriptors as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

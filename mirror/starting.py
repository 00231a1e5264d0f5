"""From settings to a mirror that serves, in one process or in several, until it is told to stop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable

import click
import uvloop

import mirror
from mirror import logs
from mirror.commands.greeting import greeting
from mirror.commands.text import count
from mirror.config import Settings
from mirror.errors import StartError
from mirror.listening import Listeners, address_of, bind
from mirror.server import serve
from mirror.store.directory import DataDirectory
from mirror.store.spool import sweep
from mirror.store.tallies import forget_tallies
from mirror.supervisor import Supervisor
from mirror.tls import Tls
from mirror.wiring import check_extras, check_metadata, check_secrets

log = logging.getLogger(__name__)

_FIRST = 1
"""The process that a container begins with: the kernel keeps from it each signal that it does not handle."""


def run(settings: Settings) -> int:
    """Serve; the exit status. Raises `StartError` when it cannot begin."""
    logs.configure(settings.log.level, settings.log.format)
    if os.getpid() == _FIRST:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until what serves takes its signals
    tls = Tls.load(settings)
    check_extras(settings)
    check_secrets(settings)
    directory = DataDirectory.open(settings.data_dir)
    resumable = sweep(directory)
    forget_tallies(directory.tallies)
    asyncio.run(check_metadata(directory))
    listeners = bind(settings)
    _announce(settings, listeners, resumable)

    def work(parent: int | None) -> int:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(settings, directory, listeners, tls, parent))
        except StartError as error:
            click.echo(f"wasm-mirror: {error}", err=True)
            return 2
        return 0

    status = _worked(settings, work, listeners)
    directory.close()
    log.info("stopped")
    return status


def _worked(settings: Settings, work: Callable[[int | None], int], listeners: Listeners) -> int:
    if settings.workers == 1:
        return work(None)
    return Supervisor(settings.workers, work, listeners.close).run()


def _announce(settings: Settings, listeners: Listeners, resumable: int) -> None:
    """Say where it serves, and to who looks at a terminal what to do next."""
    scheme = "https" if settings.tls.certificate is not None else "http"
    url = f"{scheme}://{address_of(listeners.registry)}"
    admin = url if listeners.admin is None else f"{scheme}://{address_of(listeners.admin)}"
    log.info(
        "wasm-mirror %s serves %s at %s%s; data in %s%s",
        mirror.__version__,
        ", ".join(settings.upstreams),
        url,
        "" if listeners.admin is None else f", the admin API at {admin}",
        settings.data_dir.absolute(),
        f", {count(resumable, 'download')} to resume" if resumable else "",
    )
    if sys.stderr.isatty() and settings.log.format == "text":
        for line in greeting(url, admin, tuple(settings.upstreams)):
            click.echo(f"  {line}", err=True)

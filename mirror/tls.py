"""Serving HTTPS from files that may be replaced while the mirror runs, as certificates are renewed."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Self

from mirror.config import Settings
from mirror.errors import StartError

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""


class Tls:
    """The certificate that is shown. Loaded once, before any worker starts, so that each can show one at once."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `OSError` (`ssl.SSLError` is one) when the files cannot be used."""
        self._files = certificate, key
        self._seen = self._stamps()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)

    @classmethod
    def load(cls, settings: Settings) -> Self | None:
        """From the files of the settings, None without any. Raises `StartError` when they cannot be used."""
        certificate, key = settings.tls.certificate, settings.tls.key
        if certificate is None or key is None:
            return None
        try:
            return cls(certificate, key)
        except OSError as error:
            raise StartError(
                f"tls.certificate {certificate} and tls.key {key} cannot be used: {error.strerror or error}"
            ) from error

    async def watch(self) -> None:
        """Show a new certificate to new connections, once both of its files are there and fit; until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            found = await asyncio.to_thread(self._stamps)
            if found != self._seen:
                self._seen = found
                await self._renew()

    async def _renew(self) -> None:
        try:
            # OpenSSL keeps one half of a pair that does not fit, so the pair is tried elsewhere first; and it is not
            # loaded in a thread, so that no handshake comes between the halves.
            await asyncio.to_thread(Tls, *self._files)
            self.context.load_cert_chain(*self._files)
        except OSError as error:
            log.error("the new TLS files cannot be used, the old ones stay: %s", error)
        else:
            log.info("the TLS files were read again")

    def _stamps(self) -> tuple[int | None, ...]:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None

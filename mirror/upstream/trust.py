"""Whom we believe to be who they say, and whom we show a certificate of our own: TLS for each endpoint."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Protocol

import httpx

from mirror.config import EndpointSettings
from mirror.upstream.watched import Watched


class Reach(Enum):
    """Where a host was named, which decides what it is trusted with."""

    ENDPOINT = auto()
    """It is the endpoint itself."""
    NAMED = auto()
    """The settings name it beside the endpoint: in `auth_hosts`, or in `redirect_hosts`."""
    REPLICA = auto()
    """Redis names it as another replica: it may be inside the network, but not at an address that none can have."""
    LEARNT = auto()
    """Only an answer named it: it is dialled under guard."""


class Trust(Protocol):
    """Gives the TLS context for the next connection; raises `UpstreamUnavailable` when its files cannot be read."""

    async def context(self, reach: Reach) -> ssl.SSLContext: ...


@dataclass(frozen=True, slots=True)
class OneTrust:
    """The same context for all hosts."""

    tls: ssl.SSLContext

    async def context(self, reach: Reach) -> ssl.SSLContext:
        """Always that one."""
        return self.tls


@cache
def usual() -> ssl.SSLContext:
    """Trust in the usual authorities, or those of ``SSL_CERT_FILE``; shared, for reading them takes 40 ms."""
    return httpx.create_ssl_context()


def trust_of(endpoint: EndpointSettings, setting: str, clock: Callable[[], float]) -> Trust | None:
    """What the files of ``endpoint``, which stands at the key ``setting``, say; None where it has none."""
    names = ("ca_file", "client_certificate", "client_key")
    given = {name: path for name in names if (path := getattr(endpoint, name)) is not None}
    if not given:
        return None

    def load(*paths: Path) -> _Contexts:
        return _load(**dict(zip(given, paths, strict=True)))

    return _FileTrust(Watched({f"{setting}.{name}": path for name, path in given.items()}, load, clock))


def trust_in(ca_file: Path | None, setting: str, clock: Callable[[], float]) -> Trust | None:
    """Trust in the authorities of a file, at the key ``setting``, beside the usual ones; None without a file."""
    return None if ca_file is None else _FileTrust(Watched({setting: ca_file}, _load, clock))


@dataclass(frozen=True, slots=True)
class _Contexts:
    endpoint: ssl.SSLContext
    named: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class _FileTrust:
    """A private authority counts for the hosts that the settings name; a client certificate is for the endpoint alone:
    who sees it learns who we are, and could not be kept from asking for it.
    """

    files: Watched[_Contexts]

    async def context(self, reach: Reach) -> ssl.SSLContext:
        match reach:
            case Reach.ENDPOINT:
                return (await self.files.get()).endpoint
            case Reach.NAMED | Reach.REPLICA:
                return (await self.files.get()).named
            case Reach.LEARNT:
                return usual()


def _load(
    ca_file: Path | None = None, client_certificate: Path | None = None, client_key: Path | None = None
) -> _Contexts:
    named = usual() if ca_file is None else _trusting(ca_file)
    if client_certificate is None:
        return _Contexts(named, named)
    endpoint = _trusting(ca_file)
    endpoint.load_cert_chain(client_certificate, client_key, password="")  # without one a terminal would be asked
    return _Contexts(endpoint, named)


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context

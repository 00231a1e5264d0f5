"""Whom a URL reaches: comparing origins, and finding a host among those that the settings name."""

from collections.abc import Iterable

import httpx

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port; credentials stay within one of these."""
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)


def is_named(url: httpx.URL, hosts: Iterable[str]) -> bool:
    """Whether one of ``hosts`` (``host``, or ``host:port`` where it is not the scheme's own) is that of ``url``."""
    return any(origin_of(url) == origin_of(httpx.URL(f"{url.scheme}://{host}")) for host in hosts)


def host_of(url: httpx.URL) -> str:
    """``host`` or ``host:port``, as people know it; never user, path or query."""
    return url.netloc.decode("ascii")

"""Which proxy a request goes through, as the environment says. Pure.

``HTTPS_PROXY`` is for endpoints with https, ``HTTP_PROXY`` for those without, ``NO_PROXY`` for what is asked directly;
each may be in lower case, which wins. They mean what they mean to docker, containerd and curl. There is no standard;
see https://pkg.go.dev/golang.org/x/net/http/httpproxy.
"""

import ipaddress
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import SecretStr

from mirror.config import hosts
from mirror.errors import UpstreamUnavailable
from mirror.upstream.origins import origin_of

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_THIS_MACHINE = {"localhost", "localdomain", "ip6-localhost", "ip6-loopback"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. ``authorization`` is the value of ``Proxy-Authorization``; ``variable`` is where its URL stands."""

    host: str
    port: int
    tls: bool
    authorization: SecretStr | None
    variable: str

    @property
    def name(self) -> str:
        """How messages call it; never with credentials."""
        return hosts.join(self.host, self.port)


class Proxies:
    """The proxies for all requests; none of them unless `of` finds some."""

    def __init__(self) -> None:
        self._proxies: dict[str, Proxy | str] = {}  # by scheme; a name of a variable that cannot be used
        self._direct: tuple[_Direct, ...] = ()
        self._all_direct = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """What ``environment`` says."""
        proxies = cls()
        for scheme in _DEFAULT_PORTS:
            variable = f"{scheme}_proxy"
            if not environment.get(variable):
                variable = variable.upper()
            value = environment.get(variable, "").strip()
            if value:
                proxies._proxies[scheme] = _proxy(value, variable) or variable
        words = re.split(r"[,\s]+", environment.get("no_proxy") or environment.get("NO_PROXY") or "")
        proxies._all_direct = "*" in words
        proxies._direct = tuple(_exceptions(words))
        return proxies

    def between(self, url: httpx.URL) -> Proxy | None:
        """The proxy through which ``url`` is asked for, None for none; this machine is never behind one.

        Raises `UpstreamUnavailable` when the variable that says so cannot be used.
        """
        found = self._proxies.get(url.scheme)
        if found is None or self._all_direct:
            return None
        host, port = url.raw_host.decode("ascii").lower().removesuffix("."), origin_of(url)[2]
        if hosts.is_loopback(host) or any(exception.covers(host, port) for exception in self._direct):
            return None
        if isinstance(found, str):
            raise UpstreamUnavailable(
                f"the environment variable {found} must be the URL of a proxy, such as http://proxy.example:3128"
            )
        return found


def may_be_asked_of_a_proxy(host: str) -> bool:
    """Whether a host that only an answer named may be reached through a proxy, where nobody here sees its address.

    An address may not, however it is spelt (``2130706433``, ``0x7f.1``), nor this machine; nor what is no name at all,
    which the proxy might understand in its own way.
    """
    name = host.lower().removesuffix(".")
    located = hosts.split(name)
    if located is None or located[1] is not None or _ENDS_IN_NUMBER.fullmatch(name) or ":" in name:
        return False
    return name.rpartition(".")[2] not in _THIS_MACHINE


def _proxy(value: str, variable: str) -> Proxy | None:
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        host, port = url.hostname, url.port
    except ValueError:
        return None
    if url.scheme not in _DEFAULT_PORTS or not host or hosts.split(hosts.join(host, None)) is None:
        return None
    authorization = None
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        authorization = SecretStr(f"Basic {b64encode(pair).decode('ascii')}")
    return Proxy(host, port or _DEFAULT_PORTS[url.scheme], url.scheme == "https", authorization, variable)


@dataclass(frozen=True, slots=True)
class _Direct:
    """What one word of ``NO_PROXY`` covers: a network, or a name and what is below it; at ``port`` alone, if any."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    name: str = ""
    itself: bool = True
    port: int | None = None

    def covers(self, host: str, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return (self.itself and host == self.name) or host.endswith(f".{self.name}")
        try:
            return ipaddress.ip_address(host) in self.network
        except ValueError:
            return False


def _exceptions(words: list[str]) -> Iterator[_Direct]:
    """Those that can be understood; a word that cannot is passed over, as everywhere."""
    for word in words:
        word = word.lower().removeprefix("*").removesuffix(".")
        below_only = word.startswith(".")
        try:
            yield _Direct(network=ipaddress.ip_network(word, strict=False))
            continue
        except ValueError:
            pass
        located = hosts.split(word.removeprefix("."))
        if located is None:
            continue
        host, port = located
        try:
            yield _Direct(network=ipaddress.ip_network(host), port=port)
        except ValueError:
            yield _Direct(name=host, itself=not below_only, port=port)

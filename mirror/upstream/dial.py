"""Dialling: which addresses may be reached, and connecting to the very address that was checked.

Endpoints stand in the settings and may be anywhere. A host learnt from an answer (a realm, a redirect) may only be a
public address: it is judged after it was resolved, and the connection goes to what was judged, so that no second answer
of the DNS comes in between.

Through a proxy nothing can be judged but the name; where it leads is the proxy's policy.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

import httpcore

from mirror.config import hosts
from mirror.upstream.proxy import Proxy, may_be_asked_of_a_proxy
from mirror.upstream.stream import Stream

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host, best first; raises `OSError` when there are none."""

_HEAD_START = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305, "Connection Attempt Delay")."""

# Not named by the attributes of Python's `ipaddress`, or only in some versions of it.
_FORBIDDEN_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; clouds keep metadata services there
        "168.63.129.16/32",  # Azure's platform service, on a public address
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",
    )
]
# Where clouds keep their metadata services, beside the link-local addresses.
_NO_REPLICAS = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure
        "192.0.0.0/24",  # Oracle
        "240.0.0.0/4",
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google
    )
]
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_FORBIDDEN_V6 = [ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_MAX_PROXY_HEADER = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an IP address is of the public internet, and not one that only looks so from outside.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64, 6to4) is as public as that one.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is None:
            return address in _PUBLIC_V6 and not any(address in network for network in _FORBIDDEN_V6)
        address = inner
    return address.is_global and not (
        address.is_multicast or address.is_reserved or any(address in network for network in _FORBIDDEN_V4)
    )


def may_be_a_replica(text: str) -> bool:
    """Whether another replica may have an IP address: not this machine, nor one where a cloud tells who we are."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded(address) or address
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or any(address in network for network in _NO_REPLICAS if network.version == address.version)
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's answer for ``host``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))


class NotPublic(httpcore.ConnectError):
    """A guarded host has an address that is not of the public internet."""


class ProxyFailed(httpcore.ConnectError):
    """The way through a proxy cannot be had; the words go on from "HOST cannot be reached: "."""


class Dialler(httpcore.AsyncNetworkBackend):
    """Resolves, judges and connects. A ``guarded`` one connects only to addresses that ``admits``, else public ones."""

    def __init__(
        self, *, guarded: bool, resolver: Resolver = resolve, admits: Callable[[str], bool] | None = None
    ) -> None:
        self._guarded = guarded
        self._resolve = resolver
        self._admits = admits

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Stream:
        """Connect to ``host``; raises `NotPublic` when a guarded host has an address that is not."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
                if self._guarded and not all(map(self._admits or is_public, addresses)):
                    raise NotPublic(host)
                return await _connect_to_any(addresses, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"accepts no connection within {timeout:g} s") from error
        except OSError as error:
            raise httpcore.ConnectError(error) from error  # as an argument, for the pool drops causes

    async def sleep(self, seconds: float) -> None:
        """Pause."""
        await asyncio.sleep(seconds)


class ProxyDialler(httpcore.AsyncNetworkBackend):
    """Connects to a proxy in the place of each host: for TLS through a ``tunnel``, else to hand requests over to it.

    A ``guarded`` host may be no address and not this machine. ``tls`` is for a proxy that is itself asked by https.
    """

    def __init__(
        self, proxy: Proxy, *, tunnel: bool, guarded: bool, tls: ssl.SSLContext, resolver: Resolver = resolve
    ) -> None:
        self._proxy = proxy
        self._tunnel = tunnel
        self._guarded = guarded
        self._tls = tls
        self._resolve = resolver

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Stream:
        """Connect to the proxy, and let it connect to ``host``; raises `NotPublic` or `ProxyFailed`."""
        if self._guarded and not may_be_asked_of_a_proxy(host):
            raise NotPublic(host)
        try:
            async with asyncio.timeout(timeout):
                stream = await self._connect()
                try:
                    if self._tunnel:
                        await self._ask_for(stream, hosts.join(host, port))
                except BaseException:
                    await stream.aclose()
                    raise
                return stream
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(
                f"cannot be reached within {timeout:g} s through the proxy {self._proxy.name}"
            ) from error

    async def sleep(self, seconds: float) -> None:
        """Pause."""
        await asyncio.sleep(seconds)

    async def _connect(self) -> Stream:
        proxy = self._proxy
        try:
            stream = await _connect_to_any(await self._resolve(proxy.host, proxy.port), proxy.port)
            return await stream.start_tls(self._tls, proxy.host) if proxy.tls else stream
        except (OSError, httpcore.ConnectError) as error:
            raise ProxyFailed(
                f"the proxy {proxy.name} of {proxy.variable} cannot be connected to ({_reason(error)})"
            ) from error

    async def _ask_for(self, stream: Stream, authority: str) -> None:
        """Have the proxy connect to ``authority`` (RFC 9110, section 9.3.6)."""
        proxy = self._proxy
        header = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if proxy.authorization is not None:
            header += f"Proxy-Authorization: {proxy.authorization.get_secret_value()}\r\n"
        answer = b""
        try:
            await stream.write(f"{header}\r\n".encode("ascii"))
            while b"\r\n\r\n" not in answer and len(answer) <= _MAX_PROXY_HEADER:
                piece = await stream.read(_MAX_PROXY_HEADER)
                if not piece:
                    break
                answer += piece
        except httpcore.NetworkError as error:
            raise ProxyFailed(f"the proxy {proxy.name} of {proxy.variable} cuts the connection") from error
        found = _STATUS_LINE.match(answer)
        status = int(found[1]) if found else 0
        if status >= 300:
            raise ProxyFailed(refusal(proxy, status))
        if status < 200 or not answer.endswith(b"\r\n\r\n"):  # who is asked for TLS does not speak first
            raise ProxyFailed(f"the proxy {proxy.name} of {proxy.variable} does not answer as one")


def refusal(proxy: Proxy, status: int) -> str:
    """What a proxy's refusal with ``status`` means."""
    if status != 407:
        return f"the proxy {proxy.name} of {proxy.variable} answers {status}"
    if proxy.authorization is None:
        return f"the proxy {proxy.name} wants credentials (407); write them into the URL in {proxy.variable}"
    return f"the proxy {proxy.name} refuses the credentials in {proxy.variable} (407)"


def _reason(error: Exception) -> str:
    cause = error.args[0] if isinstance(error, httpcore.ConnectError) else error
    return str(getattr(cause, "strerror", None) or cause)


async def _connect_to_any(addresses: Sequence[str], port: int) -> Stream:
    """The first connection that comes about; each address gets a head start over the next (RFC 8305)."""
    failure: BaseException = OSError("it has no address")
    waiting = list(_alternating(addresses))
    tasks: set[asyncio.Task[Stream]] = set()
    pending: set[asyncio.Task[Stream]] = set()
    try:
        while waiting or pending:
            if waiting:
                task = asyncio.create_task(Stream.connect(waiting.pop(0), port))
                tasks.add(task)
                pending.add(task)
            patience = _HEAD_START if waiting else None
            done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    tasks.discard(task)
                    return task.result()
                failure = error
        raise failure
    finally:
        await _abandon(tasks)


async def _abandon(tasks: Collection[asyncio.Task[Stream]]) -> None:
    """Give up attempts, and close those that came about nevertheless."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await task.result().aclose()


def _alternating(addresses: Sequence[str]) -> Iterable[str]:
    """The same addresses, the two families by turns, each in its order."""
    first_is_v6 = ":" in addresses[0] if addresses else False
    ours = [address for address in addresses if (":" in address) == first_is_v6]
    others = [address for address in addresses if (":" in address) != first_is_v6]
    for index in range(max(len(ours), len(others))):
        yield from ours[index : index + 1]
        yield from others[index : index + 1]

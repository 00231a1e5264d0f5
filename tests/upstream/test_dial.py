"""Which addresses may be dialled, and that what is dialled is what was judged."""

import asyncio
import socket
from collections.abc import Sequence

import httpcore
import pytest

from mirror.upstream import dial
from mirror.upstream.dial import Dialler, NotPublic, is_public, may_be_a_replica
from mirror.upstream.stream import Stream
from tests.upstream.support import Resolver


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "140.82.121.33",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_the_public_internet_may_be_dialled(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "3fff::1", "2001::1", "2001:10::1", "100::1", "5f00::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::",
        "2002:a9fe:a9fe::1", "2002:a00:1::1",
    ],
)  # fmt: skip
def test_no_other_address_may_be_dialled(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.4", "172.20.0.3", "100.64.0.9", "fd12::5", "8.8.8.8"])
def test_another_replica_may_be_inside_the_network(address: str) -> None:
    assert may_be_a_replica(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0",
        "224.0.0.1", "ff02::1", "255.255.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
        "fd20:ce::254", "::ffff:169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_no_replica_has_an_address_of_this_machine_or_of_a_clouds_metadata(address: str) -> None:
    assert not may_be_a_replica(address)


class Listener:
    """A socket that listens on ``port`` of an address of this machine, and knows from where it was connected to."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._socket = socket.create_server((address, port))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    @property
    def was_connected_to(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["169.254.169.254"], ["::1"]])
async def test_a_guarded_host_with_an_address_that_is_not_public_is_not_dialled(addresses: Sequence[str]) -> None:
    with Listener("127.0.0.1") as listener:
        dialler = Dialler(guarded=True, resolver=Resolver(**{"evil.example": addresses}))
        with pytest.raises(NotPublic):
            await dialler.connect_tcp("evil.example", listener.port, timeout=5)
        assert not listener.was_connected_to


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "0", "::1", "::ffff:127.0.0.1"]
)
async def test_other_ways_to_write_this_machine_do_not_get_by(host: str) -> None:
    with pytest.raises((NotPublic, httpcore.ConnectError)):
        await Dialler(guarded=True).connect_tcp(host, 9, timeout=5)


async def test_a_trusted_host_may_be_anywhere() -> None:
    with Listener("127.0.0.1") as listener:
        dialler = Dialler(guarded=False, resolver=Resolver(**{"registry.corp": ["127.0.0.1"]}))
        stream = await dialler.connect_tcp("registry.corp", listener.port, timeout=5)
        await stream.aclose()
        assert listener.was_connected_to


async def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS that answers otherwise the second time (rebinding) gains nothing: there is no second time."""
    monkeypatch.setattr(dial, "is_public", lambda address: address == "127.0.0.2")
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    with Listener("127.0.0.2") as judged, Listener("127.0.0.1", judged.port) as inner:
        stream = await Dialler(guarded=True, resolver=rebinding).connect_tcp("evil.example", judged.port, timeout=5)
        await stream.aclose()
        assert judged.was_connected_to
        assert not inner.was_connected_to
        assert next(answers) == ["127.0.0.1"]


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    with Listener("127.0.0.1") as listener:
        resolver = Resolver(host=["127.0.0.3", "::1", "127.0.0.1"])
        stream = await Dialler(guarded=False, resolver=resolver).connect_tcp("host", listener.port, timeout=5)
        await stream.aclose()
        assert listener.was_connected_to


async def test_an_address_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind = asyncio.Event()
    connect = Stream.connect.__func__  # type: ignore[attr-defined]  # the function of a class method

    async def never(cls: type[Stream], address: str, port: int) -> Stream:
        if address != "127.0.0.1":
            try:
                await asyncio.Event().wait()
            finally:
                left_behind.set()
        stream: Stream = await connect(cls, address, port)
        return stream

    monkeypatch.setattr(Stream, "connect", classmethod(never))
    with Listener("127.0.0.1") as listener:
        resolver = Resolver(host=["2001:db8::1", "127.0.0.1"])
        stream = await Dialler(guarded=False, resolver=resolver).connect_tcp("host", listener.port, timeout=5)
        await stream.aclose()
        assert listener.was_connected_to
    assert left_behind.is_set()


async def test_a_resolver_that_hangs_is_a_timeout() -> None:
    async def hangs(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(httpcore.ConnectTimeout, match=r"within 0\.05 s"):
        await Dialler(guarded=False, resolver=hangs).connect_tcp("host", 1, timeout=0.05)


async def test_a_name_that_does_not_resolve_is_a_failure_to_connect() -> None:
    with pytest.raises(httpcore.ConnectError) as failed:
        await Dialler(guarded=False).connect_tcp("does-not-exist.invalid", 1, timeout=5)
    assert isinstance(failed.value.args[0], socket.gaierror)

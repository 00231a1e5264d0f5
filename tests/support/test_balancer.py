"""The balancer of the tests does as a Service does."""

import asyncio
import contextlib
import random
import socket
import socketserver
import threading

import httpx
import pytest

from tests.support.asking import ask
from tests.support.balancer import Balancer, Delayed
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

NEVER = 1e9  # seconds


def address(balancer: Balancer) -> tuple[str, int]:
    host, _, port = balancer.host.rpartition(":")
    return host, int(port)


def ready(up: FaultyUpstream, says: bool = True) -> FaultyUpstream:
    """``up``, whose ``/readyz`` answers 200, or 503."""
    up.inject(Fault(status=200 if says else 503), path="^/readyz$")
    return up


def test_a_change_counts_after_its_delay_and_in_its_order() -> None:
    seen = Delayed(True, follows=2.0)
    seen.see(False, now=10.0)
    seen.see(False, now=10.5)
    seen.see(True, now=11.0)
    assert [seen.at(now) for now in (10.0, 11.9, 12.0, 12.9, 13.0, 99.0)] == [True, True, False, False, True, True]


async def test_connections_go_to_the_ready_backends_by_turns() -> None:
    with FaultyUpstream() as first, FaultyUpstream() as second, FaultyUpstream() as down:
        ready(first), ready(second), ready(down, says=False)
        with Balancer([first.host, down.host, second.host], follows=NEVER) as balancer:
            assert balancer.targets == [first.host, second.host]
            for _ in range(6):
                assert (await ask(address(balancer), "/v2/")).status == 200
            assert balancer.passed == {first.host: 3, second.host: 3}
            assert first.count(path="^/v2/$") == second.count(path="^/v2/$") == 3


async def test_connections_go_to_whichever_is_drawn() -> None:
    draws = random.Random(7)
    drawn = [draws.choice((0, 1)) for _ in range(20)]
    with FaultyUpstream() as first, FaultyUpstream() as second:
        ready(first), ready(second)
        backends = [first.host, second.host]
        with Balancer(backends, follows=NEVER, at_random=random.Random(7)) as balancer:
            for number in drawn:
                before = balancer.passed[backends[number]]
                assert (await ask(address(balancer), "/v2/")).status == 200
                assert balancer.passed[backends[number]] == before + 1


async def test_a_client_that_keeps_connections_has_a_new_one_for_each_request() -> None:
    content = bytes(range(256)) * 4096  # 1 MiB
    with FaultyUpstream() as up:
        digest = ready(up).add_blob("team/plugin", content)
        with Balancer([up.host], follows=NEVER, each_request=True) as balancer:
            async with httpx.AsyncClient(base_url=balancer.url, trust_env=False) as client:
                for _ in range(3):
                    assert (await client.get(f"/v2/team/plugin/blobs/{digest}")).content == content
            assert balancer.passed == {up.host: 3}


class GivesBack(socketserver.StreamRequestHandler):
    """Is ready, and gives back what is not HTTP."""

    def handle(self) -> None:
        heard = self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" if heard.startswith(b"GET") else heard)


def test_a_client_that_tries_tls_first_is_not_kept_waiting_for_a_head() -> None:
    hello = b"\x16\x03\x01 no head\n"
    with socketserver.TCPServer(("127.0.0.1", 0), GivesBack) as backend:
        serving = threading.Thread(target=backend.serve_forever)
        serving.start()
        at = f"127.0.0.1:{backend.server_address[1]}"
        with (
            Balancer([at], follows=NEVER, each_request=True) as balancer,
            socket.create_connection(address(balancer), timeout=5) as client,
        ):
            client.sendall(hello)
            assert client.recv(100) == hello
        backend.shutdown()
        serving.join()


async def test_a_backend_that_stops_being_ready_is_followed_after_the_delay_and_not_before() -> None:
    now = 0.0
    with FaultyUpstream() as up:
        ready(up)
        with Balancer([up.host], follows=2.0, clock=lambda: now) as balancer:
            ready(up, says=False)
            polled = up.count(path="^/readyz$")
            await eventually(lambda: up.count(path="^/readyz$") > polled + 3)
            now = 1.9
            assert (await ask(address(balancer), "/v2/")).status == 200
            now = 2.0
            assert balancer.targets == []
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await ask(address(balancer), "/v2/")
            assert balancer.turned_away == 1
            ready(up)
            polled = up.count(path="^/readyz$")
            await eventually(lambda: up.count(path="^/readyz$") > polled + 3)
            assert balancer.targets == []
            now = 4.0
            assert balancer.targets == [up.host]


async def test_a_connection_to_a_backend_that_died_is_reset_until_the_delay_is_over() -> None:
    with FaultyUpstream() as up:
        ready(up)
        with Balancer([up.host], follows=NEVER) as balancer:
            up.refuse()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await ask(address(balancer), "/v2/")
            assert (balancer.turned_away, balancer.passed) == (1, {})


async def test_a_backend_that_never_answers_is_not_ready() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True), path="^/readyz$")
        with Balancer([up.host], follows=0.0) as balancer:
            assert balancer.targets == []


async def test_an_established_connection_outlives_its_backends_readiness() -> None:
    content = bytes(range(256)) * 8192  # 2 MiB
    gate = Gate()
    with FaultyUpstream() as up:
        digest = ready(up).add_blob("team/plugin", content)
        up.inject(Fault(gate=gate, gate_at=1 << 20), path="/blobs/")
        with Balancer([up.host], follows=0.0) as balancer:
            pull = asyncio.create_task(ask(address(balancer), f"/v2/team/plugin/blobs/{digest}"))
            await gate.reached()
            ready(up, says=False)
            await eventually(lambda: balancer.targets == [])
            gate.release()
            reply = await pull
    assert reply.whole
    assert reply.body == content


async def test_a_cut_is_seen_by_the_client_as_a_cut() -> None:
    with FaultyUpstream() as up:
        digest = ready(up).add_blob("team/plugin", bytes(100_000))
        up.inject(Fault(cut_after=50_000, reset=True), path="/blobs/")
        with Balancer([up.host], follows=NEVER) as balancer:
            reply = await ask(address(balancer), f"/v2/team/plugin/blobs/{digest}")
    assert not reply.whole


async def test_a_client_that_leaves_is_gone_for_the_backend_too() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True), path="^/v2/$")
        ready(up)
        with Balancer([up.host], follows=NEVER) as balancer:
            _, writer = await asyncio.open_connection(*address(balancer))
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: up.count(path="^/v2/$") == 1)
            writer.transport.abort()
            await eventually(lambda: up.open_connections == 0, what="the backend's connections are closed")


async def test_closing_ends_what_is_open() -> None:
    with FaultyUpstream() as up:
        ready(up).inject(Fault(hang=True), path="^/v2/$")
        with Balancer([up.host], follows=NEVER) as balancer:
            asked = asyncio.create_task(ask(address(balancer), "/v2/"))
            await eventually(lambda: up.count(path="^/v2/$") == 1)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await asked

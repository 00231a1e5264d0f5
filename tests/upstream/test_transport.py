"""Requests on the wire: what a failure of TLS is called, and which connections are shared."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpcore
import httpx
import pytest

from mirror.errors import UpstreamUnavailable
from mirror.upstream.transport import Transport, translated
from mirror.upstream.trust import OneTrust, Reach
from tests.support.certificates import Certificate, self_signed
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import showing

_URL = httpx.URL("https://registry.example")


@contextlib.contextmanager
def greeting(context: ssl.SSLContext) -> Iterator[int]:
    """A port of this machine where TLS begins once, as OpenSSL does it: with an alert for what it does not like."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            wrapped = context.wrap_socket(listener.accept()[0], server_side=True, do_handshake_on_connect=False)
            with contextlib.suppress(OSError):
                wrapped.do_handshake()
            with socket.socket(fileno=wrapped.detach()) as plain:
                while plain.recv(65536):  # to its end, so that the alert is not lost in a reset
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=10)
        assert not thread.is_alive()


async def ask(transport: Transport, port: int) -> httpx.Response:
    request = httpx.Request("GET", f"https://127.0.0.1:{port}/v2/")
    try:
        return await transport.send(request, reach=Reach.ENDPOINT, endpoint=f"127.0.0.1:{port}")
    finally:
        await transport.aclose()


def certificates(folder: Path) -> tuple[Certificate, Certificate]:
    for name in ("server", "client"):
        (folder / name).mkdir()
    return self_signed(folder / "server"), self_signed(folder / "client")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", [False, True])
async def test_who_wants_another_client_certificate_is_told_by_the_setting(
    tmp_path: Path, version: ssl.TLSVersion, shown: bool
) -> None:
    """In TLS 1.3 the server says so after we took the handshake for done."""
    server, client = certificates(tmp_path)
    context = showing(server, to=client)
    context.maximum_version = version
    trust = server.for_clients
    if shown:
        trust.load_cert_chain(server.certificate, server.key)
    told = r"does not take the client_certificate .* or wants one"
    with greeting(context) as port, pytest.raises(UpstreamUnavailable, match=told):
        await ask(Transport(trust=OneTrust(trust)), port)


async def test_who_does_not_speak_tls_is_an_outage() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(UpstreamUnavailable, match="does not speak TLS as we do"):
            await ask(Transport(), server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpcore.ReadError(ConnectionResetError()), "cut the connection"),
        (httpcore.ReadError(None), "cut the connection"),
        (httpcore.ReadError(), "cut the connection"),
        (httpcore.ReadError(ssl.SSLError(1, "bad record")), "does not speak TLS as we do"),
        (httpcore.ConnectError(OSError()), "cannot be reached"),
        (httpcore.ConnectError(ConnectionRefusedError()), "refuses connections"),
        (httpcore.RemoteProtocolError("x"), "ended its answer too early"),
    ],
)
def test_a_failure_of_the_network_has_words(error: Exception, words: str) -> None:
    failure = translated(error, _URL, "registry.example")
    assert isinstance(failure, UpstreamUnavailable)
    assert words in failure.message


async def test_connections_are_not_shared_between_those_who_may_do_more_and_less(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        transport = Transport()
        request = httpx.Request("GET", f"{up.url}/v2/")
        for reach in (Reach.ENDPOINT, Reach.NAMED, Reach.ENDPOINT, Reach.NAMED):
            response = await transport.send(request, reach=reach, endpoint=up.host)
            await response.aread()
        assert up.accepted_connections == 2
        await transport.aclose()

"""`wasm-mirror health`: what a container's health check hears."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.config import Settings
from mirror.health import fault
from tests.support.certificates import self_signed


@contextmanager
def answering(status: int, said: bytes, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """What answers `/readyz` with this alone; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def at(listen: str, **more: object) -> Settings:
    return Settings.model_validate({"upstreams": {"ghcr.io": {}}, "listen": listen, **more})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_mirror_that_is_ready_is_well_wherever_it_listens(address: str) -> None:
    with answering(200, b"ready\n") as port:
        assert fault(at(f"{address}:{port}")) is None


def test_a_mirror_that_stops_is_not_and_its_words_are_passed_on() -> None:
    with answering(503, b"stopping\n") as port:
        assert fault(at(f"0.0.0.0:{port}")) == f"0.0.0.0:{port} answers 503: stopping"


def test_a_mirror_with_tls_is_asked_over_tls(tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    with answering(200, b"ready\n", context) as port:
        assert fault(at(f"127.0.0.1:{port}", tls=tls)) is None
        assert "does not answer" in (fault(at(f"127.0.0.1:{port}")) or ""), "it has no other port"


def test_where_nothing_listens_it_does_not_answer() -> None:
    with answering(200, b"") as port:
        pass
    assert "does not answer" in (fault(at(f"127.0.0.1:{port}")) or "")


def test_any_free_port_cannot_be_asked() -> None:
    assert "no port to ask at" in (fault(at("127.0.0.1:0")) or "")

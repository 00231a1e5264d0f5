"""The admin API at a port of its own, as a process: every worker serves both, and TLS is for both."""

import socket
from pathlib import Path

import pytest

from tests.integration.client import get
from tests.integration.test_start_stop import NOWHERE, refusal
from tests.integration.test_tls import certificate, tls
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess


@pytest.mark.integration
async def test_every_worker_serves_both_ports_and_both_have_tls(tmp_path: Path) -> None:
    workers = 2
    files = certificate(tmp_path / "tls")
    with ReservedPort() as port:
        own = f"127.0.0.1:{port.number}"
        settings = {**tls(files), "workers": workers, "admin": {"listen": own}}
        with MirrorProcess(tmp_path / "mirror", NOWHERE, settings) as mirror:
            for _ in range(4 * workers):  # a new connection each, which any worker takes
                for url in (mirror.url, f"https://{own}"):
                    assert (await get(url, "/readyz", tls=files.for_clients)).status == 200
                assert (await get(mirror.url, "/v2/", tls=files.for_clients)).status == 200
                assert (await get(mirror.url, "/api/v1/upstreams", tls=files.for_clients)).status == 404
                assert (await get(f"https://{own}", "/api/v1/upstreams", tls=files.for_clients)).status == 200
                assert (await get(f"https://{own}", "/v2/", tls=files.for_clients)).status == 404
            assert f"the admin API at https://{own}" in mirror.log_text()
            mirror.restart()
            assert (await get(f"https://{own}", "/metrics", tls=files.for_clients)).status == 200


def test_a_port_of_its_own_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        line = refusal(MirrorProcess(tmp_path, NOWHERE, {"admin": {"listen": taken}}))
    assert f"{taken} is in use by " in line
    assert "stop it, or set `admin.listen` to another address" in line

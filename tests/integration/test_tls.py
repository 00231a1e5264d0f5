"""HTTPS from files that may be replaced, and agents that try TLS where there is none."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import blob, get, manifest
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.certificates import Certificate, self_signed
from tests.support.process import WORKERS, MirrorProcess, clean_environment
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
NOWHERE = {"up": "http://127.0.0.1:1"}
CLIENT_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(154)


def certificate(folder: Path) -> Certificate:
    folder.mkdir()
    return self_signed(folder)


def tls(files: Certificate) -> dict[str, object]:
    return {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}


def shown_certificate(mirror: MirrorProcess) -> bytes | None:
    """The certificate that a new connection is shown, None when there is no handshake."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    host, _, port = mirror.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        try:
            with anyone.wrap_socket(plain) as secured:
                return secured.getpeercert(binary_form=True)
        except (ssl.SSLError, ConnectionError):
            return None


def in_file(files: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


@pytest.mark.parametrize("workers", WORKERS)
async def test_a_pull_over_tls(tmp_path: Path, workers: int) -> None:
    files = certificate(tmp_path / "tls")
    settings = {**tls(files), "workers": workers}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        artifact = raw(wasm_module(2_000_000))
        publish(up, "team/plugin", "v1", artifact)
        for _ in range(2):
            got = await manifest(mirror.url, NAME, "v1", tls=files.for_clients)
            assert (got.status, got.body) == (200, artifact.body)
            got = await blob(mirror.url, NAME, artifact.layers[0], tls=files.for_clients)
            assert (got.status, Digest.of(got.body)) == (200, artifact.layers[0])


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.shows("new files for HTTPS do not fit together")
def test_new_files_are_used_for_new_connections_once_they_fit(tmp_path: Path, workers: int) -> None:
    old, new = certificate(tmp_path / "old"), certificate(tmp_path / "new")
    used = Certificate(Path(shutil.copy(old.certificate, tmp_path)), Path(shutil.copy(old.key, tmp_path)))
    with MirrorProcess(tmp_path / "mirror", NOWHERE, {**tls(used), "workers": workers}) as mirror:
        assert shown_certificate(mirror) == in_file(old)
        shutil.copy(new.certificate, used.certificate)  # the key is still that of the old one
        refused = "the new TLS files cannot be used, the old ones stay"
        wait_until(lambda: mirror.log_text().count(refused) == workers, what="the half of a pair is noticed")
        assert {shown_certificate(mirror) for _ in range(10)} == {in_file(old)}
        shutil.copy(new.key, used.key)
        read = "the TLS files were read again"
        wait_until(lambda: mirror.log_text().count(read) == workers, what="the pair is noticed")
        assert {shown_certificate(mirror) for _ in range(10)} == {in_file(new)}


def no_certificate(files: Certificate, other: Certificate) -> Path:
    files.certificate.unlink()
    return files.certificate


def no_key(files: Certificate, other: Certificate) -> Path:
    files.key.unlink()
    return files.key


def another_key(files: Certificate, other: Certificate) -> Path:
    shutil.copy(other.key, files.key)
    return files.key


@pytest.mark.parametrize("spoil", [no_certificate, no_key, another_key])
def test_files_that_cannot_be_used_are_said_in_one_line(
    tmp_path: Path, spoil: Callable[[Certificate, Certificate], Path]
) -> None:
    files = certificate(tmp_path / "tls")
    named = spoil(files, certificate(tmp_path / "other"))
    mirror = MirrorProcess(tmp_path / "mirror", NOWHERE, tls(files))
    done = subprocess.run(mirror.command, env=clean_environment(), capture_output=True, text=True, timeout=30)
    mirror.close()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert str(named) in line
    assert "tls.key" in line


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_tls_attempt_on_the_plain_port_is_answered_in_http_and_worth_no_line(
    tmp_path: Path, level: str
) -> None:
    """Agents fall back to plain HTTP when a handshake is answered with ``HTTP/…``, and only then."""
    with MirrorProcess(tmp_path, NOWHERE, {"log": {"level": level}}) as mirror:
        host, _, port = mirror.host.partition(":")
        for _ in range(3):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(CLIENT_HELLO)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        assert (await get(mirror.url, "/v2/")).status == 200
        mirror.stop()
        assert mirror.log_text().count("Invalid HTTP request") == (3 if level == "debug" else 0)
        assert "warning" not in mirror.log_text()


async def test_plain_http_on_the_tls_port_troubles_nobody(tmp_path: Path) -> None:
    files = certificate(tmp_path / "tls")
    with MirrorProcess(tmp_path, NOWHERE, tls(files)) as mirror:
        host, _, port = mirror.host.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v2/ HTTP/1.1\r\nhost: mirror\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        assert (await get(mirror.url, "/v2/", tls=files.for_clients)).status == 200
        mirror.stop()
        assert "Traceback" not in mirror.log_text()

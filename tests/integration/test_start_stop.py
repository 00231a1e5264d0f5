"""A start that cannot be says why in one line, and a stop breaks nobody's pull."""

import asyncio
import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import ask, blob, get, pull, until
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.process import WORKERS, MirrorProcess, clean_environment
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
MODULE = wasm_module(1_000_000)
ARTIFACT = raw(MODULE)
LAYER = ARTIFACT.layers[0]
NOWHERE = {"up": "http://127.0.0.1:1"}


def refusal(mirror: MirrorProcess) -> str:
    """What a start that cannot be prints: one line, with exit status 2."""
    done = subprocess.run(mirror.command, env=clean_environment(), capture_output=True, text=True, timeout=30)
    mirror.close()
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("wasm-mirror: ")
    return line


@pytest.mark.shows("a setting is wrong, or the port is taken")
def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        line = refusal(MirrorProcess(tmp_path, NOWHERE, {"listen": taken}))
    assert f"{taken} is in use" in line
    assert "listen" in line


def test_an_address_that_is_not_here_is_said_in_one_line(tmp_path: Path) -> None:
    line = refusal(MirrorProcess(tmp_path, NOWHERE, {"listen": "192.0.2.1:8080"}))
    assert "192.0.2.1:8080 cannot be listened on" in line


@pytest.mark.shows("the data directory is in use, cannot be written, or was written by a newer release")
def test_a_data_dir_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for place in (tmp_path / "file" / "data", Path("/proc/wasm-mirror")):
        line = refusal(MirrorProcess(tmp_path / "mirror", NOWHERE, {"data_dir": str(place)}))
        assert f"data_dir {place} cannot be used" in line


@pytest.mark.parametrize("workers", WORKERS)
def test_a_secret_of_the_replicas_that_cannot_be_used_is_said_in_one_line(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "secret"
    file.write_text("too short")
    cluster = {"advertise": "http://127.0.0.1:1", "secret_file": str(file)}
    settings = {"workers": workers, "metadata": {"url": "redis://127.0.0.1:1"}, "cluster": cluster}
    line = refusal(MirrorProcess(tmp_path / "mirror", NOWHERE, settings))
    assert f"cluster.secret_file {file} cannot be used" in line
    assert "openssl rand -hex 32" in line


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.shows("the data directory is in use, cannot be written, or was written by a newer release")
def test_a_second_mirror_on_the_same_data_dir_is_refused(tmp_path: Path, workers: int) -> None:
    settings: dict[str, object] = {"data_dir": str(tmp_path / "shared"), "workers": workers}
    with MirrorProcess(tmp_path / "first", NOWHERE, settings) as first:
        line = refusal(MirrorProcess(tmp_path / "second", NOWHERE, settings))
        assert f"{tmp_path / 'shared'} is in use by another wasm-mirror" in line
        assert first.stop() == 0
        first.start()


def newer_format(data: Path) -> str:
    (data / "format").write_text('{"format": 2}')
    return "was written by a newer wasm-mirror (format 2, this one reads up to 1)"


def unreadable_format(data: Path) -> str:
    (data / "format").write_text("garbage")
    return "is not readable as the format of a data_dir"


def newer_database(data: Path) -> str:
    with sqlite3.connect(data / "metadata.sqlite") as database:
        database.execute("PRAGMA user_version = 1000")
        database.execute("INSERT OR REPLACE INTO meta VALUES ('min_reader', '1000')")
    database.close()
    return "was written by a newer release"


@pytest.mark.parametrize("write", [newer_format, unreadable_format, newer_database])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.shows("the data directory is in use, cannot be written, or was written by a newer release")
def test_what_a_newer_release_wrote_is_said_in_one_line(
    tmp_path: Path, write: Callable[[Path], str], workers: int
) -> None:
    settings = {"workers": workers}
    with MirrorProcess(tmp_path, NOWHERE, settings) as mirror:
        mirror.stop()
        words = write(mirror.data_dir)
        assert words in refusal(mirror)


def test_a_configuration_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    mirror = MirrorProcess(tmp_path, NOWHERE)
    mirror.config_file.unlink()
    assert str(mirror.config_file) in refusal(mirror)


@pytest.mark.shows("a setting is wrong, or the port is taken")
def test_a_wrong_setting_is_said_with_its_line(tmp_path: Path) -> None:
    mirror = MirrorProcess(tmp_path, NOWHERE, {"workers": "many"})
    line = refusal(mirror)
    assert "workers" in line
    assert "config.yaml:" in line


def test_options_count_more_than_the_file(tmp_path: Path) -> None:
    mirror = MirrorProcess(tmp_path, NOWHERE, {"data_dir": "/proc/nowhere", "listen": "192.0.2.1:1", "workers": 1})
    mirror.command += ["--data-dir", str(tmp_path / "here"), "--listen", mirror.host, "--workers", "2"]
    with mirror:
        assert len(mirror.pids) == 3
        assert json.loads((tmp_path / "here" / "format").read_text()) == {"format": 1}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_drains_and_lets_running_pulls_finish(tmp_path: Path, workers: int, sig: signal.Signals) -> None:
    gate = Gate()
    settings = {"drain_for": "1500ms", "workers": workers}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        publish(up, "team/held", "v1", raw(wasm_module(1000)))
        assert (await pull(mirror.url, "up/team/held", "v1")).whole
        up.inject(Fault(gate=gate, gate_at=500_000), path=f"/blobs/{LAYER}")
        async with ask(mirror.url, f"/v2/{NAME}/blobs/{LAYER}") as running, ask(mirror.url, "/healthz") as idle:
            await running.head()
            await idle.head()
            await idle.rest()
            os.killpg(mirror.pid, sig)  # as a terminal does
            told = time.monotonic()
            await draining(mirror)
            for path in ("/v2/", "/healthz", "/v2/up/team/held/manifests/v1"):
                got = await get(mirror.url, path)
                assert (got.status, got.headers["connection"]) == (200, "close")
            await eventually(lambda: refuses(mirror), what="the end of the drain")
            assert time.monotonic() - told >= 1.5
            assert mirror.pids, "it waits for the pull that runs"
            gate.release()
            assert Digest.of((await running.rest()).body) == LAYER
        assert mirror.wait_exit() == 0
        assert "Traceback" not in mirror.log_text()


async def draining(mirror: MirrorProcess) -> None:
    """Wait until the mirror says that it is about to stop."""
    got = await until(lambda: get(mirror.url, "/readyz"), lambda got: got.status == 503, within=2)
    assert got.headers["connection"] == "close"


def refuses(mirror: MirrorProcess) -> bool:
    """Whether nobody listens."""
    host, _, port = mirror.host.partition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == errno.ECONNREFUSED


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.shows("requests are still running when the time to stop is over")
async def test_a_pull_that_takes_too_long_is_cut_and_its_fill_resumed_after_the_start(
    tmp_path: Path, workers: int
) -> None:
    settings = {"stop_within": "1s", "workers": workers}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(stall_after=500_000), method="GET", path=f"/blobs/{LAYER}", times=1)
        async with ask(mirror.url, f"/v2/{NAME}/blobs/{LAYER}") as running:
            await running.head()
            got = asyncio.create_task(running.rest())
            await eventually(lambda: spooled(mirror) == 500_000, what="the bytes so far")
            status = await asyncio.to_thread(mirror.stop)
            assert status == 0
            assert not (await got).whole
        assert "Traceback" not in mirror.log_text()
        assert spooled(mirror) == 500_000
        mirror.start()
        assert "1 download to resume" in mirror.log_text()
        assert Digest.of((await blob(mirror.url, NAME, LAYER)).body) == LAYER
        assert up.matching(path=f"/blobs/{LAYER}")[-1].headers["range"] == "bytes=500000-"
        assert up.matching(path=f"/blobs/{LAYER}")[-1].sent == len(MODULE) - 500_000


def spooled(mirror: MirrorProcess) -> int:
    """How many bytes of the layer lie in its spool."""
    spool = mirror.data_dir / "spool" / f"sha256-{LAYER.hex}"
    return spool.stat().st_size if spool.exists() else 0


@pytest.mark.parametrize("workers", WORKERS)
async def test_a_second_signal_hurries(tmp_path: Path, workers: int) -> None:
    settings = {"drain_for": "60s", "stop_within": "60s", "workers": workers}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(stall_after=500_000), path=f"/blobs/{LAYER}")
        async with ask(mirror.url, f"/v2/{NAME}/blobs/{LAYER}") as running:
            await running.head()
            os.kill(mirror.pid, signal.SIGTERM)
            await draining(mirror)
            os.kill(mirror.pid, signal.SIGTERM)
            assert await asyncio.to_thread(mirror.wait_exit, 5) == 0
            assert not (await running.rest()).whole
        assert "Traceback" not in mirror.log_text()


async def test_a_stop_while_workers_start_is_no_failure(tmp_path: Path) -> None:
    mirror = MirrorProcess(tmp_path, NOWHERE, {"workers": 2})
    mirror.start(wait=False)
    await eventually(lambda: len(mirror.pids) == 3, what="the workers' processes")
    assert mirror.stop() == 0
    mirror.close()


def test_the_command_says_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mirror.cli", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("wasm-mirror, version ")

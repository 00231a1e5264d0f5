"""Programs are started, stopped and killed as a whole, and their words are not lost."""

import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from mirror.config import load
from tests.support.ports import ReservedPort, bound_socket
from tests.support.process import MirrorProcess, ServerProcess, merged, private_memory, process_group

SERVER = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
worker = os.fork()
if worker == 0:
    signal.pause()
def stop(*_):
    print("stopping", flush=True)
    if "orphan" not in sys.argv:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("serving", flush=True)
server.serve_forever()
"""


def server(port: ReservedPort, folder: Path, *words: str) -> ServerProcess:
    return ServerProcess(
        [sys.executable, "-c", SERVER, str(port.number), *words],
        ready=f"http://127.0.0.1:{port.number}/",
        log=folder / "log",
    )


def test_a_server_is_started_stopped_and_started_again_at_its_port(tmp_path: Path) -> None:
    with ReservedPort() as port, server(port, tmp_path) as program:
        assert len(program.pids) == 2
        first = program.pid
        assert program.stop() == 3
        assert process_group(first) == []
        program.start()
        assert program.pid != first
        program.restart()
    assert program.log_text().split() == ["serving", "stopping"] * 3


def test_a_kill_takes_the_workers_too(tmp_path: Path) -> None:
    with ReservedPort() as port, server(port, tmp_path) as program:
        group = program.pid
        program.kill()
        assert process_group(group) == []
        assert "stopping" not in program.log_text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port.number}/")


def test_a_worker_that_is_left_behind_is_a_failure(tmp_path: Path) -> None:
    with ReservedPort() as port, server(port, tmp_path, "orphan") as program:
        group = program.pid
        with pytest.raises(AssertionError, match="left processes"):
            program.stop()
        assert process_group(group) == []


def test_a_server_that_dies_at_start_shows_its_log(tmp_path: Path) -> None:
    program = ServerProcess(
        [sys.executable, "-c", "import sys; sys.exit('no space')"], ready="http://127.0.0.1:1/", log=tmp_path / "log"
    )
    with pytest.raises(AssertionError, match="ended with status 1") as caught:
        program.start()
    assert "no space" in "".join(caught.value.__notes__)


def test_an_error_in_the_test_shows_the_log_and_stops_the_server(tmp_path: Path) -> None:
    with ReservedPort() as port:
        program = server(port, tmp_path)

        def test() -> None:
            with program:
                groups.append(program.pid)
                raise ValueError("of the test")

        groups: list[int] = []
        with pytest.raises(ValueError, match="of the test") as caught:
            test()
        assert "serving" in "".join(caught.value.__notes__)
        assert process_group(groups[0]) == []


def test_a_reserved_port_refuses_and_can_be_listened_at(tmp_path: Path) -> None:
    with ReservedPort() as port:
        for _ in range(2):
            with socket.socket() as client, pytest.raises(ConnectionRefusedError):
                client.connect((port.address, port.number))
            with bound_socket(port.address, port.number) as listener, socket.socket() as client:
                listener.listen()
                client.connect((port.address, port.number))


def test_private_memory_counts_what_is_written_and_not_what_is_shared() -> None:
    size = 32 * 1024 * 1024
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        before = private_memory(os.getpid())
        memory.write(b"x" * size)
        assert private_memory(os.getpid()) - before >= size * 0.9


def test_a_process_group_forgets_the_dead() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as program:
        assert process_group(program.pid) == [program.pid]
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert process_group(program.pid) == []


def test_settings_are_laid_over_key_by_key() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2], "e": 4}) == {
        "a": {"b": 1, "c": 3},
        "d": [2],
        "e": 4,
    }


def test_the_mirrors_configuration_is_what_the_test_says(tmp_path: Path) -> None:
    mirror = MirrorProcess(
        tmp_path / "m",
        {"ghcr.io": "http://127.0.0.1:1", "corp": {"endpoints": ["http://127.0.0.1:2"], "offline": True}},
        {"workers": 2, "defaults": {"fresh_for": "0s"}},
    )
    written = yaml.safe_load(mirror.config_file.read_text())
    assert written["upstreams"]["ghcr.io"] == {"endpoints": ["http://127.0.0.1:1"]}
    assert written["upstreams"]["corp"]["offline"] is True
    assert (written["workers"], written["defaults"], written["data_dir"]) == (
        2,
        {"fresh_for": "0s"},
        str(tmp_path / "m" / "data"),
    )
    assert mirror.url == f"http://{written['listen']}"
    assert load(mirror.config_file, {}, {}).workers == 2
    mirror.close()

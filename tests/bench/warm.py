"""What is held, in answers a second: beside nginx, the limit, and docker-registry in pull-through mode, a peer."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mirror.oci import OCI_MANIFEST
from tests.bench.client import ACCEPT, Client, check
from tests.bench.lab import REPOSITORY, Lab, Published, base, wait_committed
from tests.bench.table import Comparison, Row
from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.registry import DockerRegistry

_SIZE = 1024 * 1024
_SECONDS = 2
_ROUNDS = 3


class Nginx(ServerProcess):
    """Debian's nginx with one worker, serving files as a registry would."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self._port = ReservedPort()
        self.url = f"http://127.0.0.1:{self._port.number}"
        self.files = folder / "files"
        self.files.mkdir(parents=True)
        file = folder / "nginx.conf"
        file.write_text(_nginx_config(folder, self._port.number))
        super().__init__(
            [program, "-c", file, "-e", folder / "error.log", "-g", "daemon off;"],
            ready=f"{self.url}/ready",
            log=folder / "nginx.log",
        )
        (self.files / "ready").write_text("ready")

    def hold(self, path: str, content: bytes) -> None:
        """Serve ``content`` at ``path``."""
        file = self.files / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._port.close()


def _nginx_config(folder: Path, port: int) -> str:
    user = "user root;" if os.geteuid() == 0 else ""
    scratch = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{user} worker_processes 1; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100; {scratch}
  server {{ listen 127.0.0.1:{port}; root {folder}/files; default_type {OCI_MANIFEST}; }}
}}
"""


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """Each round asks every server in turn."""
    if shutil.which("wrk") is None:
        return [Row("warm: skipped, wrk is not installed (Debian: apt-get install wrk)")]
    rows = []
    artifact = lab.artifact(_SIZE)
    with contextlib.ExitStack() as stack:
        mirror = stack.enter_context(lab.mirror({"defaults": {"fresh_for": "1h"}}))
        check(base(mirror), REPOSITORY, artifact.tag)
        wait_committed(mirror, artifact.layer)
        others: dict[str, str] = {}
        if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
            rows.append(Row("warm, beside nginx: skipped, it is not installed (Debian: apt-get install nginx-light)"))
        else:
            others["nginx"] = _nginx(stack, lab, artifact, base(mirror))
        if shutil.which("docker-registry") is None:
            rows.append(Row("warm, beside docker-registry: skipped (Debian: apt-get install docker-registry)"))
        else:
            peer = stack.enter_context(DockerRegistry(lab.folder / "peer", proxy_of=lab.upstream.url))
            check(peer.url, REPOSITORY, artifact.tag)
            others["docker-registry"] = peer.url
        everyone = {"mirror": base(mirror), **others}
        rows += _compare("manifest by tag", f"manifests/{artifact.tag}", everyone, 0, rounds or _ROUNDS)
        rows += _compare("blob of 1 MiB", f"blobs/{artifact.layer}", everyone, _SIZE, rounds or _ROUNDS)
    return rows


def _nginx(stack: contextlib.ExitStack, lab: Lab, artifact: Published, source: str) -> str:
    folder = lab.folder / "nginx"
    nginx = stack.enter_context(Nginx(folder))
    for kind, target in (("manifests", artifact.tag), ("blobs", str(artifact.layer))):
        body = bytearray()
        with Client(source) as client:
            client.get(f"{REPOSITORY}/{kind}/{target}", body.extend)
        nginx.hold(f"v2/{REPOSITORY}/{kind}/{target}", bytes(body))
    return nginx.url


def _compare(what: str, tail: str, everyone: Mapping[str, str], size: int, rounds: int) -> list[Row]:
    found: dict[str, list[float]] = {name: [] for name in everyone}
    for _ in range(rounds):
        for name, where in everyone.items():
            found[name].append(load(where, tail))
    rows = []
    for name in everyone:
        if name != "mirror":
            compared = Comparison(found["mirror"], found[name])
            rows.append(
                Row(f"warm {what}", rate(compared.ours, size), f"{rate(compared.theirs, size)} {name}", compared.ratio)
            )
    return rows


def load(where: str, tail: str) -> float:
    """Answers a second to 16 connections, to what lies at ``tail`` of the repository at the server ``where``."""
    address, _, prefix = where.removeprefix("http://").partition("/")
    url = f"http://{address}/v2/{prefix + '/' if prefix else ''}{REPOSITORY}/{tail}"
    command = ["wrk", "-t1", "-c16", f"-d{_SECONDS}s", "-H", f"Accept: {ACCEPT}", url]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", said, re.MULTILINE)
    assert rate is not None, said
    assert not re.search("Non-2xx|Socket errors", said), f"{url} failed under load:\n{said}"
    return float(rate[1])


def rate(answers: float, size: int = 0) -> str:
    """Answers a second, or bytes where each has ``size``."""
    return f"{answers * size / 1e6:,.0f} MB/s" if size else f"{answers:,.0f} /s"

"""A containerd of a test's own, which pulls what it pulls through a mirror."""

import os
from pathlib import Path

from tests.e2e.programs import run
from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.tools import require

_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{folder}/containerd.sock"
uid = {uid}
gid = {gid}
[ttrpc]
address = "{folder}/ttrpc.sock"
uid = {uid}
gid = {gid}
[metrics]
address = "127.0.0.1:{port}"
[debug]
level = "warn"
"""


class Containerd(ServerProcess):
    """containerd with all its files under ``folder``, for whoever runs the tests; images of ``upstream`` come from the
    mirror at ``mirror``, asked with ``?ns=<upstream>``.
    """

    def __init__(self, folder: Path, *, upstream: str, mirror: str) -> None:
        folder.mkdir()
        self._port = ReservedPort()
        self._folder = folder
        hosts = folder / "hosts" / upstream
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "https://{upstream}"\n[host."{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
        )
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(folder=folder, uid=os.getuid(), gid=os.getgid(), port=self._port.number))
        super().__init__(
            [require("containerd"), "-c", config],
            ready=f"http://127.0.0.1:{self._port.number}/v1/metrics",
            log=folder / "containerd.log",
        )

    def fetch(self, reference: str) -> dict[str, int]:
        """Fetch an image; gives what is there then: digests and sizes."""
        self._ctr("fetch", "--hosts-dir", self._folder / "hosts", reference)
        digests = self._ctr("ls", "-q").split()
        return {digest: len(self.content(digest)) for digest in digests}

    def push(self, source: str, *targets: str, user: str | None = None) -> None:
        """Fetch ``source`` from a plain registry, and push it to ``targets``; ``user``: ``name:password``."""
        login = ("--user", user) if user is not None else ()
        self._ctr("fetch", "--plain-http", *login, source)
        for target in targets:
            self._run("images", "push", "--plain-http", *login, target, source)

    def content(self, digest: str) -> bytes:
        """The bytes of what was fetched."""
        algorithm, _, hexed = digest.partition(":")
        place = self._folder / "root" / "io.containerd.content.v1.content" / "blobs" / algorithm / hexed
        return place.read_bytes()

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._port.close()

    def _ctr(self, *arguments: str | Path) -> str:
        return self._run("content", *arguments)

    def _run(self, *arguments: str | Path) -> str:
        return run("ctr", "--address", self._folder / "containerd.sock", *arguments)

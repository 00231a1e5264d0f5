"""The image, built from the Dockerfile by buildah, and its containers, run by runc. Both need root, and no engine.

What an engine does beside them stands here: `Container` makes of the image's settings, and of what a user would give
``docker run``, the configuration that an OCI runtime gets (github.com/opencontainers/runtime-spec, config.md). A
container is in the network of this machine, and has neither capabilities nor a writable root.
"""

import contextlib
import json
import os
import shlex
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.tools import require

_ROOT = Path(__file__).parents[2]
_WITHIN = 1200  # seconds; a minute on a machine that does nothing else
_BASE = "localhost/base"
_TMPFS = {"/dev": ("mode=755", "size=65536k"), "/dev/shm": ("noexec", "nodev", "mode=1777", "size=65536k")}
_SECRET = "/run/secrets/ca.pem"
_NEEDED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")


@dataclass(frozen=True)
class Image:
    """An image: its settings, as ``docker inspect`` has them under Config, and the folder that it is unpacked in."""

    config: Mapping[str, Any]
    root: Path

    @property
    def size(self) -> int:
        """Bytes of all its files; those with several names count once."""
        sizes = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                sizes[status.st_ino] = status.st_size
        return sum(sizes.values())

    def paths(self) -> list[str]:
        """All its files and folders, as they are called inside."""
        return ["/" + str(path.relative_to(self.root)) for path in self.root.rglob("*")]


class Buildah:
    """buildah, with all that it keeps under ``folder``; a context manager that leaves nothing there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = require("buildah")
        self._driver = "overlay"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        try:
            self._run("info")
        except AssertionError:  # where this machine is itself a container
            self._driver = "vfs"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("rm", "--all")
        self._run("rmi", "--all", "--force")
        with contextlib.suppress(subprocess.CalledProcessError):  # the driver's own mount; it is not always there
            subprocess.run(["umount", self._folder / "store" / self._driver], check=True, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", self._folder], check=True)

    def build(self, base: Path, **arguments: str) -> Image:
        """The image of the Dockerfile on a ``base``, a tar archive, with these ``--build-arg``."""
        container = self._run("from", "scratch").strip()
        self._run("add", container, base, "/")
        self._run("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self._run("commit", "--quiet", "--rm", container, _BASE)
        settings = self._folder / "pip.conf"
        settings.write_text(_pip_settings())
        given = [f"--build-arg={name}={value}" for name, value in {"BASE": _BASE, **arguments}.items()]
        secrets = ["--secret", f"id=pip,src={settings}", "--secret", f"id=ca,src={_authorities()}"]
        how = ["--isolation", "chroot", "--format", "docker", "--layers=false", "--tag", "wasm-mirror"]
        self._run("build", *how, *given, *secrets, _ROOT)
        told = json.loads(self._run("inspect", "--type", "image", "wasm-mirror"))
        mounted = self._run("mount", self._run("from", "--pull-never", "wasm-mirror").strip())
        return Image(told["Docker"]["config"], Path(mounted.strip()))

    def _run(self, *arguments: str | Path) -> str:
        store = [f"--root={self._folder / 'store'}", f"--runroot={self._folder / 'run'}"]
        done = subprocess.run(
            [self._program, *store, f"--storage-driver={self._driver}", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            env={**os.environ, "TMPDIR": str(self._folder)},
        )
        assert done.returncode == 0, f"buildah {shlex.join(map(str, arguments))}\n{(done.stdout + done.stderr)[-8000:]}"
        return done.stdout


class Container(ServerProcess):
    """``docker run --read-only --cap-drop ALL --security-opt no-new-privileges`` of an image, as runc does it.

    The data lie in ``volume``, under ``folder``. ``settings`` are environment variables; ``user`` and
    ``arguments`` stand in place of the image's user and command.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        settings: Mapping[str, str],
        *,
        user: str | None = None,
        arguments: Sequence[str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self._port = ReservedPort("0.0.0.0")
        self.host = f"127.0.0.1:{self._port.number}"
        self.url = f"http://{self.host}"
        self._name = f"wasm-mirror-{os.getpid()}-{self._port.number}"
        self._runc = [str(require("runc")), "--root", str(folder / "state")]
        environment = {
            **dict(word.split("=", 1) for word in image.config["Env"]),
            "WASM_MIRROR_LISTEN": f"0.0.0.0:{self._port.number}",
            **settings,
        }
        command = [*image.config["Entrypoint"], *(image.config["Cmd"] if arguments is None else arguments)]
        (place,) = image.config["Volumes"]
        status = (image.root / place.lstrip("/")).stat()  # a new volume is owned as the folder that it hides
        self.volume = folder / "volume"
        self.volume.mkdir()
        os.chown(self.volume, status.st_uid, status.st_gid)
        self.volume.chmod(status.st_mode & 0o7777)
        bundle = folder / "bundle"
        bundle.mkdir()
        (bundle / "config.json").write_text(
            json.dumps(_configuration(image, command, environment, user or image.config["User"], {place: self.volume}))
        )
        super().__init__(
            [*self._runc, "run", "--bundle", bundle, self._name],
            ready=f"{self.url}/readyz",
            log=folder / "container.log",
            start_within=60,
        )

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """``docker exec``: run a command inside."""
        return subprocess.run([*self._runc, "exec", self._name, *command], capture_output=True, text=True, timeout=60)

    def run(self) -> subprocess.CompletedProcess[str]:
        """``docker run`` of a command that ends by itself."""
        try:
            return subprocess.run(self.command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        finally:
            self.close()

    def close(self) -> None:
        """Leave nothing running, and give the port back; a ``with`` statement does so at its end."""
        self.kill()
        self._port.close()

    def kill(self) -> None:
        """Kill all that runs inside, too: it is no child of runc's."""
        subprocess.run([*self._runc, "delete", "--force", self._name], capture_output=True, timeout=60)
        super().kill()


def _configuration(
    image: Image, command: Sequence[str], environment: Mapping[str, str], user: str, volumes: Mapping[str, Path]
) -> dict[str, object]:
    uid, _, gid = user.partition(":")
    mounts: list[dict[str, object]] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", *options]}
        for place, options in _TMPFS.items()
    ]
    mounts += [
        {"destination": place, "type": "bind", "source": str(volume), "options": ["bind", "rw", "nosuid", "nodev"]}
        for place, volume in volumes.items()
    ]
    none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "permitted", "ambient")}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(uid), "gid": int(gid or 0)},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": image.config["WorkingDir"],
            "capabilities": none,
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def _pip_settings() -> str:
    """The settings of this machine's pip that lead to its package index, for the pip inside a build."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = [line.split("=", 1) for line in told.splitlines() if "=" in line]
    found = {name.rpartition(".")[2]: shlex.split(value)[0] for name, value in pairs if shlex.split(value)}
    lines = [f"{name} = {value}" for name, value in found.items() if name in _NEEDED]
    return "\n".join(["[global]", f"cert = {_SECRET}", *lines, ""])


def _authorities() -> Path:
    """Whom this machine trusts."""
    named = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    return Path(named or "/etc/ssl/certs/ca-certificates.crt")

"""The clients that authors push with, as programs: each logs in, pushes an artifact, and pulls it again.

`Client` has them all behind the same few calls. What a client needs to keep (who is logged in where) is in a folder of
its own, so that none reads or writes the settings of whoever runs the tests.
"""

import io
import json
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import ClassVar

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from tests.e2e.programs import attempt, attempt_command
from tests.inspector.support import contents, layout
from tests.support.artifacts import OCI_LAYER, Artifact
from tests.support.tools import require

USER = "anna"
PASSWORD = "right as rain"
_ORAS = Path(__file__).with_name("oras_client.py")


@dataclass
class Client:
    """A client for the registry at ``host``, a plain one on loopback; ``home`` is where it keeps what it knows."""

    host: str
    home: Path
    needs: ClassVar[str]
    asks_at_login: ClassVar[bool] = True
    """Whether a login asks the registry, so that it fails for a wrong password."""
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        self.environment = {"HOME": str(self.home), "DOCKER_CONFIG": str(self.home)}

    def login(self, password: str) -> CompletedProcess[bytes]:
        """Log in as `USER`."""
        raise NotImplementedError

    def push(self, artifact: Artifact, name: str) -> None:
        """Push to ``name`` (``hosted/team/plugin:v1``); raises `AssertionError` with the client's words."""
        raise NotImplementedError

    def pull(self, name: str) -> set[Digest]:
        """Pull all that ``name`` leads to; the digests of what came, as they were computed from the bytes here."""
        raise NotImplementedError

    def can_push(self, artifact: Artifact) -> bool:
        """Whether the client is made for such an artifact."""
        return True

    def wanted(self, artifact: Artifact) -> set[Digest]:
        """What a pull of the artifact gives, at least."""
        return {Digest.of(content) for content in contents(artifact)}

    def run(self, *arguments: str | Path) -> str:
        """What the client prints; raises `AssertionError` with its errors."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{self.needs} {arguments}\n{done.stderr.decode()[-4000:]}"
        return done.stdout.decode()

    def attempt(self, *arguments: str | Path) -> CompletedProcess[bytes]:
        """`run`, of what may fail."""
        return attempt(self.needs, *arguments, env=self.environment)

    def folder(self, what: str) -> Path:
        """A place in ``home`` where nothing is yet."""
        return self.home / f"{what}-{len(list(self.home.iterdir()))}"


class Skopeo(Client):
    """Debian's."""

    needs: ClassVar[str] = "skopeo"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.environment["REGISTRY_AUTH_FILE"] = str(self.home / "auth.json")

    def login(self, password: str) -> CompletedProcess[bytes]:
        return self.attempt("login", "--tls-verify=false", "-u", USER, "-p", password, self.host)

    def push(self, artifact: Artifact, name: str) -> None:
        source = _skopeo_folder(self.folder("source"), artifact)
        options = ("--all", "--preserve-digests", "--dest-tls-verify=false")
        self.run("copy", *options, f"dir:{source}", f"docker://{self.host}/{name}")

    def pull(self, name: str) -> set[Digest]:
        folder = self.folder("pulled")
        self.run("copy", "--all", "--src-tls-verify=false", f"docker://{self.host}/{name}", f"dir:{folder}")
        return _digests(folder)


class Crane(Client):
    """go-containerregistry's, with the code that agents pull with."""

    needs: ClassVar[str] = "crane"
    asks_at_login: ClassVar[bool] = False

    def login(self, password: str) -> CompletedProcess[bytes]:
        return self.attempt("auth", "login", self.host, "-u", USER, "-p", password)

    def push(self, artifact: Artifact, name: str) -> None:
        source = layout(self.folder("source"), (None, artifact))
        self.run("push", "--insecure", source, f"{self.host}/{name}")

    def pull(self, name: str) -> set[Digest]:
        folder = self.folder("pulled")
        self.run("pull", "--insecure", "--format", "oci", f"{self.host}/{name}", folder)
        return _digests(folder)


class Regctl(Client):
    """regclient's."""

    needs: ClassVar[str] = "regctl"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.environment["REGCTL_CONFIG"] = str(self.home / "regctl.json")
        self.run("registry", "set", "--skip-check", "--tls", "disabled", self.host)

    def login(self, password: str) -> CompletedProcess[bytes]:
        return self.attempt("registry", "login", self.host, "-u", USER, "-p", password)

    def push(self, artifact: Artifact, name: str) -> None:
        source = layout(self.folder("source"), ("pushed", artifact))
        self.run("image", "copy", f"ocidir://{source}:pushed", f"{self.host}/{name}")

    def pull(self, name: str) -> set[Digest]:
        folder = self.folder("pulled")
        self.run("image", "copy", f"{self.host}/{name}", f"ocidir://{folder}:pulled")
        return _digests(folder)


class Oras(Client):
    """The Python one, which has no command of its own: `tests/e2e/oras_client.py`. It pulls files, not manifests."""

    needs: ClassVar[str] = "oras"
    asks_at_login: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.environment["PYTHONPATH"] = str(require("oras").parents[1])

    def login(self, password: str) -> CompletedProcess[bytes]:
        return self.attempt("login", self.host, USER, password)

    def push(self, artifact: Artifact, name: str) -> None:
        folder = self.folder("source")
        folder.mkdir()
        fields = json.loads(artifact.body)
        files = []
        for number, named in enumerate([fields["config"], *fields["layers"]]):
            file = folder / str(number)
            file.write_bytes(artifact.blobs[Digest.parse(named["digest"])])
            files.append(f"{file}:{named['mediaType']}")
        self.run("push", f"{self.host}/{name}", *files)

    def pull(self, name: str) -> set[Digest]:
        folder = self.folder("pulled")
        self.run("pull", f"{self.host}/{name}", folder)
        return _digests(folder)

    def can_push(self, artifact: Artifact) -> bool:
        return artifact.media_type == OCI_MANIFEST

    def wanted(self, artifact: Artifact) -> set[Digest]:
        wanted = set()
        for layer in json.loads(artifact.body)["layers"]:
            content = artifact.blobs[Digest.parse(layer["digest"])]
            if layer["mediaType"] == OCI_LAYER:  # it opens these
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    file = archive.extractfile("plugin.wasm")
                    assert file is not None
                    content = file.read()
            wanted.add(Digest.of(content))
        return wanted

    def attempt(self, *arguments: str | Path) -> CompletedProcess[bytes]:
        return attempt_command([sys.executable, _ORAS, *arguments], env=self.environment)


CLIENTS: dict[str, type[Client]] = {kind.needs: kind for kind in (Skopeo, Crane, Regctl, Oras)}


def _skopeo_folder(folder: Path, artifact: Artifact) -> Path:
    """Write skopeo's ``dir:``: the manifest, all blobs by their digest, and the manifests of children."""
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(artifact.body)
    for child in artifact.children:
        (folder / f"{child.digest.hex}.manifest.json").write_bytes(child.body)
    for one in (artifact, *artifact.children):
        for digest, content in one.blobs.items():
            (folder / digest.hex).write_bytes(content)
    return folder


def _digests(folder: Path) -> set[Digest]:
    """Of all files in a folder."""
    return {Digest.of(file.read_bytes()) for file in folder.rglob("*") if file.is_file()}

"""A real registry: Debian's ``docker-registry``, started as a program."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

import httpx
import yaml

from mirror.digest import Digest
from tests.auth.support import users_file
from tests.support.artifacts import Artifact
from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.tools import require


class DockerRegistry(ServerProcess):
    """``docker-registry serve`` on a port of its own, with all that it holds and its log under ``folder``.

    Stopped, killed or restarted, it keeps port and content. With ``proxy_of`` it is a pull-through cache of that URL.
    With ``users``, names and passwords, only they get in.
    """

    def __init__(self, folder: Path, *, proxy_of: str | None = None, users: Mapping[str, str] | None = None) -> None:
        program = require("docker-registry")
        folder.mkdir(parents=True, exist_ok=True)
        self._port = ReservedPort()
        self.host = f"127.0.0.1:{self._port.number}"
        self.url = f"http://{self.host}"
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
            "http": {"addr": self.host, "secret": "of a test"},
        }
        if proxy_of is not None:
            config["proxy"] = {"remoteurl": proxy_of}
        self._user = None
        if users:
            config["auth"] = {"htpasswd": {"realm": "a real registry", "path": str(users_file(folder, users))}}
            self._user = next(iter(users.items()))
        file = folder / "registry.yml"
        file.write_text(yaml.safe_dump(config))
        super().__init__([program, "serve", file], ready=f"{self.url}/", log=folder / "registry.log")

    def push(self, repository: str, tag: str | None, artifact: Artifact) -> Digest:
        """Push ``artifact`` with all that it names; gives the manifest's digest."""
        for child in artifact.children:
            self.push(repository, None, child)
        with httpx.Client(base_url=self.url, auth=self._user, trust_env=False, timeout=60) as client:
            for digest, content in artifact.blobs.items():
                started = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
                upload = httpx.URL(urljoin(self.url, started.headers["location"])).copy_merge_params(
                    {"digest": str(digest)}
                )
                client.put(upload, content=content).raise_for_status()
            client.put(
                f"/v2/{repository}/manifests/{tag or artifact.digest}",
                content=artifact.body,
                headers={"content-type": artifact.media_type},
            ).raise_for_status()
        return artifact.digest

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._port.close()

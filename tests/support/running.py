"""The mirror in the test's own loop: all of it, behind a real socket, in a fraction of a process's time.

::

    async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
        reply = await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from mirror.config import Settings
from mirror.digest import Digest
from mirror.listening import bind
from mirror.server import serve
from mirror.store.directory import DataDirectory
from mirror.tls import Tls
from tests.support.asking import Headers, Reply, ask, held_to_its_word
from tests.support.process import merged
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually


class Running:
    """A mirror that serves at ``host``; ``beside`` is the same mirror at the port of `admin.listen`, if that is set."""

    def __init__(
        self, address: tuple[str, int], directory: DataDirectory, admin: tuple[str, int] | None = None
    ) -> None:
        self.address = address
        self.beside = None if admin is None else Running(admin, directory)
        self.host = f"{address[0]}:{address[1]}"
        self.directory = directory

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """The answer to any request; one of the admin API is what its document says."""
        return held_to_its_word(
            method, target, await ask(self.address, target, method=method, headers=headers, body=body)
        )

    async def get(self, target: str, headers: Headers = ()) -> Reply:
        """The answer to a GET."""
        return await self.ask("GET", target, headers)

    async def head(self, target: str, headers: Headers = ()) -> Reply:
        """The answer to a HEAD."""
        return await self.ask("HEAD", target, headers)

    def holds(self, digest: Digest) -> bool:
        """Whether a blob or manifest is held, as the disk says."""
        return self.directory.blob(digest).exists()

    async def until_held(self, digest: Digest) -> None:
        """Wait until a blob or manifest is held."""
        await eventually(lambda: self.holds(digest), what=f"{digest} is held")

    def files(self) -> list[str]:
        """All files that hold content or a part of one, from the data directory on."""
        found = [*self.directory.blobs.rglob("*"), *self.directory.spool.rglob("*")]
        return sorted(str(file.relative_to(self.directory.path)) for file in found if file.is_file())


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    upstreams: Mapping[str, FaultyUpstream | str | Mapping[str, object]],
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[Running]:
    """Serve with the data directory ``folder/data``, so that another mirror may go on with it after this one.

    ``upstreams`` maps names to a registry, to an endpoint's URL, or to all the settings of the upstream. ``settings``
    are laid over the configuration, key by key.
    """
    own: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "data_dir": str(folder / "data"),
        "drain_for": "0s",
        "stop_within": "1s",
        "upstreams": {name: _upstream(value) for name, value in upstreams.items()},
    }
    configured = Settings.model_validate(merged(own, settings or {}))
    directory = DataDirectory.open(configured.data_dir)
    listeners = bind(configured)
    lifeline, held = os.pipe()
    serving = asyncio.create_task(serve(configured, directory, listeners, Tls.load(configured), lifeline))
    try:
        admin = None if listeners.admin is None else listeners.admin.getsockname()[:2]
        yield Running(listeners.registry.getsockname()[:2], directory, admin)
    finally:
        os.close(held)  # as if the supervisor had died
        try:
            await serving
        finally:
            os.close(lifeline)
            directory.close()


def _upstream(value: FaultyUpstream | str | Mapping[str, object]) -> dict[str, object]:
    if isinstance(value, FaultyUpstream):
        value = value.url
    return {"endpoints": [value]} if isinstance(value, str) else dict(value)

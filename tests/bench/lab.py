"""What a benchmark is made in: a folder that goes away, an upstream, and mirrors of it."""

import itertools
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from mirror.digest import Digest
from tests.bench.content import Layer
from tests.bench.upstream import Pace
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess, ServerProcess, clean_environment
from tests.support.waiting import wait_until

UPSTREAM = "bench"
"""The name under which mirrors know the upstream."""

REPOSITORY = "team/plugin"


@dataclass(frozen=True, slots=True)
class Published:
    """An artifact that upstream holds under ``tag``."""

    tag: str
    layer: Digest
    size: int


class Upstream(ServerProcess):
    """`tests.bench.upstream`, running."""

    def __init__(self, folder: Path) -> None:
        self._port = ReservedPort()
        self.url = f"http://127.0.0.1:{self._port.number}"
        super().__init__(
            [sys.executable, "-m", "tests.bench.upstream", str(self._port.number)],
            ready=f"{self.url}/v2/",
            log=folder / "upstream.log",
            env=clean_environment(),
        )

    def publish(self, tag: str, size: int, seed: int) -> Published:
        """Hold an artifact of the raw layout, whose layer has ``size`` bytes."""
        made = self._tell("publish", {"repository": REPOSITORY, "tag": tag, "size": size, "seed": seed})
        return Published(tag, Digest.parse(made["layer"]), size)

    def set_pace(self, pace: Pace) -> None:
        """Send like this from now on."""
        self._tell("pace", {"delay": pace.delay, "bandwidth": pace.bandwidth})

    def forget(self) -> None:
        """Forget the requests that came."""
        self._tell("forget", {})

    def count(self, method: str, kind: str) -> dict[str, int]:
        """How often each path with ``kind`` (``/manifests/`` or ``/blobs/``) was asked for."""
        counts: dict[str, int] = {}
        for seen in self._tell("seen", {}):
            if seen["method"] == method and kind in seen["path"]:
                counts[seen["path"]] = counts.get(seen["path"], 0) + 1
        return counts

    def first_byte_left(self, digest: Digest) -> float:
        """When the first byte of this blob was last sent, in seconds of the monotonic clock."""
        seen = self._tell("seen", {})
        return float(next(one["first_byte_at"] for one in reversed(seen) if one["path"].endswith(str(digest))))

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._port.close()

    def _tell(self, command: str, query: Mapping[str, object]) -> Any:
        parameters = {name: str(value) for name, value in query.items()}
        return httpx.get(f"{self.url}/bench/{command}", params=parameters, timeout=60, trust_env=False).json()


class Lab:
    """One run's folder and upstream; every artifact that it makes is a new one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wasm-mirror-bench-"))
        self.upstream = Upstream(self.folder)
        self._numbers = itertools.count(1)

    def artifact(self, size: int) -> Published:
        """An artifact that nobody has pulled yet."""
        number = next(self._numbers)
        return self.upstream.publish(f"v{number}", size, number)

    def layer(self, size: int) -> Layer:
        """A layer that nobody has pushed yet."""
        return Layer(next(self._numbers), size)

    def mirror(self, settings: Mapping[str, object] | None = None) -> MirrorProcess:
        """A mirror of the upstream that holds nothing; for a ``with`` statement."""
        folder = self.folder / f"mirror-{next(self._numbers)}"
        return MirrorProcess(folder, {UPSTREAM: self.upstream.url}, settings)

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.upstream.__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self.folder)


def base(mirror: MirrorProcess) -> str:
    """What stands before a repository's name when it is pulled through the mirror."""
    return f"{mirror.url}/{UPSTREAM}"


def wait_committed(mirror: MirrorProcess, digest: Digest) -> None:
    """Wait until the blob is on the disk, so that its fsync disturbs nothing that is measured next."""
    blob = mirror.data_dir / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
    wait_until(blob.exists, timeout=60, what=f"{digest} is on the disk")

"""Several replicas of the mirror: processes with a disk each, on one Redis, with one secret.

::

    with replicated(tmp_path) as (up, redis, replicas):
        …                                        # pull from replicas.urls, kill replicas[0], …
"""

import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from mirror.digest import Digest
from mirror.shared import keys
from tests.support.process import MirrorProcess, merged
from tests.support.redis import RedisServer
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until


class Replicas:
    """``n`` mirrors under ``folder``, started at once. As a context manager they are ready, and know of one another.

    ``settings`` are laid over the configuration of all, ``own`` over that of the one with that number. A log with a
    traceback is an error at the end.
    """

    def __init__(
        self,
        folder: Path,
        upstreams: Mapping[str, str | Mapping[str, object]],
        redis: RedisServer,
        *,
        n: int = 3,
        settings: Mapping[str, object] | None = None,
        own: Mapping[int, Mapping[str, object]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        secret = folder / "secret"
        secret.write_text(secrets.token_hex(32))
        secret.chmod(0o600)
        shared: dict[str, object] = {"metadata": {"url": redis.url}, "cluster": {"secret_file": str(secret)}}
        self._redis = redis
        self._stack = ExitStack()
        self._mirrors: list[MirrorProcess] = []
        for number in range(n):
            mirror = MirrorProcess(
                folder / f"replica-{number}",
                upstreams,
                merged(merged(shared, settings or {}), (own or {}).get(number, {})),
            )
            mirror.settings = merged({"cluster": {"advertise": mirror.url}}, mirror.settings)
            mirror.write_config()
            self._mirrors.append(mirror)

    def __getitem__(self, number: int) -> MirrorProcess:
        return self._mirrors[number]

    def __iter__(self) -> Iterator[MirrorProcess]:
        return iter(self._mirrors)

    def __len__(self) -> int:
        return len(self._mirrors)

    @property
    def urls(self) -> list[str]:
        """Where clients find them."""
        return [mirror.url for mirror in self._mirrors]

    def other_than(self, *those: MirrorProcess) -> list[MirrorProcess]:
        """All but those."""
        return [mirror for mirror in self._mirrors if mirror not in those]

    def holder_of(self, digest: Digest) -> MirrorProcess | None:
        """The replica that has the lease for downloading a blob; None while nobody does."""
        with self._redis.client() as client:
            holder = str(client.get(keys.fill_lease(digest)) or "").split(" ")
        return next((mirror for mirror in self._mirrors if mirror.url in holder), None)

    def start(self, *those: MirrorProcess) -> None:
        """Start them at once (default: all), and wait until all that run know of one another."""
        for mirror in those or self._mirrors:
            mirror.start(wait=False)
        for mirror in those or self._mirrors:
            mirror.wait_ready()
        self.wait_joined()

    def pause(self, mirror: MirrorProcess) -> None:
        """Let it hang (SIGSTOP) with all its workers; the kernel still accepts connections to it."""
        os.killpg(mirror.pid, signal.SIGSTOP)

    def resume(self, mirror: MirrorProcess) -> None:
        """Let it go on after `pause`."""
        os.killpg(mirror.pid, signal.SIGCONT)

    def wipe(self, mirror: MirrorProcess) -> None:
        """Give it an empty disk; for one that does not run."""
        shutil.rmtree(mirror.data_dir)

    def wait_joined(self) -> None:
        """Wait until each worker that runs has beaten twice from now on: by the second it knows of the first."""
        running = [mirror for mirror in self._mirrors if _runs(mirror)]
        with self._redis.client() as client:
            for _ in range(2):
                since = _milliseconds(client)
                wait_until(partial(self._have_beaten, client, running, since), what="a beat of every replica")

    def _have_beaten(self, client: "redis.Redis", those: Sequence[MirrorProcess], since: int) -> bool:
        beats = [str(beat).split(" ", 2) for beat in _values(client)]
        lately = Counter(address for at, _, address in beats if int(at) > since)
        return all(lately[mirror.url] >= _workers(mirror) for mirror in those)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for mirror in self._mirrors:
                stack.push(mirror)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mirror in self._mirrors:
            if _runs(mirror):
                self.resume(mirror)
                if error is None:
                    os.kill(mirror.pid, signal.SIGTERM)
        if error is None:
            for mirror in self._mirrors:
                if _runs(mirror):
                    mirror.wait_exit()
        self._stack.__exit__(kind, error, trace)
        if error is None:
            faults = [mirror.log_text() for mirror in self._mirrors if "Traceback" in mirror.log_text()]
            assert not faults, f"tracebacks in the logs of {len(faults)} replicas:\n{faults[0][-8000:]}"


@contextmanager
def replicated(
    folder: Path,
    *,
    n: int = 3,
    settings: Mapping[str, object] | None = None,
    own: Mapping[int, Mapping[str, object]] | None = None,
) -> Iterator[tuple[FaultyUpstream, RedisServer, Replicas]]:
    """`Replicas` with all that they need: an upstream, which they call ``up``, and a Redis."""
    with (
        FaultyUpstream() as up,
        RedisServer(folder / "redis") as redis,
        Replicas(folder, {"up": up.url}, redis, n=n, settings=settings, own=own) as replicas,
    ):
        yield up, redis, replicas


def _runs(mirror: MirrorProcess) -> bool:
    """Whether it was started, and neither stopped nor killed since."""
    try:
        return mirror.pid > 0
    except AssertionError:
        return False


def _workers(mirror: MirrorProcess) -> int:
    workers = mirror.settings.get("workers", 1)
    assert isinstance(workers, int)
    return workers


def _milliseconds(client: "redis.Redis") -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _values(client: "redis.Redis") -> Sequence[object]:
    values = client.hvals(keys.members())
    assert isinstance(values, list)
    return values

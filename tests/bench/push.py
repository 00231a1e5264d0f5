"""What a push costs: blobs of 64 MiB beside docker-registry, one at a time and 16 at once, and the mirror's memory.

And with replicas, beside a mirror that is alone: as `hosted.ack` says, with a copy on another disk before the answer.
"""

import contextlib
import http.client
import shutil
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.bench.content import Layer
from tests.bench.lab import REPOSITORY, Lab
from tests.bench.table import Comparison, Row, seconds
from tests.bench.taking import Taking
from tests.support.process import MirrorProcess
from tests.support.redis import RedisServer
from tests.support.registry import DockerRegistry
from tests.support.replicas import Replicas

_SIZE = 64 * 1024**2
_SMALL = 1024**2
_AT_ONCE = 16
_ROUNDS = 11
_HERDS = 2
_GOAL = 0.8
_MEMORY = 150 * 1024**2
_FORWARDED = 0.050
_FORWARDS = 30
_EVERY = 0.05
"""Seconds between two looks at the mirror's memory."""

_PIECE = 64 * 1024
_HOSTED = f"hosted/{REPOSITORY}"


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """Each round pushes to both in turn; every blob is a new one, and its digest is known before."""
    if shutil.which("docker-registry") is None:
        return [Row("push, beside docker-registry: skipped (Debian: apt-get install docker-registry)")]
    rows = []
    with lab.mirror() as mirror, DockerRegistry(lab.folder / "pushed") as peer:
        both = {mirror.url: f"/v2/{_HOSTED}", peer.url: f"/v2/{REPOSITORY}"}
        for how, chunked in (("with its length, as skopeo", False), ("without, as docker and crane", True)):
            found: dict[str, list[float]] = {url: [] for url in both}
            for number in range(rounds or _ROUNDS):
                for url, repository in list(both.items())[:: 1 if number % 2 else -1]:
                    found[url].append(_SIZE / _push(url, repository, lab.layer(_SIZE), chunked=chunked))
            what = f"push of 64 MiB (POST, PATCH {how}, PUT)"
            rows.append(_row(what, Comparison(found[mirror.url], found[peer.url])))
        found = {url: [] for url in both}
        peaks: list[int] = []
        at_rest = mirror.private_memory()
        for _ in range(rounds or _HERDS):
            for url, repository in both.items():
                layers = [lab.layer(_SIZE) for _ in range(_AT_ONCE)]
                with _Watched(mirror, peaks):
                    found[url].append(_AT_ONCE * _SIZE / _herd(url, repository, layers))
        rows.append(_row(f"{_AT_ONCE} such pushes at once", Comparison(found[mirror.url], found[peer.url])))
    peak = max(peaks)
    rows += _forwarded(lab, rounds or _FORWARDS)
    rows += _replicated(lab, rounds or _ROUNDS)
    rows.append(
        Row(
            f"private memory, {_AT_ONCE} pushes of 64 MiB at once",
            f"{peak / 1024**2:.0f} MiB at most",
            f"{at_rest / 1024**2:.0f} MiB before",
            peak / at_rest,
            f"< {_MEMORY // 1024**2} MiB",
            peak < _MEMORY,
        )
    )
    return rows


def _forwarded(lab: Lab, rounds: int) -> list[Row]:
    """How long the first byte of a blob takes from the client to the upstream that it is pushed through to."""
    ours: list[float] = []
    theirs: list[float] = []
    with Taking() as upstream:
        through = {
            "endpoints": [upstream.url],
            "push": "through",
            "credentials": {"username": "bench", "password": "of a benchmark"},
        }
        with MirrorProcess(lab.folder / "through", {"bench": through}) as mirror:
            for _ in range(rounds):
                for url, repository, found in (
                    (upstream.url, f"/v2/{REPOSITORY}", theirs),
                    (mirror.url, f"/v2/bench/{REPOSITORY}", ours),
                ):
                    upstream.first_bytes.clear()
                    layer = lab.layer(_SMALL)
                    began: list[float] = []
                    _push(url, repository, layer, chunked=False, began=began)
                    found.append(upstream.first_bytes[0] - began[0])
    return [
        Row(
            f"first byte of a push through the mirror, {name}",
            seconds(one.ours),
            f"{seconds(one.theirs)} straight",
            one.ratio,
            f"≤ {_FORWARDED * 1000:.0f} ms",
            one.ours <= _FORWARDED,
        )
        for name, one in (("median", Comparison(ours, theirs)), ("worst", Comparison([max(ours)], [max(theirs)])))
    ]


def _replicated(lab: Lab, rounds: int) -> list[Row]:
    """Pushes to one of three replicas, beside those to a mirror that is alone."""
    if shutil.which("redis-server") is None:
        return [
            Row("push with replicas: skipped, redis-server is not installed (Debian: apt-get install redis-server)")
        ]
    rows = []
    nowhere = {"bench": "http://127.0.0.1:1"}
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(lab.mirror())
        for ack in ("one", "all"):
            redis = stack.enter_context(RedisServer(lab.folder / f"redis-{ack}"))
            settings = {"hosted": {"ack": ack}}
            replicas = stack.enter_context(Replicas(lab.folder / f"ack-{ack}", nowhere, redis, settings=settings))
            ours: list[float] = []
            theirs: list[float] = []
            for number in range(rounds):
                url = replicas.urls[number % len(replicas)]
                for at, found in ((alone.url, theirs), (url, ours)):
                    found.append(_SIZE / _push(at, f"/v2/{_HOSTED}", lab.layer(_SIZE), chunked=False))
            compared = Comparison(ours, theirs)
            rows.append(
                Row(
                    f"push of 64 MiB to one of three replicas, hosted.ack: {ack}",
                    f"{compared.ours / 1e6:,.0f} MB/s",
                    f"{compared.theirs / 1e6:,.0f} MB/s to a mirror that is alone",
                    compared.ratio,
                )
            )
    return rows


def _row(what: str, compared: Comparison) -> Row:
    return Row(
        what,
        f"{compared.ours / 1e6:,.0f} MB/s",
        f"{compared.theirs / 1e6:,.0f} MB/s docker-registry",
        compared.ratio,
        f"≥ {_GOAL} ×",
        compared.ratio >= _GOAL,
    )


def _push(url: str, repository: str, layer: Layer, *, chunked: bool, began: list[float] | None = None) -> float:
    """Push a blob over a connection of its own; seconds from the POST until the registry has it.

    To ``began`` the time is added at which the first byte left, in seconds of the monotonic clock.
    """
    digest = str(layer.digest)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.blocksize = _PIECE
    try:
        first_at = time.monotonic()
        upload = _ask(connection, "POST", f"{repository}/blobs/uploads/", 202)
        length = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(layer.size)}
        upload = _ask(connection, "PATCH", upload, 202, _pieces(layer, began), length)
        _ask(connection, "PUT", f"{upload}{'&' if '?' in upload else '?'}digest={digest}", 201)
        return time.monotonic() - first_at
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    body: Iterator[memoryview] | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """Send a request; the path in ``Location``."""
    sent = {"content-type": "application/octet-stream", **(headers or {})}
    if body is None:
        sent["content-length"] = "0"
    connection.request(method, path, body=body, headers=sent, encode_chunked="transfer-encoding" in sent)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != status:
        raise AssertionError(f"{method} {path} was answered with {answer.status}: {said!r}")
    location = urlsplit(answer.headers["location"])
    return location.path + (f"?{location.query}" if location.query else "")


def _pieces(layer: Layer, began: list[float] | None) -> Iterator[memoryview]:
    position = 0
    if began is not None:
        began.append(time.monotonic())
    while position < layer.size:
        piece = layer.piece(position, _PIECE)
        position += len(piece)
        yield piece


def _herd(url: str, repository: str, layers: list[Layer]) -> float:
    """All of them at the same time; seconds until the last is there."""
    for layer in layers:
        assert layer.digest  # it is computed once, and not while the others are pushed
    start = threading.Barrier(len(layers) + 1)
    done: list[float] = []

    def one(layer: Layer) -> None:
        start.wait()
        _push(url, repository, layer, chunked=False)
        done.append(time.monotonic())

    threads = [threading.Thread(target=one, args=(layer,)) for layer in layers]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(done) == len(layers), f"{len(layers) - len(done)} of {len(layers)} pushes failed"
    return max(done) - began


class _Watched:
    """Notes the mirror's private memory again and again, in a ``with`` statement."""

    def __init__(self, mirror: MirrorProcess, peaks: list[int]) -> None:
        self._mirror = mirror
        self._peaks = peaks
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while True:
            self._peaks.append(self._mirror.private_memory())
            if self._done.wait(_EVERY):
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

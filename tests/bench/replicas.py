"""Three replicas on one Redis: what a herd over all of them costs upstream, and what Redis costs a warm pull."""

import contextlib
import shutil
from collections.abc import Sequence

from mirror.digest import Digest
from tests.bench.client import check, herd
from tests.bench.lab import REPOSITORY, UPSTREAM, Lab, base, wait_committed
from tests.bench.table import Comparison, Row, seconds
from tests.bench.upstream import Pace
from tests.bench.warm import load, rate
from tests.support.process import MirrorProcess
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas

_CLIENTS = 300
_SIZE = 8 * 1024 * 1024
_ROUNDS = 3


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """The herd over three replicas beside the same herd at one; warm manifests with a Redis beside those without."""
    if shutil.which("redis-server") is None:
        return [Row("replicas: skipped, redis-server is not installed (Debian: apt-get install redis-server)")]
    upstreams = {UPSTREAM: lab.upstream.url}
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(lab.folder / "redis"))
        replicas = stack.enter_context(Replicas(lab.folder / "replicas", upstreams, redis))
        alone = stack.enter_context(lab.mirror({"defaults": {"fresh_for": "1h"}}))
        return [*_herds(lab, replicas, alone, rounds or _ROUNDS), _warm(lab, replicas[0], alone, rounds or _ROUNDS)]


def _herds(lab: Lab, replicas: Replicas, alone: MirrorProcess, rounds: int) -> list[Row]:
    lab.upstream.set_pace(Pace(0.05, 20e6))
    together, single, manifests, blobs = [], [], [], []
    for _ in range(rounds):
        artifact = lab.artifact(_SIZE)
        single.append(herd(_CLIENTS, [base(alone)], REPOSITORY, artifact.tag))
        artifact = lab.artifact(_SIZE)
        lab.upstream.forget()
        together.append(herd(_CLIENTS, [base(one) for one in replicas], REPOSITORY, artifact.tag))
        manifests.append(sum(lab.upstream.count("GET", "/manifests/").values()))
        blobs.append(max(lab.upstream.count("GET", "/blobs/").values()))
        _settle(replicas, artifact.layer)
    lab.upstream.set_pace(Pace())
    compared = Comparison(together, single)
    name = f"cold herd of {_CLIENTS} over 3 replicas, 8 MiB"
    return [
        Row(
            f"{name}, until the last has it",
            seconds(compared.ours),
            f"{seconds(compared.theirs)} at one mirror without Redis",
            compared.ratio,
        ),
        Row(
            f"{name}, GETs upstream (worst round)",
            f"{max(manifests)} manifest, {max(blobs)} layer",
            f"{_CLIENTS} and {_CLIENTS} without a mirror",
            max(manifests + blobs) / _CLIENTS,
            "1 and 1",
            max(manifests + blobs) == 1,
        ),
    ]


def _warm(lab: Lab, replica: MirrorProcess, alone: MirrorProcess, rounds: int) -> Row:
    artifact = lab.artifact(1024)
    with_redis, without = [], []
    for one in (replica, alone):
        check(base(one), REPOSITORY, artifact.tag)
        wait_committed(one, artifact.layer)
    for _ in range(rounds):
        with_redis.append(load(base(replica), f"manifests/{artifact.tag}"))
        without.append(load(base(alone), f"manifests/{artifact.tag}"))
    compared = Comparison(with_redis, without)
    return Row(
        "warm manifest by tag, with Redis and two other replicas",
        rate(compared.ours),
        f"{rate(compared.theirs)} without",
        compared.ratio,
    )


def _settle(replicas: Sequence[MirrorProcess] | Replicas, digest: Digest) -> None:
    for one in replicas:
        wait_committed(one, digest)

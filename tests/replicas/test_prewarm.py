"""A job warms all replicas, from whichever of them it is begun, read and cancelled; one that dies is named."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.client import blob, manifest
from tests.support.artifacts import Artifact, compat, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.jobs import begin, followed, following, shown, warmed
from tests.support.process import MirrorProcess
from tests.support.pushing import At
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas, replicated
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

LASTING = {"defaults": {"fresh_for": "1h"}}


def plugins(up: FaultyUpstream, count: int) -> dict[str, Artifact]:
    """So many artifacts of their own at upstream, by what they are called at the mirror."""
    found = {}
    for n in range(count):
        artifact = (raw, compat)[n % 2](wasm_module(30_000 + n, seed=n))
        publish(up, f"team/plugin-{n}", "v1", artifact)
        found[f"up/team/plugin-{n}:v1"] = artifact
    return found


async def until_results(url: str, job: str, count: int) -> None:
    """Wait until a job has so many results, as the replica at ``url`` tells it."""

    async def there_are() -> bool:
        return len((await shown(url, job))["results"]) >= count

    there: bool = await eventually(there_are, what=f"{count} results of {job} at {url}", timeout=30)
    assert there


async def serves(url: str, reference: str, artifact: Artifact) -> bool:
    """Whether a replica gives out an artifact whole."""
    repository, _, tag = reference.rpartition(":")
    blobs = [(await blob(url, repository, digest)).body == content for digest, content in artifact.blobs.items()]
    return (await manifest(url, repository, tag)).body == artifact.body and all(blobs)


async def test_forty_references_are_warm_at_three_replicas_and_cost_upstream_one_get_each(tmp_path: Path) -> None:
    with replicated(tmp_path, settings={**LASTING, "workers": 2}) as (up, _, replicas):
        artifacts = plugins(up, 40)
        results = await warmed(replicas[0].url, [*artifacts, "up/team/absent:v1", "Nothing"], parallel=16)
        of = {reference: [one for one in results if one["reference"] == reference] for reference in artifacts}
        for reference, found in of.items():
            assert {one["replica"] for one in found} == {None, replicas[1].url, replicas[2].url}, reference
            assert {one["result"] for one in found} <= {"held", "fetched"}
            assert {one["digest"] for one in found} == {str(artifacts[reference].digest)}
        absent = [one for one in results if one["reference"] == "up/team/absent:v1"]
        assert [one["result"] for one in absent] == ["failed"] * 3
        (nothing,) = [one for one in results if one["reference"] == "Nothing"]
        assert (nothing["result"], nothing["replica"]) == ("failed", None)
        gets = Counter(request.path for request in up.matching(method="GET") if "absent" not in request.path)
        assert set(gets.values()) == {1}
        up.refuse()
        for url in replicas.urls:
            served = await asyncio.gather(*(serves(url, name, artifact) for name, artifact in artifacts.items()))
            assert all(served), url


async def test_a_job_is_followed_and_cancelled_at_any_replica(tmp_path: Path) -> None:
    gate = Gate()
    with replicated(tmp_path, settings=LASTING) as (up, _, replicas):
        artifacts = plugins(up, 3)
        up.inject(Fault(hold=gate), path="plugin-2/manifests")
        job = await begin(replicas[0].url, artifacts, parallel=1)
        for url in replicas.urls:
            await until_results(url, job, 6)
        here, there, third = replicas.urls
        of = {url: [one["replica"] for one in (await shown(url, job))["results"]] for url in replicas.urls}
        assert Counter(of[here]) == Counter([None, there, third] * 2)
        assert of[there] == [{None: here, there: None, third: third}[one] for one in of[here]]
        for url in replicas.urls:
            listed = (await At(url).ask("GET", "/api/v1/prewarm")).json["jobs"]
            assert [(one["id"], one["state"]) for one in listed] == [(job, "running")]
        followers = [asyncio.create_task(followed(url, job, "4")) for url in replicas.urls]
        cancelled = await At(replicas.urls[2]).ask("DELETE", f"/api/v1/prewarm/{job}")
        assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
        gate.release()
        for events in await asyncio.gather(*followers):
            assert [event.id for event in events if event.kind == "result"] == ["5", "6"]
            assert (events[-1].kind, events[-1].data["state"]) == ("end", "cancelled")
        assert (await At(there).ask("GET", "/api/v1/prewarm/nothing")).status == 404


@pytest.mark.shows("a replica dies while it is pre-warmed")
async def test_a_replica_that_dies_is_named_and_the_others_are_warm(tmp_path: Path) -> None:
    gate = Gate()
    with replicated(tmp_path, settings=LASTING) as (up, _, replicas):
        artifacts = plugins(up, 4)
        up.inject(Fault(hold=gate), path="plugin-3/manifests")
        job = await begin(replicas[0].url, artifacts, parallel=1)
        async for event in following(replicas[0].url, job):
            if event.kind == "result" and event.data["replica"] is not None:
                break
        dead = replicas[1].url
        replicas[1].kill()
        gate.release()
        results = [event.data for event in await followed(replicas[0].url, job) if event.kind == "result"]
        assert {one["result"] for one in results if one["replica"] != dead} <= {"held", "fetched"}
        assert len([one for one in results if one["replica"] == replicas[2].url]) == 4
        assert all(dead in one["why"] for one in results if one["replica"] == dead and one["result"] == "failed")
        replicas.wipe(replicas[1])


async def test_what_the_settings_name_is_warm_at_a_replica_that_joins_later(tmp_path: Path) -> None:
    with FaultyUpstream() as up, RedisServer(tmp_path / "redis") as redis:
        artifacts = plugins(up, 6)
        named = {**LASTING, "prewarm": {"references": list(artifacts), "interval": "1s"}}
        digests = {digest for artifact in artifacts.values() for digest in (artifact.digest, *artifact.blobs)}
        with Replicas(tmp_path, {"up": up.url}, redis, n=2, settings=named) as replicas:

            def are_warm(*mirrors: MirrorProcess) -> bool:
                blobs = [mirror.data_dir / "blobs" for mirror in mirrors]
                return all((at / one.algorithm / one.hex[:2] / one.hex).exists() for at in blobs for one in digests)

            await eventually(lambda: are_warm(*replicas), what="both are warm", timeout=60)
            gets = Counter(request.path for request in up.matching(method="GET"))
            assert set(gets.values()) == {1}
            replicas[1].stop()
            replicas.wipe(replicas[1])
            await asyncio.to_thread(replicas.start, replicas[1])
            await eventually(lambda: are_warm(replicas[1]), what="the one that has joined is warm", timeout=60)
            assert Counter(request.path for request in up.matching(method="GET")) == gets

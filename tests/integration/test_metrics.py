"""What ``/metrics`` says after requests whose number is known, whatever clients send, and with several workers."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from mirror.config.load import load
from mirror.metrics import DECLARED
from tests.integration.client import pull
from tests.integration.whose import workers
from tests.support.artifacts import OCI_LAYER, Artifact, compat, image, publish, raw, tar_gz, wasm_module
from tests.support.asking import ask
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

ARTIFACT = raw(wasm_module(300_000))
LAYER = ARTIFACT.layers[0]
NAME = "/v2/up/team/plugin"
ALWAYS_ASK = {"defaults": {"fresh_for": "0s"}}


async def scraped(mirror: Running) -> Scrape:
    reply = await mirror.get("/metrics")
    assert (reply.status, reply.header("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Scrape.of(reply.body)


async def until_counted(mirror: Running, name: str, expected: float, **labels: str) -> None:
    """A request is counted when its answer has ended, which its client may see a moment before."""

    async def counted() -> bool:
        return (await scraped(mirror)).sum(name, **labels) == expected

    found: bool = await eventually(counted, what=f"{name} {labels} is {expected}")
    assert found


async def test_a_miss_and_a_hit_are_counted_exactly(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}) as mirror:
            for _ in range(3):
                await mirror.get(f"{NAME}/manifests/1")
            for digest in ARTIFACT.layers:
                await mirror.until_held(digest)
                await mirror.get(f"{NAME}/blobs/{digest}")
            await mirror.head(f"{NAME}/blobs/{LAYER}")
            await mirror.get("/v2/")
            await until_counted(mirror, "requests_total", 1, operation="base")
            await until_counted(mirror, "fills_total", 2, result="success")
            await until_counted(mirror, "fills_in_flight", 0)
            told = await scraped(mirror)
    operations = {"base": 1, "blobs": 3, "manifests": 3}
    counted = {key: value for key, value in told.by("operation", "requests_total").items() if key != "metrics"}
    assert counted == operations
    assert told.by("status", "requests_total", operation="blobs") == {"200": 3}
    assert told.by("result", "lookups_total", upstream="up") == {"miss": 1, "hit": 5}
    blobs = sum(map(len, ARTIFACT.blobs.values()))
    layers = sum(len(ARTIFACT.blobs[digest]) for digest in ARTIFACT.layers)
    assert told.sum("sent_bytes_total", upstream="up") == 3 * len(ARTIFACT.body) + layers
    assert told.sum("upstream_bytes_total", upstream="up") == len(ARTIFACT.body) + layers
    assert told.by("operation", "upstream_requests_total", result="success") == {"get_blob": 2, "get_manifest": 1}
    assert told.by("endpoint", "upstream_requests_total") == {up.host: 3}
    assert told.by("result", "fills_total", upstream="up") == {"success": 2}
    assert (told.sum("cache_blobs"), told.sum("metadata_up", store="sqlite")) == (3, 1)
    assert told.sum("cache_bytes") == len(ARTIFACT.body) + layers < len(ARTIFACT.body) + blobs
    assert told.sum("fill_waiters") == 0


async def test_lookups_say_what_cache_status_says(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, ALWAYS_ASK) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            confirmed = await mirror.get(f"{NAME}/manifests/1")
            assert "detail=revalidated" in (confirmed.header("cache-status") or "")
            for _ in range(3):
                assert (await mirror.get(f"{NAME}/manifests/2")).status == 404
            assert (await mirror.get("/v2/nobody/plugin/manifests/2")).status == 404
            assert (await mirror.get(f"{NAME}/tags/list")).status == 200
            up.refuse()
            stale = await mirror.get(f"{NAME}/manifests/1")
            assert "fwd=stale" in (stale.header("cache-status") or "")
            assert (await mirror.get(f"{NAME}/tags/list")).status == 200
            await until_counted(mirror, "requests_total", 2, operation="tags")
            told = await scraped(mirror)
    assert told.by("result", "lookups_total") == {"miss": 2, "hit": 1, "negative": 2, "stale": 1}
    assert told.by("status", "requests_total", operation="manifests") == {"200": 3, "404": 4}
    for operation in ("get_manifest", "head_manifest", "tags"):
        assert told.sum("upstream_requests_total", operation=operation, result="success") == 1
    assert told.by("operation", "upstream_requests_total", result="not_found") == {"get_manifest": 1}
    assert told.by("operation", "upstream_requests_total", result="unavailable").keys() >= {"head_manifest"}


async def test_who_waits_for_a_fill_is_counted_while_it_runs(tmp_path: Path) -> None:
    artifact, gate = compat(wasm_module(300_000)), Gate()
    layer = artifact.layers[0]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(gate=gate, gate_at=1000), path="/blobs/")
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            readers = [asyncio.create_task(mirror.get(f"{NAME}/blobs/{layer}")) for _ in range(5)]
            await until_counted(mirror, "fill_waiters", 5)
            assert (await scraped(mirror)).sum("fills_in_flight") == 1
            gate.release()
            assert {reply.status for reply in await asyncio.gather(*readers)} == {200}
            await until_counted(mirror, "lookups_total", 5, result="collapsed")
            await until_counted(mirror, "fills_total", 1, result="success")
            await until_counted(mirror, "fills_in_flight", 0)
            await until_counted(mirror, "fill_waiters", 0)


async def test_a_body_that_cannot_be_finished_is_counted_as_cut(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        up.inject(Fault(tamper_from=-1, gate=gate, gate_at=200_000), path=f"/blobs/{LAYER}")
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            reading = asyncio.create_task(mirror.get(f"{NAME}/blobs/{LAYER}"))
            await until_counted(mirror, "fill_waiters", 1)
            gate.release()
            assert not (await reading).whole
            await until_counted(mirror, "requests_total", 1, operation="blobs", status="cut")
            await until_counted(mirror, "fills_total", 1, result="digest_mismatch")
            await until_counted(mirror, "fills_total", 1, result="success")  # the other layer
            told = await scraped(mirror)
    assert told.sum("fills_total") == 2


async def test_a_fill_that_fails_says_what_failed(tmp_path: Path) -> None:
    short = {"defaults": {"hold_for": "1s", "negative_for": "0s"}}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, short) as mirror:
            up.inject(Fault(status=403), path="/manifests/", times=1)
            assert (await mirror.get(f"{NAME}/manifests/1")).status == 403
            assert (await mirror.get(f"{NAME}/manifests/absent")).status == 404
            up.inject(Fault(status=500), path="/blobs/")
            assert (await mirror.get(f"{NAME}/manifests/1")).status == 200
            assert (await mirror.get(f"{NAME}/blobs/{LAYER}")).status == 503
            await until_counted(mirror, "fills_total", 2, result="download_failure")
            up.clear()
            up.inject(Fault(cut_after=100_000), path="/blobs/", times=1)
            assert (await mirror.get(f"{NAME}/blobs/{LAYER}")).whole
            await until_counted(mirror, "fills_total", 1, result="success")
            told = await scraped(mirror)
    results = {"download_failure": 2, "manifest_failure": 1, "success": 1}
    assert told.by("result", "fills_total", upstream="up") == results
    asked = told.by("result", "upstream_requests_total", operation="get_blob")
    assert (asked["success"], asked["cut"]) == (2, 1)
    assert told.by("result", "upstream_requests_total", operation="get_manifest") == {
        **{"denied": 1, "not_found": 1, "success": 1}
    }


async def test_an_endpoint_that_fails_is_told_and_so_is_how_long_it_takes(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, {"defaults": {"hold_for": "1s"}}) as mirror:
            told = await scraped(mirror)
            assert told.by("endpoint", "upstream_healthy", upstream="up") == {up.host: 1}
            assert told.sum("upstream_request_duration_seconds_count", upstream="up") == 0
            limited = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "25;w=21600"}
            up.inject(Fault(headers=limited), path="/manifests/")
            await mirror.get(f"{NAME}/manifests/1")
            told = await scraped(mirror)
            assert told.sum("upstream_ratelimit_remaining", upstream="up") == 0.25
            assert told.sum("upstream_request_duration_seconds_count", upstream="up") >= 1
            up.clear()
            up.inject(Fault(status=500))

            async def is_left_alone() -> bool:
                await mirror.get(f"{NAME}/manifests/other")
                return not (await scraped(mirror)).sum("upstream_healthy", upstream="up", endpoint=up.host)

            left: bool = await eventually(is_left_alone, what="the endpoint is left alone")
            assert left


async def test_a_download_that_goes_on_after_a_restart_is_counted_as_resumed(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=200_000), path=f"/blobs/{LAYER}", times=1)
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            await gate.reached()
            await until_counted(mirror, "fills_in_flight", 1)
            await eventually(
                lambda: any(file.stat().st_size for file in mirror.directory.spool.iterdir()), what="bytes"
            )
        gate.release()
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(f"{NAME}/blobs/{LAYER}")).whole
            await until_counted(mirror, "fills_total", 1, result="resumed")


async def test_no_label_is_taken_from_a_request(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}) as mirror:
            hostile = [
                *(f"/v2/up/team/x{number}/manifests/t{number}" for number in range(10)),
                *(f"/v2/other{number}/team/plugin/manifests/1" for number in range(10)),
                *(f"/v2/team/plugin/manifests/1?ns=elsewhere{number}.example" for number in range(10)),
                *(f"/{'x' * number}" for number in range(10)),
                *(
                    "/v2/up/team/plugin/blobs/sha256:zz",
                    "/v2/%00/..",
                    "/metrics/",
                    "/metrics?x",
                    "/metricsx",
                    "/peer/v1/x",
                ),
                *("/modules/x", "/modules/up/team/plugin:nothing", "/api/v1/x", "/v2x", '/v2/"}/manifests/1', "*"),
            ]
            for target in hostile:
                await mirror.get(target)
            for method in ("POST", "PUT", "PATCH", "DELETE", "BREW", "OPTIONS", "HEAD"):
                for target in ("/v2/up/team/plugin/manifests/1", "/metrics", "/readyz", "/modules/up/team/plugin:1"):
                    await mirror.ask(method, target)
            told = await scraped(mirror)
    known = {
        "base",
        "manifests",
        "blobs",
        "tags",
        "referrers",
        "uploads",
        "modules",
        "api",
        "dashboard",
        "peer",
        "health",
        "metrics",
    }
    assert told.by("operation", "requests_total").keys() <= known | {"other"}
    assert all(status.isdecimal() and len(status) == 3 for status in told.by("status", "requests_total"))
    assert {one.labels["upstream"] for one in told.samples if "upstream" in one.labels} == {"up"}
    assert {label for one in told.samples for label in one.labels} - {"le"} <= {
        label for one in DECLARED for label in one.labels
    }


async def test_metrics_are_read_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": {}}) as mirror:
        whole, head = await mirror.get("/metrics"), await mirror.head("/metrics")
        assert head.status == 200
        assert head.header("content-type") == whole.header("content-type")
        assert whole.header("x-content-type-options") == "nosniff"
        assert (await mirror.ask("POST", "/metrics", body=b"x")).status == 405
        for target in ("/metrics/", "/metrics/x", "/metricsx"):
            reply = await mirror.get(target)
            assert (reply.status, "/metrics" in reply.message) == (404, True)


async def test_the_upstreams_of_the_example_are_there_before_anyone_asks(tmp_path: Path) -> None:
    example = load(Path(__file__).parents[2] / "config" / "minimal.yaml", {}, {})
    async with running(tmp_path, {name: {} for name in example.upstreams}) as mirror:
        told = await scraped(mirror)
    for name in ("fills_total", "lookups_total", "upstream_requests_total", "sent_bytes_total", "upstream_bytes_total"):
        found = {one.labels["upstream"] for one in told.samples if one.name == name}
        assert found == set(example.upstreams), name
        assert told.sum(name) == 0


async def another(mirror: MirrorProcess, victim: int) -> None:
    """Wait until another worker has taken the victim's place."""
    await eventually(lambda: len(set(workers(mirror)) - {victim}) == 2, what="another worker")


def artifacts() -> list[Artifact]:
    return [image([(OCI_LAYER, tar_gz({"plugin.wasm": wasm_module(2000, seed)}))]) for seed in range(6)]


@pytest.mark.integration
async def test_two_workers_add_up_and_what_one_counted_outlives_it(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": 2}) as mirror:
        host, _, port = mirror.host.rpartition(":")
        address = host, int(port)

        async def answered() -> float:
            told = Scrape.of((await ask(address, "/metrics")).body)
            return told.sum("requests_total", operation="manifests", status="200")

        for number, artifact in enumerate(artifacts()):
            publish(up, "team/plugin", f"v{number}", artifact)
        await asyncio.gather(*(pull(mirror.url, "up/team/plugin", f"v{number % 6}") for number in range(60)))

        async def all_are_told() -> bool:
            told = Scrape.of((await ask(address, "/metrics")).body)
            fills, asked = (told.sum(one, result="success") for one in ("fills_total", "upstream_requests_total"))
            return (await answered(), fills, asked) == (60, 6, 12)

        told_all: bool = await eventually(all_are_told, what="both workers' numbers")
        assert told_all
        for victim in workers(mirror):
            os.kill(victim, signal.SIGKILL)
            await another(mirror, victim)
            seen = [await answered() for _ in range(10)]
            assert seen == [60] * 10
        mirror.restart()
        assert await answered() == 0

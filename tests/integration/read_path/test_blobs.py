"""Blobs: whole or in part, cold or warm, by GET or by HEAD, and always the bytes that the digest names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import compat, publish, raw, tar_gz, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

SIZE = 300_000
MODULE = wasm_module(SIZE)
DIGEST = Digest.of(MODULE)
URL = f"/v2/ghcr.io/team/plugin/blobs/{DIGEST}"
OTHER_TAG = '"sha256:' + "0" * 64 + '"'

RANGES = [
    ("bytes=0-0", slice(0, 1)),
    ("bytes=0-99", slice(0, 100)),
    ("bytes=70000-170000", slice(70_000, 170_001)),
    ("bytes=299999-", slice(299_999, SIZE)),
    ("bytes=1-", slice(1, SIZE)),
    ("bytes=0-", slice(0, SIZE)),
    ("bytes=-1", slice(SIZE - 1, SIZE)),
    ("bytes=-100000", slice(SIZE - 100_000, SIZE)),
    ("bytes=-9999999", slice(0, SIZE)),
    ("bytes=299990-9999999", slice(299_990, SIZE)),
    ("bytes=0-9223372036854775807", slice(0, SIZE)),
]
UNSATISFIABLE = ["bytes=300000-", "bytes=9999999-99999999", "bytes=-0", "bytes=2-1", "bytes=x-", "bytes=-", "0-1"]
WHOLE = ["bytes=0-0,2-3", "bytes=0-,0-", "bytes=" + ",".join(["0-"] * 1000), "items=0-1"]


@asynccontextmanager
async def holding(tmp_path: Path, content: bytes = MODULE) -> AsyncIterator[tuple[Running, FaultyUpstream]]:
    """A mirror that holds a blob already."""
    with FaultyUpstream() as up:
        digest = up.add_blob("team/plugin", content)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(f"/v2/ghcr.io/team/plugin/blobs/{digest}")).body == content
            await mirror.until_held(digest)
            up.reset()
            yield mirror, up


async def test_a_blob_comes_whole_and_then_from_disk(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", MODULE, "application/whatever")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for status in ("wasm-mirror; fwd=miss; fwd-status=200; stored", "wasm-mirror; hit"):
                reply = await mirror.get(URL, {"Accept-Encoding": "gzip"})
                assert (reply.status, reply.body, reply.whole) == (200, MODULE, True)
                assert reply.header("cache-status") == status
                assert reply.header("content-type") == "application/octet-stream"
                assert reply.header("content-length") == str(SIZE)
                assert reply.header("docker-content-digest") == str(DIGEST)
                assert reply.header("etag") == f'"{DIGEST}"'
                assert reply.header("accept-ranges") == "bytes"
                assert reply.header("content-encoding") is None
                assert reply.header("age") in ("0", "1")
                await mirror.until_held(DIGEST)
        assert up.count(method="GET", path="/blobs/") == 1
        assert {request.headers["accept-encoding"] for request in up.requests} == {"identity"}
        assert not any("range" in request.headers for request in up.requests)


async def test_the_empty_blob_can_be_had(tmp_path: Path) -> None:
    async with holding(tmp_path, b"") as (mirror, _):
        url = f"/v2/ghcr.io/team/plugin/blobs/{Digest.of(b'')}"
        reply = await mirror.get(url)
        assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", "0")
        assert (await mirror.get(url, {"Range": "bytes=0-"})).status == 416


async def test_a_compressed_layer_is_passed_on_as_it_is(tmp_path: Path) -> None:
    layer = tar_gz({"plugin.wasm": wasm_module(100_000)})
    async with holding(tmp_path, layer) as (mirror, _):
        reply = await mirror.get(f"/v2/ghcr.io/team/plugin/blobs/{Digest.of(layer)}")
        assert (reply.body, reply.header("content-encoding")) == (layer, None)


async def test_each_range_gives_its_bytes_from_disk(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, up):
        for asked, part in RANGES:
            reply = await mirror.get(URL, {"Range": asked})
            assert (asked, reply.status, reply.whole) == (asked, 206, True)
            assert reply.body == MODULE[part]
            assert reply.header("content-range") == f"bytes {part.start}-{part.stop - 1}/{SIZE}"
            assert reply.header("content-length") == str(part.stop - part.start)
            assert reply.header("etag") == f'"{DIGEST}"'
            assert reply.header("cache-status") == "wasm-mirror; hit"
        assert not up.requests


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size not known"])
async def test_each_range_gives_its_bytes_while_they_come(tmp_path: Path, known: bool) -> None:
    with FaultyUpstream() as up:
        artifact = raw(MODULE)
        publish(up, "team/plugin", "1", artifact)
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=150_000), path=str(DIGEST))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            if known:
                await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")
            asking = [asyncio.create_task(mirror.get(URL, {"Range": asked})) for asked, _ in RANGES]
            await gate.reached()
            gate.release()
            for (asked, part), reply in zip(RANGES, await asyncio.gather(*asking), strict=True):
                assert (asked, reply.status, reply.body) == (asked, 206, MODULE[part])
                assert reply.header("content-range") == f"bytes {part.start}-{part.stop - 1}/{SIZE}"
        assert up.count(method="GET", path=str(DIGEST)) == 1


async def test_what_is_outside_is_416_with_the_size(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, _):
        for asked in UNSATISFIABLE:
            reply = await mirror.get(URL, {"Range": asked})
            assert (asked, reply.status, reply.code) == (asked, 416, "RANGE_INVALID")
            assert reply.header("content-range") == f"bytes */{SIZE}"


async def test_what_is_outside_is_416_cold_too_and_the_fill_goes_on(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", MODULE)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(URL, {"Range": f"bytes={SIZE}-"})
            assert (reply.status, reply.header("content-range")) == (416, f"bytes */{SIZE}")
            await mirror.until_held(DIGEST)


async def test_more_than_one_range_or_another_unit_gives_the_whole(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, _):
        for asked in WHOLE:
            reply = await mirror.get(URL, {"Range": asked})
            assert (reply.status, reply.body, reply.header("content-range")) == (200, MODULE, None)
        twice = await mirror.get(URL, [("Range", "bytes=0-0"), ("Range", "bytes=1-1")])
        assert (twice.status, twice.body) == (200, MODULE)


async def test_if_range_lets_the_range_stand_for_this_digest_only(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, _):
        for condition, status, body in (
            (f'"{DIGEST}"', 206, MODULE[5:10]),
            (OTHER_TAG, 200, MODULE),
            (f'W/"{DIGEST}"', 200, MODULE),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 200, MODULE),
        ):
            reply = await mirror.get(URL, {"Range": "bytes=5-9", "If-Range": condition})
            assert (condition, reply.status, reply.body) == (condition, status, body)
        outside = await mirror.get(URL, {"Range": f"bytes={SIZE}-", "If-Range": OTHER_TAG})
        assert (outside.status, outside.body) == (200, MODULE)


async def test_who_has_the_blob_gets_304_even_for_a_range(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, _):
        for method in ("GET", "HEAD"):
            for tag in (f'"{DIGEST}"', f'W/"{DIGEST}"', f'{OTHER_TAG}, "{DIGEST}"', "*"):
                reply = await mirror.ask(method, URL, {"If-None-Match": tag, "Range": "bytes=5-9"})
                assert (reply.status, reply.body, reply.header("etag")) == (304, b"", f'"{DIGEST}"')
        reply = await mirror.get(URL, {"If-None-Match": OTHER_TAG, "Range": "bytes=5-9"})
        assert (reply.status, reply.body) == (206, MODULE[5:10])


@pytest.mark.parametrize("condition", ["*", f'"{DIGEST}"'])
async def test_nobody_is_told_that_a_blob_which_is_not_there_has_not_changed(tmp_path: Path, condition: str) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", b"another")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for method in ("GET", "HEAD"):
                reply = await mirror.ask(method, URL, {"If-None-Match": condition})
                assert reply.status == 404


async def test_head_tells_size_and_digest_and_ignores_ranges(tmp_path: Path) -> None:
    async with holding(tmp_path) as (mirror, up):
        for headers in ({}, {"Range": "bytes=0-1"}, {"Range": f"bytes={SIZE}-"}):
            head = await mirror.head(URL, headers)
            assert (head.status, head.body, head.header("content-length")) == (200, b"", str(SIZE))
            assert head.header("docker-content-digest") == str(DIGEST)
            assert (head.header("accept-ranges"), head.header("content-range")) == ("bytes", None)
        assert not up.requests


async def test_head_of_what_is_not_held_asks_upstream_and_fetches_nothing(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", MODULE)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            head = await mirror.head(URL)
            assert (head.status, head.header("content-length")) == (200, str(SIZE))
            missing = await mirror.head(f"/v2/ghcr.io/team/plugin/blobs/{Digest.of(b'no')}")
            assert missing.status == 404
            assert mirror.files() == []
        assert up.count(method="GET", path=str(DIGEST)) == 0


async def test_head_falls_back_to_get_where_a_registry_refuses_head(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", MODULE)
        up.inject(Fault(status=405), method="HEAD")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            head = await mirror.head(URL)
            assert (head.status, head.header("content-length")) == (200, str(SIZE))


async def test_head_of_a_blob_that_is_just_being_asked_for_waits_for_upstreams_word(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", b"another")
        gate = Gate()
        up.inject(Fault(hold=gate), method="GET")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            getting = asyncio.create_task(mirror.get(URL))
            await gate.reached()
            heading = asyncio.create_task(mirror.head(URL))
            other = asyncio.create_task(mirror.get(URL, {"If-None-Match": "*"}))
            assert (await mirror.get("/v2/")).status == 200  # so those before it have come, too
            gate.release()
            for reply in await asyncio.gather(getting, heading, other):
                assert reply.status == 404


async def test_many_ask_at_once_and_upstream_is_asked_once(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", MODULE)
        up.inject(Fault(delay=0.1), path="/blobs/")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            replies = await asyncio.gather(*(mirror.get(URL) for _ in range(20)))
            assert all((reply.status, reply.body) == (200, MODULE) for reply in replies)
            collapsed = [reply for reply in replies if (reply.header("cache-status") or "").endswith("; collapsed")]
            assert len(collapsed) == 19
        assert up.count(method="GET", path="/blobs/") == 1


async def test_held_content_is_served_when_upstream_is_gone_even_by_a_new_process(tmp_path: Path) -> None:
    artifact = compat(wasm_module(50_000))
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", artifact)
        layer = artifact.layers[0]
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")
            assert (await mirror.get(f"/v2/ghcr.io/team/plugin/blobs/{layer}")).status == 200
            await mirror.until_held(layer)
        up.refuse()
        async with running(tmp_path, {"ghcr.io": up}, {"defaults": {"fresh_for": "0s"}}) as mirror:
            for tail, body in (
                ("manifests/1", artifact.body),
                (f"manifests/{digest}", artifact.body),
                (f"blobs/{layer}", artifact.blobs[layer]),
            ):
                reply = await mirror.get(f"/v2/ghcr.io/team/plugin/{tail}")
                assert (tail, reply.status, reply.body) == (tail, 200, body)

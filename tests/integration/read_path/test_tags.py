"""Lists of tags: upstream's own, in pages that are never too long, and the last good one while upstream is down."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

URL = "/v2/ghcr.io/team/plugin/tags/list"
TAGS = [f"v{number:04}" for number in range(1200)]
ARTIFACT = raw(wasm_module(100))


def tagged(up: FaultyUpstream, tags: list[str], repository: str = "team/plugin") -> None:
    digest = publish(up, repository, None, ARTIFACT)
    for tag in tags:
        up.tag(repository, tag, digest)


async def walk(mirror: Running, target: str) -> list[list[str]]:
    """All pages from ``target`` on, by their links."""
    pages: list[list[str]] = []
    following: str | None = target
    while following is not None:
        assert len(pages) < 50, "the pages have no end"
        reply = await mirror.get(following)
        assert (following, reply.status) == (following, 200)
        pages.append(reply.json["tags"])
        link = reply.header("link")
        found = re.fullmatch(r'<(/v2/[^<>\s]+)>; rel="next"', link) if link else None
        assert link is None or found, link
        following = found[1] if found else None
    return pages


async def test_the_list_is_upstreams_under_the_name_that_the_client_used(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, ["1", "2"])
        tagged(up, ["x"], "library/busybox")
        async with running(tmp_path, {"ghcr.io": up, "docker.io": up}) as mirror:
            for target, headers, expected in (
                (URL, {}, {"name": "ghcr.io/team/plugin", "tags": ["1", "2"]}),
                ("/v2/team/plugin/tags/list?ns=ghcr.io", {}, {"name": "team/plugin", "tags": ["1", "2"]}),
                ("/v2/team/plugin/tags/list", {"Host": "ghcr.io"}, {"name": "team/plugin", "tags": ["1", "2"]}),
                ("/v2/docker.io/busybox/tags/list", {}, {"name": "docker.io/busybox", "tags": ["x"]}),
            ):
                reply = await mirror.get(target, headers)
                assert (reply.status, reply.json, reply.header("link")) == (200, expected, None)
                assert reply.header("content-type") == "application/json"
                assert reply.header("cache-status") == "wasm-mirror; fwd=request; fwd-status=200"
                head = await mirror.head(target, headers)
                assert (head.status, head.body) == (200, b"")
                assert head.header("content-length") == reply.header("content-length")


async def test_n_and_last_page_through_all_tags(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS[:7])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert await walk(mirror, f"{URL}?n=3") == [TAGS[0:3], TAGS[3:6], TAGS[6:7]]
            assert await walk(mirror, f"{URL}?n=7") == [TAGS[:7]]
            assert await walk(mirror, f"{URL}?n=3&last={TAGS[4]}") == [TAGS[5:7]]
            assert await walk(mirror, f"{URL}?last={TAGS[4]}") == [TAGS[5:7]]
            assert await walk(mirror, f"{URL}?last=zzz") == [[]]
            assert await walk(mirror, "/v2/team/plugin/tags/list?n=4&ns=ghcr.io") == [TAGS[0:4], TAGS[4:7]]


async def test_n_of_nothing_gives_nothing_without_a_link(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS[:3])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for n in ("0", "000"):
                reply = await mirror.get(f"{URL}?n={n}")
                assert (reply.status, reply.json) == (200, {"name": "ghcr.io/team/plugin", "tags": []})
                assert reply.header("link") is None
        assert not up.requests


@pytest.mark.parametrize("n", ["1000000000", "9" * 30, "1001", ""])
async def test_no_page_is_longer_than_the_cap(tmp_path: Path, n: str) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert await walk(mirror, f"{URL}?n={n}" if n else URL) == [TAGS[:1000], TAGS[1000:]]
        assert {request.query.get("n", "1000") for request in up.requests} == {"1000"}


async def test_a_registry_that_knows_no_pages_is_paged_all_the_same(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        everything = up.add_blob("team/plugin", b'{"tags": ["c", "b", "a", "e", "d"]}', "application/json")
        up.inject(Fault(redirect=f"/v2/team/plugin/blobs/{everything}"), path="/tags/list")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert await walk(mirror, f"{URL}?n=2") == [["c", "b"], ["a", "e"], ["d"]]


async def test_upstreams_own_pages_and_positions_are_passed_on(tmp_path: Path) -> None:
    position = "ukD72mdD/mC8b5xV3susmJzzaTgp3hKwR9nRUW1yZZ6dLc5kfZtKLT2ICo63WYvt2jq2LvjWO7aBiFvYi0Qw=="
    with FaultyUpstream() as up:
        tagged(up, TAGS[:2])
        link = f'</v2/team/plugin/tags/list?last={position.replace("/", "%2F").replace("=", "%3D")}&n=2>; rel="next"'
        up.inject(Fault(headers={"link": link}), path="/tags/list", times=1)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(f"{URL}?n=2")
            following = (reply.header("link") or "").partition("<")[2].partition(">")[0]
            assert parse_qs(urlsplit(following).query) == {"last": [position], "n": ["2"]}
            assert (await mirror.get(following)).status == 200
        assert up.requests[-1].query == {"last": position, "n": "2"}


async def test_links_lead_back_to_the_mirror_whatever_upstreams_host_is(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS[:4])
        up.inject(Fault(headers={"link": '<https://evil.example/v2/x/tags/list?last=v0001&n=2>; rel="next"'}))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(f"{URL}?n=2")
            assert reply.header("link") == '</v2/ghcr.io/team/plugin/tags/list?last=v0001&n=2>; rel="next"'


async def test_the_last_good_list_is_kept_for_an_outage_and_a_new_process(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS[:3])
        settings = {"defaults": {"hold_for": "300ms"}}
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            good = await mirror.get(f"{URL}?n=2")
            up.inject(Fault(status=503), path="/tags/list")
            stale = await mirror.get(f"{URL}?n=2")
            assert (stale.status, stale.json, stale.header("link")) == (200, good.json, good.header("link"))
            assert stale.header("cache-status") == "wasm-mirror; fwd=stale; detail=upstream_unavailable"
        up.refuse()
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            assert (await mirror.get(f"{URL}?n=2")).json == good.json


async def test_no_old_list_is_served_after_a_refusal_or_a_deletion(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        tagged(up, TAGS[:3])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(URL)).status == 200
            for status, seen, code in ((401, 403, "DENIED"), (403, 403, "DENIED"), (404, 404, "NAME_UNKNOWN")):
                with up.inject(Fault(status=status), path="/tags/list"):
                    reply = await mirror.get(URL)
                    assert (status, reply.status, reply.code) == (status, seen, code)
            assert (await mirror.get(URL)).status == 200

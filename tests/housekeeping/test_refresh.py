"""Upstream is asked now, whatever is known, and what it says is what the next client gets."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.metadata.base import TagRecord
from mirror.oci import Reference
from mirror.resolve import Resolver
from tests.housekeeping.support import act, pull
from tests.support.artifacts import Artifact, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

NAME = "up/team/plugin"
LATE = {"defaults": {"fresh_for": "1h"}}
MANIFEST = "/v2/team/plugin/manifests/1"


def plugin(seed: int) -> Artifact:
    return raw(wasm_module(3_000, seed=seed))


async def served(mirror: Running) -> bytes:
    """What a client gets for the tag."""
    return (await mirror.get(f"/v2/{NAME}/manifests/1")).body


async def test_a_tag_that_moved_is_known_though_its_record_was_fresh(tmp_path: Path) -> None:
    one, other = plugin(1), plugin(2)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", one)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", one)
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert (result["result"], result["digest"]) == ("unchanged", str(one.digest))
            publish(up, "team/plugin", "1", other)
            assert await served(mirror) == one.body
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert (result["result"], result["digest"]) == ("moved", str(other.digest))
            assert str(one.digest) in result["why"]
            asked = len(up.requests)
            assert await served(mirror) == other.body
            assert len(up.requests) == asked


async def test_a_tag_that_is_gone_is_gone_here_too_and_one_that_nobody_knew_is_fetched(tmp_path: Path) -> None:
    artifact = plugin(3)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert (result["result"], result["digest"]) == ("fetched", str(artifact.digest))
            up.delete_tag("team/plugin", "1")
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert result["result"] == "gone"
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 404
            assert (await act(mirror, "refresh", f"{NAME}:1"))[0]["result"] == "gone"


async def test_a_tag_that_is_gone_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    artifact = plugin(4)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        settings = {"defaults": {"fresh_for": "1h", "keep_deleted_tags": True}}
        async with running(tmp_path, {"up": up}, settings) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            up.delete_tag("team/plugin", "1")
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert result["result"] == "gone"
            assert "keep_deleted_tags" in result["why"]
            assert await served(mirror) == artifact.body


async def test_while_upstream_does_not_answer_all_stays_as_it_is(tmp_path: Path) -> None:
    artifact = plugin(5)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            up.refuse()
            (result,) = await act(mirror, "refresh", f"{NAME}:1")
            assert result["result"] == "failed"
            assert result["why"]
            assert await served(mirror) == artifact.body


async def test_one_question_is_for_all_who_ask_before_it_is_sent_and_the_next_for_those_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is on its way already tells of what stood there before."""
    waiting = 0
    renew = Resolver.renew

    async def counted(self: Resolver, reference: Reference) -> tuple[TagRecord | None, TagRecord]:
        nonlocal waiting
        waiting += 1
        return await renew(self, reference)

    monkeypatch.setattr(Resolver, "renew", counted)
    one, other, gate = plugin(6), plugin(7), Gate()
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", one)
        up.inject(Fault(gate=gate, gate_at=10), method="GET", path=MANIFEST, times=1)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            first = asyncio.ensure_future(act(mirror, "refresh", f"{NAME}:1"))
            await gate.reached()
            publish(up, "team/plugin", "1", other)
            rest = [asyncio.ensure_future(act(mirror, "refresh", f"{NAME}:1")) for _ in range(6)]
            await eventually(lambda: waiting == 7, what="all of them wait")
            gate.release()
            assert (await first)[0]["digest"] == str(one.digest)
            for answer in await asyncio.gather(*rest):
                assert answer[0]["digest"] == str(other.digest)
            assert up.count(method="HEAD", path=MANIFEST) == 1


async def test_digests_hosted_and_offline_content_are_told_for_what_they_are(tmp_path: Path) -> None:
    artifact, pushed = plugin(8), plugin(9)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        upstreams: Mapping[str, FaultyUpstream | Mapping[str, object]] = {
            "up": up,
            "away": {"endpoints": [up.url], "offline": True},
        }
        async with running(tmp_path, upstreams, LATE) as mirror:
            await Author(mirror).push(pushed, "1")
            results = await act(
                mirror,
                "refresh",
                f"{NAME}@{artifact.digest}",
                "hosted/team/plugin:1",
                "hosted/team/plugin:2",
                "away/team/plugin:1",
                "?",
            )
            found = [result["result"] for result in results]
            assert found == ["fetched", "unchanged", "gone", "failed", "invalid"], results
            assert "offline" in results[3]["why"]
            assert results[1]["digest"] == str(pushed.digest)
            (result,) = await act(mirror, "refresh", f"{NAME}@{artifact.digest}")
            assert result["result"] == "held"

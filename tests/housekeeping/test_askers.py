"""Who asked for a manifest lately: clients alone, bounded, and told by whichever worker is asked."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mirror import askers as module
from mirror.askers import LONGEST_AGENT, Askers, agent_of
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata import seen
from mirror.metadata.seen import MOST_OF_ONE, Asker
from mirror.metadata.sqlite import SqliteMetadata
from tests.auth.support import basic, users_file
from tests.housekeeping.support import act, call
from tests.support.artifacts import compat, index, publish
from tests.support.asking import Headers
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

NAME = "up/team/plugin"
LATE = {"defaults": {"fresh_for": "1h"}}
DIGEST, OTHER = Digest.of(b"a manifest"), Digest.of(b"another")
ENVOY = [(b"host", b"mirror"), (b"user-agent", b"istio-proxy/1.30")]


async def told(mirror: Running, reference: str) -> list[tuple[str, str | None, str | None, int]]:
    """The address, the program and the user of each who asked, and how often."""
    answer: dict[str, Any] = await call(mirror, "GET", f"askers?reference={quote(reference)}")
    assert answer["total"] == len(answer["askers"])
    assert all(one["first_at"] <= one["last_at"] for one in answer["askers"])
    return [(one["client"], one["agent"], one["user"], one["count"]) for one in answer["askers"]]


async def test_who_asked_is_told_of_a_tag_and_of_its_digest_and_after_a_restart_too(tmp_path: Path) -> None:
    artifact = compat(plugin())
    manifest = f"/v2/{NAME}/manifests"
    agent: Headers = {"User-Agent": "istio-proxy/1.30"}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            for _ in range(2):
                assert (await mirror.get(f"{manifest}/1", agent)).status == 200
            assert (await mirror.head(f"{manifest}/{artifact.digest}", agent)).status == 200
            assert await told(mirror, f"{NAME}:1") == [("127.0.0.1", "istio-proxy/1.30", None, 3)]
            assert (await mirror.get(f"/modules/{NAME}:1")).status == 200
            assert (await mirror.get(f"/v2/{NAME}/blobs/{artifact.layers[0]}")).status == 200
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            expected = [("127.0.0.1", None, None, 1), ("127.0.0.1", "istio-proxy/1.30", None, 3)]
            assert await told(mirror, f"oci://{NAME}@{artifact.digest}") == expected


async def test_what_the_mirror_asks_itself_for_and_what_fails_is_nobodys_question(tmp_path: Path) -> None:
    artifact = compat(plugin())
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", index(artifact))
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            job = await call(mirror, "POST", "prewarm", {"references": [f"{NAME}:1"], "pin": True}, status=202)

            async def ended() -> bool:
                return (await call(mirror, "GET", f"prewarm/{job['id']}"))["ended_at"] is not None

            assert bool(await eventually(ended, what="it is warmed"))
            await act(mirror, "refresh", f"{NAME}:1")
            await call(mirror, "GET", f"modules/{NAME}:1")
            assert await told(mirror, f"{NAME}:1") == await told(mirror, f"{NAME}@{artifact.digest}") == []
            assert (await mirror.get(f"/v2/{NAME}/manifests/2")).status == 404
            await call(mirror, "GET", f"askers?reference={NAME}:2", status=404)
            await call(mirror, "GET", "askers?reference=elsewhere/team/plugin:1", status=404)
            await call(mirror, "GET", "askers", status=400)


async def test_a_user_is_named_and_what_was_pushed_is_known_by_its_tag(tmp_path: Path) -> None:
    anna = basic("anna", "hunter2")
    auth = {"mode": "htpasswd", "file": str(users_file(tmp_path, {"anna": "hunter2"}))}
    async with running(tmp_path, {"up": "http://127.0.0.1:1"}, {"auth": auth}) as mirror:
        await Author(mirror, headers=anna).push(compat(plugin()), "1.0")
        reply = await mirror.get("/v2/hosted/team/plugin/manifests/1.0", anna)
        assert reply.status == 200, reply
        assert await told(mirror, "hosted/team/plugin:1.0") == [("127.0.0.1", None, "anna", 1)]


async def test_the_last_askers_of_the_last_manifests_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_MANIFESTS", 1)
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    askers = Askers(store, lambda: 10_000.0)
    askers.asked(OTHER, "10.0.0.1", ENVOY, "", 1.0)
    for number in range(3 * MOST_OF_ONE):
        askers.asked(DIGEST, f"10.0.0.{number}", ENVOY, "", float(number))
    found = await askers.of(DIGEST)
    last = range(3 * MOST_OF_ONE - 1, 2 * MOST_OF_ONE - 1, -1)
    assert [one.client for one in found] == [f"10.0.0.{number}" for number in last]
    assert await askers.of(OTHER) == [], "there were too many manifests"
    askers.asked(DIGEST, "10.1.0.1", ENVOY, "", 9_000.0)
    found = await askers.of(DIGEST)
    assert (len(found), found[0]) == (MOST_OF_ONE, Asker("10.1.0.1", "istio-proxy/1.30", "", 1, 9_000.0, 9_000.0))
    monkeypatch.setattr(seen, "_MOST_ASKERS", 10)
    askers.asked(OTHER, "10.1.0.1", ENVOY, "", 9_001.0)
    assert (len(await askers.of(OTHER)), len(await askers.of(DIGEST))) == (1, 9), "of all, those who asked last"
    await store.aclose()


async def test_workers_add_to_one_another_and_who_does_not_come_again_is_forgotten(tmp_path: Path) -> None:
    stores = [SqliteMetadata.open(tmp_path / "metadata.sqlite") for _ in range(2)]
    day = 86_400.0
    now = [day]
    one, other = (Askers(store, lambda: now[0]) for store in stores)
    one.asked(DIGEST, "10.0.0.1", ENVOY, "", day)
    one.asked(DIGEST, "10.0.0.2", ENVOY, "anna", day)
    await one.flush()
    other.asked(DIGEST, "10.0.0.1", ENVOY, "", day - 1)
    other.asked(DIGEST, "10.0.0.1", ENVOY, "", 3 * day)
    await other.flush()
    expected = [
        Asker("10.0.0.1", "istio-proxy/1.30", "", 3, day - 1, 3 * day),
        Asker("10.0.0.2", "istio-proxy/1.30", "anna", 1, day, day),
    ]
    assert await one.of(DIGEST) == await other.of(DIGEST) == expected
    now[0] = 8 * day + 1
    one.asked(OTHER, "10.0.0.1", ENVOY, "", now[0])
    assert [len(await one.of(digest)) for digest in (OTHER, DIGEST)] == [1, 1]
    for store in stores:
        await store.aclose()


async def test_what_could_not_be_written_is_written_with_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    askers = Askers(store, lambda: 10.0)

    async def fails(*of: object) -> None:
        raise StoreError("the disk is full")

    askers.asked(DIGEST, "10.0.0.1", ENVOY, "", 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "put_askers", fails)
        await askers.flush()
    askers.asked(DIGEST, "10.0.0.1", ENVOY, "", 6.0)
    assert await askers.of(DIGEST) == [Asker("10.0.0.1", "istio-proxy/1.30", "", 2, 5.0, 6.0)]
    await store.aclose()


def test_requests_are_sorted_now_and_then_and_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    askers = Askers(Nowhere(), lambda: 10.0)
    headers = [(b"user-agent", b"x")]
    for _ in range(10_000):
        askers.asked(DIGEST, "10.0.0.1", headers, "", 1.0)
    assert len(askers._heard) < 1_000


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"crane/0.20", "crane/0.20"),
        (b"", ""),
        (b"  a\x1b[31mb\r\nc\x00\x85 ", "a[31mbc"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
        (b"x" * 10_000, "x" * LONGEST_AGENT),
        ("ü".encode("latin-1"), "ü"),
    ],
)
def test_a_user_agent_is_bounded_and_without_what_would_not_be_seen(raw: bytes, expected: str) -> None:
    assert agent_of(raw) == expected


class Nowhere:
    """Nothing is noted."""

    async def put_askers(self, *of: object) -> None: ...

    async def askers(self, digest: Digest) -> list[Asker]:
        return []

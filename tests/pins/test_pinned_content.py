"""What is pinned stays on the disk, whatever else comes, and stands in for its upstream however old it is."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from mirror import evictor, survey
from tests.support.artifacts import OCI_CONFIG, RAW_LAYER, Artifact, image, index, publish, wasm_module
from tests.support.asking import Reply
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

KIB = 1024
NAME = "/v2/up/team/plugin"
PINS = "/api/v1/pins"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eviction looks often, and blobs are old as soon as they are there."""
    monkeypatch.setattr(evictor, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(survey, "YOUNG", 0.0)


def artifact(number: int, size: int = 100 * KIB) -> Artifact:
    """One of many that share nothing."""
    config = (OCI_CONFIG, b'{"number":%d}' % number)
    return image([(RAW_LAYER, wasm_module(size, number))], config=config)


def published(up: FaultyUpstream, *numbers: int) -> list[Artifact]:
    """So many, under their numbers as tags."""
    made = [artifact(number) for number in numbers]
    for number, one in zip(numbers, made, strict=True):
        publish(up, "team/plugin", str(number), one)
    return made


def bounded(size: int, **defaults: object) -> dict[str, object]:
    return {"cache": {"max_size": size}, "defaults": {"fresh_for": "1h", **defaults}}


async def pull(mirror: Running, tag: str, one: Artifact) -> None:
    """As an agent: the manifest by its tag, then the layer."""
    manifest = await mirror.get(f"{NAME}/manifests/{tag}")
    assert (manifest.status, manifest.body) == (200, one.body)
    for digest in one.layers:
        assert (await mirror.get(f"{NAME}/blobs/{digest}")).status == 200


def all_of(*artifacts: Artifact) -> list[bool]:
    """Nothing but a name for what is asked of `holds`."""
    return [True] * len(artifacts)


def holds(mirror: Running, *artifacts: Artifact) -> list[bool]:
    """Of each whether all of it is on the disk."""
    return [all(mirror.holds(digest) for digest in (one.digest, *one.blobs)) for one in artifacts]


async def until_held(mirror: Running, *artifacts: Artifact) -> None:
    await eventually(lambda: all(holds(mirror, *artifacts)), what="all of it is held")


async def until_gone(mirror: Running, *artifacts: Artifact) -> None:
    def gone() -> bool:
        return not any(mirror.holds(digest) for one in artifacts for digest in (one.digest, *one.layers))

    await eventually(gone, what="it is evicted", timeout=20)


async def pin(mirror: Running, *references: str) -> list[dict[str, object]]:
    reply = await change(mirror, "POST", PINS, {"references": references})
    assert reply.status == 200, reply
    results: list[dict[str, object]] = reply.json["results"]
    return results


async def unpin(mirror: Running, reference: str) -> Reply:
    return await change(mirror, "DELETE", f"{PINS}/{quote(reference)}")


async def change(mirror: Running, method: str, target: str, body: object = None) -> Reply:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if body is not None else {}
    return await mirror.ask(method, target, headers, content)


async def listed(mirror: Running) -> list[dict[str, object]]:
    pins: list[dict[str, object]] = (await mirror.get(PINS)).json["pins"]
    return pins


ANYTHING = object()


async def until_listed(mirror: Running, reference: str, **fields: object) -> dict[str, object]:
    """Wait until a pin is told so."""

    async def told() -> dict[str, object] | None:
        (pin,) = [one for one in await listed(mirror) if one["reference"] == reference]
        right = all(
            pin[name] is not None if value is ANYTHING else pin[name] == value for name, value in fields.items()
        )
        return pin if right else None

    found: dict[str, object] | None = await eventually(told, what=f"{reference} is told so: {fields}")
    assert found is not None
    return found


def results(found: Sequence[dict[str, object]]) -> list[object]:
    return [one["result"] for one in found]


@pytest.mark.integration
@pytest.mark.shows("the disk is full, and all on it is pinned")
async def test_what_is_pinned_stays_when_all_else_has_to_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FaultyUpstream() as up:
        kept, *others = published(up, *range(5))
        async with running(tmp_path, {"up": up}, bounded(120 * KIB)) as mirror:
            assert results(await pin(mirror, "up/team/plugin:0")) == ["pinned"]
            await until_held(mirror, kept)
            for number, one in enumerate(others, 1):
                await pull(mirror, str(number), one)
            await until_gone(mirror, *others)
            assert holds(mirror, kept) == all_of(kept)
            await eventually(lambda: "nothing more may go" in caplog.text, what="it is said")
            assert "0 bytes are hosted, 102,838 pinned" in caplog.text
            told = Scrape.of((await mirror.get("/metrics")).body)
            assert told.sum("eviction_short_bytes", reason="pinned") > 100 * KIB
            await pull(mirror, "1", others[0])  # as a full disk does: through


async def test_what_a_pinned_index_leads_to_is_pinned(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        child = artifact(7)
        top = index(child)
        publish(up, "team/plugin", None, child)
        publish(up, "team/plugin", "many", top)
        (other,) = published(up, 1)
        async with running(tmp_path, {"up": up}, bounded(120 * KIB)) as mirror:
            await pin(mirror, "up/team/plugin:many")
            await until_held(mirror, child)
            await pull(mirror, "1", other)
            await until_gone(mirror, other)
            assert mirror.holds(top.digest)
            assert holds(mirror, child) == all_of(child)
            (told,) = await listed(mirror)
            assert told["complete"] is True


async def test_after_a_move_a_pin_protects_what_the_tag_names_and_what_it_named_before(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        first, second, third, other = (artifact(number) for number in range(4))
        publish(up, "team/plugin", "v1", first)
        publish(up, "team/plugin", "other", other)
        settings = bounded(330 * KIB, fresh_for="0s")
        async with running(tmp_path, {"up": up}, settings) as mirror:
            await pin(mirror, "up/team/plugin:v1")
            await until_held(mirror, first)
            for before, now in ((first, second), (second, third)):
                publish(up, "team/plugin", "v1", now)
                await pull(mirror, "v1", now)
                await until_held(mirror, now)

                await until_listed(mirror, "up/team/plugin:v1", digests=[str(now.digest), str(before.digest)])
            await pull(mirror, "other", other)
            await until_gone(mirror, first)
            assert holds(mirror, second, third) == [True, True]


async def test_what_is_unpinned_may_go(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        kept, other = published(up, 0, 1)
        async with running(tmp_path, {"up": up}, bounded(120 * KIB)) as mirror:
            await pin(mirror, "oci://up/team/plugin:0")
            await until_held(mirror, kept)
            reply = await unpin(mirror, "up/team/plugin:0")
            assert (reply.status, reply.json) == (200, {"reference": "up/team/plugin:0"})
            await pull(mirror, "1", other)
            await until_gone(mirror, kept)
            assert await listed(mirror) == []
            again = await unpin(mirror, "up/team/plugin:0")
            assert (again.status, again.code) == (404, "NAME_UNKNOWN")
            assert "up/team/plugin:0 is not pinned" in again.message


async def test_each_reference_gets_its_word_and_none_stops_at_a_bad_one(tmp_path: Path) -> None:
    with FaultyUpstream() as up, FaultyUpstream() as away:
        kept, held = published(up, 0, 1)
        publish(away, "team/plugin", "1", held)
        upstreams: dict[str, FaultyUpstream | str | Mapping[str, object]]
        upstreams = {"up": {"endpoints": [up.url], "allow": ["team/**"]}, "away": away}
        settings = {**bounded(10**9, stale_if_error="0s", fresh_for="0s", hold_for="1s"), "names": ["mirror.example"]}
        async with running(tmp_path, upstreams, settings) as mirror:
            await pull_from_away(mirror, held)
            away.refuse()
            found = await pin(
                mirror,
                "oci://mirror.example/up/team/plugin:0",
                "up/team/plugin:0",
                f"up/team/plugin@{kept.digest}",
                "elsewhere/team/plugin:0",
                "up/other/plugin:0",
                "up/team/plugin:none",
                "away/team/plugin:1",
                "away/team/plugin:2",
                "Up/!:",
            )
            words = ["pinned", "already", "pinned", "invalid", "failed", "failed", "pinned", "failed", "invalid"]
            assert results(found) in (words, ["already", "pinned", *words[2:]])
            assert found[6]["digest"] == str(held.digest)
            why = [str(one["why"]) for one in found]
            assert "no upstream 'elsewhere' is configured" in why[3]
            assert "upstreams.up.allow" in why[4]
            assert "does not have team/plugin:none" in why[5]
            assert "127.0.0.1" in why[7]
            pinned = [one["reference"] for one in await listed(mirror)]
            assert pinned == ["away/team/plugin:1", "up/team/plugin:0", f"up/team/plugin@{kept.digest}"]


async def pull_from_away(mirror: Running, one: Artifact) -> None:
    assert (await mirror.get("/v2/away/team/plugin/manifests/1")).status == 200
    assert (await mirror.get(f"/v2/away/team/plugin/blobs/{one.layers[0]}")).status == 200


@pytest.mark.shows("upstream is away for longer than `stale_if_error`")
async def test_a_pinned_tag_stands_in_however_old_it_is(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        kept, other = published(up, 0, 1)
        settings = bounded(10**9, fresh_for="0s", stale_if_error="0s", hold_for="1s")
        async with running(tmp_path, {"up": up}, settings) as mirror:
            await pin(mirror, "up/team/plugin:0")
            await pull(mirror, "0", kept)
            await pull(mirror, "1", other)
            up.refuse()
            reply = await mirror.get(f"{NAME}/manifests/0")
            assert (reply.status, reply.body) == (200, kept.body)
            assert "fwd=stale" in str(reply.header("cache-status"))
            assert (await mirror.get(f"{NAME}/manifests/1")).status == 503
            await unpin(mirror, "up/team/plugin:0")
            assert (await mirror.get(f"{NAME}/manifests/0")).status == 503


async def test_a_refusal_and_a_deletion_are_answers_for_a_pinned_tag_too(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        kept, _ = published(up, 0, 1)
        async with running(tmp_path, {"up": up}, bounded(10**9, fresh_for="0s", negative_for="0s")) as mirror:
            await pin(mirror, "up/team/plugin:0", "up/team/plugin:1")
            await pull(mirror, "0", kept)
            up.delete_tag("team/plugin", "0")
            assert (await mirror.get(f"{NAME}/manifests/0")).status == 404
            up.require_basic({"robot": "secret"})
            assert (await mirror.get(f"{NAME}/manifests/1")).status == 403


async def test_what_is_pinned_of_an_upstream_that_is_configured_no_more_can_be_unpinned(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        (kept,) = published(up, 0)
        async with running(tmp_path, {"up": up}) as mirror:
            await pin(mirror, "up/team/plugin:0")
            await until_held(mirror, kept)
        async with running(tmp_path, {"other": up}) as mirror:
            await until_listed(mirror, "up/team/plugin:0", complete=True)
            assert (await unpin(mirror, "up/team/plugin:1")).code == "NAME_UNKNOWN"
            assert (await unpin(mirror, "up/team/plugin:0")).status == 200
            assert await listed(mirror) == []


async def test_hosted_content_can_be_pinned_and_is_listed(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}) as mirror:
            author, first = Author(mirror), artifact(1)
            await author.push(first, "1")
            assert results(await pin(mirror, "hosted/team/plugin:1", "hosted/team/plugin:2")) == ["pinned", "failed"]
            (told,) = await listed(mirror)
            assert told == {
                "reference": "hosted/team/plugin:1",
                "digests": [str(first.digest)],
                "complete": True,
                "bytes": len(first.body) + sum(map(len, first.blobs.values())),
                "pinned_at": told["pinned_at"],
                "by": told["by"],
                "problem": None,
            }
            assert "127.0.0.1" in str(told["by"])
            assert (await unpin(mirror, "hosted/team/plugin:1")).status == 200


@pytest.mark.shows("what is pinned is not on the disk, and cannot be had")
async def test_what_is_missing_of_a_pin_is_brought_and_what_cannot_be_had_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with FaultyUpstream() as up:
        first, second = published(up, 0, 1)
        async with running(tmp_path, {"up": up}, bounded(10**9)) as mirror:
            await pin(mirror, "up/team/plugin:0", "up/team/plugin:1")
            await until_held(mirror, first, second)
        for one in (first, second):
            for digest in one.layers:
                mirror.directory.blob(digest).unlink()
        up.delete("team/plugin", second.layers[0])
        async with running(tmp_path, {"up": up}, bounded(10**9)) as mirror:
            await until_held(mirror, first)

            told = await until_listed(mirror, "up/team/plugin:1", complete=False, problem=ANYTHING)
            assert "does not have" in str(told["problem"])
        said = [one for one in caplog.messages if "up/team/plugin:1 is pinned, and not all of it is here" in one]
        assert len(said) == 1


async def test_pins_are_there_after_a_restart(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        kept, other = published(up, 0, 1)
        async with running(tmp_path, {"up": up}, bounded(10**9)) as mirror:
            await pin(mirror, "up/team/plugin:0")
            await until_held(mirror, kept)
        (tmp_path / "data" / "pins").write_bytes(b"damaged")
        async with running(tmp_path, {"up": up}, bounded(120 * KIB)) as mirror:
            await pull(mirror, "1", other)
            await until_gone(mirror, other)
            assert holds(mirror, kept) == [True]

"""Export and import through the admin API: a cluster without a network has what another mirror held, byte for byte."""

import asyncio
import errno
import gzip
import io
import json
import logging
import os
import random
import tarfile
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mirror.digest import Digest
from mirror.layouts.writing import Contents, Read
from tests.support.artifacts import (
    Artifact,
    cncf,
    compat,
    docker,
    entry,
    image,
    index,
    publish,
    raw,
    wasm_module,
)
from tests.support.asking import Reply
from tests.support.faults import Fault, Gate
from tests.support.layouts import archive, blob_path, files_of, tar_of
from tests.support.pushing import Author, whole
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

pytestmark = pytest.mark.integration

TAR = {"Content-Type": "application/x-tar"}
ONE = raw(wasm_module(300_000, seed=1))
OTHER = compat(wasm_module(seed=2))
BOTH = index(ONE, OTHER, platforms=("linux/amd64", "linux/arm64"))
NAME = "up/team/plugin:1"
OFFLINE: Mapping[str, object] = {"endpoints": ["http://127.0.0.1:9"], "offline": True}


async def export(mirror: Running, *references: str, **query: str | list[str]) -> Reply:
    asked = urlencode({"reference": references, **query}, doseq=True)
    return await mirror.get(f"/api/v1/export?{asked}")


async def take_in(mirror: Running, content: bytes, **query: str) -> Reply:
    target = f"/api/v1/import?{urlencode(query)}" if query else "/api/v1/import"
    return await mirror.ask("POST", target, TAR, content)


async def results(mirror: Running, content: bytes, **query: str) -> list[dict[str, Any]]:
    reply = await take_in(mirror, content, **query)
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json["results"]
    return found


async def only(mirror: Running, content: bytes, **query: str) -> dict[str, Any]:
    (one,) = await results(mirror, content, **query)
    return one


def drafts(mirror: Running) -> list[str]:
    return [file for file in mirror.files() if "import" in file]


ARTIFACTS = {
    f"up/team/{n}:1": one for n, one in enumerate([ONE, OTHER, docker(wasm_module()), BOTH, index(index(ONE))])
}


async def test_what_one_mirror_held_another_one_without_a_network_serves(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        for name, artifact in ARTIFACTS.items():
            publish(up, name.removeprefix("up/").removesuffix(":1"), "1", artifact)
        async with running(tmp_path / "a", {"up": up.url}) as first:
            out = await export(first, *(f"oci://{name}" for name in ARTIFACTS), platforms=["all"])
            assert (out.status, out.header("content-type"), out.whole) == (200, "application/x-tar", True), out
    async with running(tmp_path / "b", {"up": OFFLINE}) as second:
        done = await results(second, out.body)
        assert [(one["reference"], one["digest"], one["result"], one["why"]) for one in done] == [
            (name, str(artifact.digest), "imported", None) for name, artifact in ARTIFACTS.items()
        ]
        for name, artifact in ARTIFACTS.items():
            assert await whole(second, name.removesuffix(":1"), "1") == artifact.body
        assert (await export(second, *ARTIFACTS, platforms=["all"])).body == out.body, "byte for byte"
        assert {(one["result"], one["bytes"]) for one in await results(second, out.body)} == {("held", 0)}
        assert drafts(second) == []


async def test_a_reference_that_is_not_held_is_fetched_and_an_archive_is_as_long_as_it_says(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ONE)
        publish(up, "team/other", "2", OTHER)
        async with running(tmp_path, {"up": up.url}) as mirror:
            out = await export(mirror, NAME, "up/team/other:2", NAME, f"up/team/plugin@{ONE.digest}")
    with tarfile.open(fileobj=io.BytesIO(out.body)) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        named = json.load(file)["manifests"]
    assert out.header("content-length") == str(len(out.body))
    assert [(one["digest"], one["annotations"]["org.opencontainers.image.ref.name"]) for one in named] == [
        (str(ONE.digest), NAME),
        (str(OTHER.digest), "up/team/other:2"),
        (str(ONE.digest), f"up/team/plugin@{ONE.digest}"),
    ]


async def test_what_cannot_be_had_is_an_error_before_the_first_byte(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ONE)
        broken = image([("application/x", b"never published")])
        up.add_manifest("team/broken", broken.body, broken.media_type, "1")
        async with running(tmp_path, {"up": up.url, "off": OFFLINE}) as mirror:
            for name, status, words in [
                ("up/team/plugin:2", 404, "up/team/plugin:2 cannot be exported: "),
                ("up/team/broken:1", 404, "up/team/broken:1 cannot be exported: "),
                ("off/team/plugin:1", 404, "its upstream is offline"),
                ("nowhere/team/plugin:1", 404, "no upstream 'nowhere' is configured"),
                ("up/Team", 400, "is not a repository name"),
            ]:
                reply = await export(mirror, NAME, name)
                assert (reply.status, words in reply.message) == (status, True), reply
                assert "\n" not in reply.message
            reply = await export(mirror, "up/team/plugin:2", NAME, "up/team/plugin:3")
            assert (reply.status, [one["reference"] for one in reply.detail]) == (
                404,
                ["up/team/plugin:2", "up/team/plugin:3"],
            )
            assert reply.message.startswith("2 references cannot be exported")
            assert (await mirror.get("/api/v1/export")).code == "REQUEST_INVALID"


async def test_a_reader_that_leaves_ends_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, sent, ended = Contents.written, 0, asyncio.Event()

    async def watched(self: Contents, read: Read) -> AsyncGenerator[bytes]:
        nonlocal sent
        try:
            async for piece in written(self, read):
                sent += len(piece)
                yield piece
        finally:
            ended.set()

    monkeypatch.setattr(Contents, "written", watched)
    artifact = raw(wasm_module(20_000_000))
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        await only(mirror, archive((NAME, artifact)))
        reader, writer = await asyncio.open_connection(*mirror.address)
        writer.write(f"GET /api/v1/export?reference={NAME} HTTP/1.1\r\nHost: {mirror.host}\r\n\r\n".encode())
        await reader.readexactly(100_000)
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
        assert sent < 20_000_000


async def test_an_index_comes_with_what_is_held_or_what_was_asked_for(tmp_path: Path) -> None:
    def holds(reply: Reply) -> list[bool]:
        assert reply.status == 200, reply
        with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
            return [blob_path(one.digest) in tar.getnames() for one in (ONE, OTHER)]

    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", BOTH)
        async with running(tmp_path, {"up": up.url}) as mirror:
            assert holds(await export(mirror, NAME)) == [True, False], "what agents take"
            assert holds(await export(mirror, NAME, platforms="linux/arm64")) == [False, True]
            assert holds(await export(mirror, NAME)) == [True, True], "what is held by now"
            assert holds(await export(mirror, NAME, platforms=["linux/amd64"])) == [True, False]
            none = await export(mirror, NAME, platforms="linux/riscv64")
            assert (none.status, "no child for linux/riscv64" in none.message) == (404, True)


async def test_an_index_of_which_a_part_came_says_so_and_serves_that_part(tmp_path: Path) -> None:
    files = files_of((NAME, BOTH))
    del files[blob_path(OTHER.layers[0])]
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        done = await only(mirror, tar_of(files))
        assert done["result"] == "imported"
        assert done["why"] == "1 of the 2 manifests in its index did not come, and are not held"
        assert (await mirror.get("/v2/up/team/plugin/manifests/1")).body == BOTH.body
        assert await whole(mirror, "up/team/plugin", str(ONE.digest)) == ONE.body
        assert (await mirror.get(f"/v2/up/team/plugin/manifests/{OTHER.digest}")).status == 404
        assert not mirror.holds(OTHER.digest)


async def test_signatures_that_are_held_come_too_when_asked_for(tmp_path: Path) -> None:
    signature = image([("application/vnd.dev.cosign.simplesigning.v1+json", b"signed")])
    bill = image([("application/spdx+json", b"bill")], extra={"subject": {**_descriptor(ONE)}})
    unheld = image([("application/spdx+json", b"unheld")], extra={"subject": {**_descriptor(ONE)}})
    tag = f"sha256-{ONE.digest.hex}.sig"
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ONE)
        publish(up, "team/plugin", tag, signature)
        publish(up, "team/plugin", None, bill)
        publish(up, "team/plugin", None, unheld)
        async with running(tmp_path / "a", {"up": up.url}) as first:
            await whole(first, "up/team/plugin", tag)
            await whole(first, "up/team/plugin", str(bill.digest))
            without = await export(first, NAME)
            out = await export(first, NAME, referrers="1")
    async with running(tmp_path / "b", {"up": OFFLINE}) as second:
        assert [one["reference"] for one in await results(second, without.body)] == [NAME]
        done = await results(second, out.body)
        assert {one["reference"] for one in done} == {NAME, f"up/team/plugin:{tag}", f"up/team/plugin@{bill.digest}"}
        assert await whole(second, "up/team/plugin", tag) == signature.body
        assert await whole(second, "up/team/plugin", str(bill.digest)) == bill.body
        for query in ("", "?artifactType=application/vnd.oci.image.config.v1%2Bjson"):
            reply = await second.get(f"/v2/up/team/plugin/referrers/{ONE.digest}{query}")
            assert [one["digest"] for one in reply.json["manifests"]] == [str(bill.digest)], reply
        assert (await export(second, NAME, referrers="1")).body == out.body, "byte for byte"


def _descriptor(artifact: Artifact) -> dict[str, object]:
    return {"mediaType": artifact.media_type, "digest": str(artifact.digest), "size": len(artifact.body)}


GOOD = files_of((NAME, ONE))
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "no tar": (b"<html>" * 1000, "no tar archive"),
    "a link": (entry("blobs/sha256/a", kind=tarfile.SYMTYPE) + tar_of(GOOD), "a symbolic link"),
    "a device": (entry("null", kind=tarfile.CHRTYPE) + tar_of(GOOD), "a device"),
    "a name that leads out": (entry("../blobs/sha256/a") + tar_of(GOOD), "leads out of it"),
    "an absolute name": (entry("/blobs/sha256/a") + tar_of(GOOD), "an absolute name"),
    "a sparse file": (entry("a", kind=tarfile.GNUTYPE_SPARSE) + tar_of(GOOD), "a sparse file"),
    "one file twice": (tar_of([*GOOD.items(), ("index.json", b"{}")]), "'index.json' twice"),
    "one blob twice": (tar_of([*GOOD.items(), next(iter(GOOD.items()))]), "twice"),
    "cut short": (tar_of(GOOD)[:-1500], "is cut short"),
    "cut short, gzipped": (gzip.compress(tar_of(GOOD), 1)[:-1500], "is cut short"),
    "garbage behind it": (tar_of(GOOD) + b"garbage", "goes on behind its end"),
    "a bomb": (gzip.compress(entry("a", size=1 << 40) + bytes(1 << 20)), "cache.max_size"),
    "no index": (tar_of({name: content for name, content in GOOD.items() if name != "index.json"}), "no file index"),
    "no mark": (
        tar_of({name: content for name, content in GOOD.items() if name != "oci-layout"}),
        "no file oci-layout",
    ),
    "an archive of docker save": (tar_of({"manifest.json": b"[]", "repositories": b"{}"}), "as docker save writes it"),
    "an index that is none": (tar_of({**GOOD, "index.json": b"[]"}), "not a JSON object"),
    "an index too large": (entry("index.json", size=5 << 20) + bytes(5 << 20) + tar_of({}), "5,242,880 bytes"),
    "a later layout": (tar_of({**GOOD, "oci-layout": b'{"imageLayoutVersion": "2.0"}'}), "version '2.0'"),
}


async def test_a_broken_archive_is_one_clear_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        for fault, (content, words) in BAD.items():
            reply = await take_in(mirror, content)
            assert (reply.status, reply.code) == (400, "ARCHIVE_INVALID"), (fault, reply)
            assert words in reply.message, (fault, reply.message)
            assert "\n" not in reply.message
            assert mirror.files() == [], fault
        assert (await mirror.get("/v2/up/team/plugin/manifests/1")).status == 404
        assert (await only(mirror, tar_of(GOOD)))["result"] == "imported"


def damaged(content: bytes, chance: random.Random) -> bytes:
    """An archive that something has happened to."""
    at, length = chance.randrange(len(content)), chance.choice([1, 20, 512, 1536])
    block = 512 * (at // 512)
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + chance.randbytes(length) + content[at + length :],
        lambda: content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :],
        lambda: content[:block] + content[block + length :],
        lambda: content[:block] + content[block : block + 512] + content[block:],
        lambda: content[:block] + bytes(length) + content[block:],
        lambda: content + content[block:],
    ]
    return chance.choice(ways)()


async def test_a_damaged_archive_is_taken_in_right_or_not_at_all(tmp_path: Path) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED", random.randrange(1 << 32)))
    chance, known = random.Random(seed), set[bytes]()
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        for tag in map(str, range(30)):
            artifact = raw(wasm_module(700, chance.randrange(1 << 32)))
            known.add(artifact.body)
            content = archive((f"up/team/plugin:{tag}", artifact))
            if chance.random() < 0.3:
                content = gzip.compress(content, 1)
            reply = await take_in(mirror, damaged(content, chance))
            if reply.status == 400:
                assert (reply.code, "\n" in reply.message) == ("ARCHIVE_INVALID", False), f"{reply}, seed {seed}"
                taken = False
            else:
                assert all(one["why"] for one in reply.json["results"] if one["result"] != "imported"), reply
                names = [one["reference"] for one in reply.json["results"] if one["result"] == "imported"]
                taken = f"up/team/plugin:{tag}" in names
            found = await whole(mirror, "up/team/plugin", tag)
            # index.json is what no digest speaks for: damage there may make another good name.
            assert found == artifact.body if taken else found is None or found in known, f"{reply}, seed {seed}"
        assert drafts(mirror) == [], f"seed {seed}"
        for file in mirror.directory.blobs.rglob("*"):
            assert not file.is_file() or Digest.of(file.read_bytes()).hex == file.name, f"{file}, seed {seed}"


async def test_a_blob_that_lies_costs_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    lie, unneeded = blob_path(ONE.layers[0]), blob_path(Digest.of(b"unneeded"))
    files = {**files_of((NAME, ONE), ("up/team/other:2", OTHER)), lie: b"a lie", unneeded: b"another"}
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        first, second, third = await results(mirror, tar_of(files))
        assert (first["reference"], first["result"]) == (NAME, "failed")
        assert f"has the digest {Digest.of(b'a lie')}" in first["why"]
        assert (second["reference"], second["result"]) == ("up/team/other:2", "imported")
        assert (third["reference"], third["result"]) == (unneeded, "invalid")
        assert (await mirror.get("/v2/up/team/plugin/manifests/1")).status == 404
        assert (await mirror.get(f"/v2/up/team/plugin/manifests/{ONE.digest}")).status == 404
        assert not any(mirror.holds(digest) for digest in (ONE.digest, *ONE.layers))
        assert await whole(mirror, "up/team/other", "2") == OTHER.body
        assert drafts(mirror) == []


async def test_what_is_held_need_not_be_in_the_archive_and_nothing_else_may_be_missing(tmp_path: Path) -> None:
    files = files_of((NAME, ONE))
    del files[blob_path(ONE.layers[0])]
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        done = await only(mirror, tar_of(files))
        assert (done["result"], f"{ONE.layers[0]} is neither in the archive nor held here") == ("failed", done["why"])
        assert mirror.files() == []
        await only(mirror, archive(("up/team/elsewhere:1", ONE)))
        done = await only(mirror, tar_of(files))
        assert (done["result"], done["bytes"]) == ("imported", 0)
        assert await whole(mirror, "up/team/plugin", "1") == ONE.body


async def test_entries_may_come_in_any_order_and_what_is_no_part_is_named(tmp_path: Path) -> None:
    others = ["blobs/md5/" + "0" * 32, "manifest.json", "repositories"]
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        for number, (backwards, squeezed) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
            files = {**files_of((f"up/team/plugin:{number}", ONE)), **dict.fromkeys(others, b"[]")}
            content = tar_of([(f"./{name}", files[name]) for name in sorted(files, reverse=backwards)])
            reply = await take_in(mirror, gzip.compress(content, 1) if squeezed else content)
            assert [one["result"] for one in reply.json["results"]] == ["imported"], reply
            assert sorted(reply.json["ignored"]) == others
            assert await whole(mirror, "up/team/plugin", str(number)) == ONE.body


CALLED: list[tuple[str | None, str | None, str, str]] = [
    (None, None, "invalid", "--as UPSTREAM/REPOSITORY"),
    ("1", None, "invalid", "--as UPSTREAM/REPOSITORY"),
    (None, "up/team/plugin", "imported", f"up/team/plugin@{ONE.digest}"),
    ("1", "up/team/plugin", "imported", NAME),
    (None, "up/team/plugin:1", "imported", NAME),
    ("registry.corp:5000/other:1", "oci://up/team/plugin", "imported", NAME),
    ("plugin:1", "up/team/plugin", "imported", NAME),
    (NAME, None, "imported", NAME),
    (f"mirror.corp/{NAME}", None, "imported", NAME),
    (f"up/team/plugin@{ONE.digest}", None, "imported", f"up/team/plugin@{ONE.digest}"),
    (f"up/team/plugin@{OTHER.digest}", None, "invalid", "has another digest"),
    ("ghcr.io/team/plugin:1", None, "invalid", "no upstream 'ghcr.io' is configured"),
    ("up/other/plugin:1", None, "invalid", "upstreams.up.allow"),
    ("up/team/plugin:-", None, "invalid", "is not a tag"),
    ("-", "up/team/plugin", "invalid", "is not a tag"),
]


async def test_an_artifact_is_called_what_the_archive_says_or_what_the_operator_says(tmp_path: Path) -> None:
    upstream = {**OFFLINE, "allow": ["team/**"]}
    async with running(tmp_path, {"up": upstream}, {"names": ["mirror.corp"]}) as mirror:
        for name, onto, result, words in CALLED:
            done = await only(mirror, archive((name, ONE)), **({"as": onto} if onto is not None else {}))
            expected = {result, "held"} if result == "imported" else {result}
            assert done["result"] in expected, (name, onto, done)
            assert words in done["reference" if result == "imported" else "why"], (name, onto, done)
        assert await whole(mirror, "up/team/plugin", "1") == ONE.body
        assert await whole(mirror, "up/team/plugin", str(ONE.digest)) == ONE.body
        for onto, code in [
            ("nowhere/a", "NAME_UNKNOWN"),
            ("up", "NAME_INVALID"),
            (f"up/a@{ONE.digest}", "NAME_INVALID"),
        ]:
            assert (await take_in(mirror, tar_of(GOOD), **{"as": onto})).code == code


async def test_two_artifacts_do_not_become_one(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        first, second = await results(mirror, archive((NAME, ONE), (NAME, OTHER)))
        assert (first["result"], second["result"]) == ("imported", "invalid")
        assert "two artifacts" in second["why"]
        first, second = await results(mirror, archive(("1", ONE), ("2", OTHER)), **{"as": "up/team/plugin:3"})
        assert first["result"] == second["result"] == "invalid"
        first, second = await results(mirror, archive(("1", ONE), ("2", OTHER)), **{"as": "up/team/plugin"})
        assert (first["result"], second["result"]) == ("held", "imported")


async def test_an_import_moves_a_tag_and_stands_in_however_old_it_is(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ONE)
        settings = {"endpoints": [up.url], "fresh_for": "0s", "stale_if_error": "0s", "hold_for": "1s"}
        async with running(tmp_path, {"up": settings}) as mirror:
            assert await whole(mirror, "up/team/plugin", "1") == ONE.body
            up.refuse()
            assert (await mirror.get("/v2/up/team/plugin/manifests/1")).status == 503
            assert (await only(mirror, archive((NAME, OTHER))))["result"] == "imported"
            assert await whole(mirror, "up/team/plugin", "1") == OTHER.body


async def test_an_import_may_be_pinned_and_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        assert (await mirror.get("/api/v1/pins")).json["pins"] == []
        await only(mirror, archive((NAME, ONE)))
        assert (await mirror.get("/api/v1/pins")).json["pins"] == []
        assert (await only(mirror, archive((NAME, ONE)), pin="1"))["result"] == "held"
        (pin,) = (await mirror.get("/api/v1/pins")).json["pins"]
        assert (pin["reference"], pin["digests"]) == (NAME, [str(ONE.digest)])
    first, second = [line for line in caplog.messages if "/api/v1/import" in line]
    assert (first.endswith(f"; imported {NAME}"), second.endswith(f"; held {NAME}")) == (True, True), (first, second)


async def test_a_disk_that_is_full_takes_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def full(fd: int, content: bytes) -> None:
        nonlocal written
        written += len(content)
        if written > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(fd, content)

    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        with monkeypatch.context() as patched:
            patched.setattr("mirror.store.staging.write_whole", full)
            done = await only(mirror, archive((NAME, ONE)))
        assert (done["result"], "has no room for" in done["why"]) == ("failed", True), done
        assert mirror.files() == []

        def fails(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("mirror.store.blobs.BlobStore.commit", fails)
            done = await only(mirror, archive((NAME, ONE)))
        assert (done["result"], "has no room for" in done["why"]) == ("failed", True), done
        assert mirror.files() == []
        assert (await mirror.get("/v2/up/team/plugin/manifests/1")).status == 404
        assert (await only(mirror, archive((NAME, ONE))))["result"] == "imported"


async def test_an_archive_that_could_not_be_held_is_refused_at_its_header(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": OFFLINE}, {"cache": {"max_size": "100KiB"}}) as mirror:
        reply = await take_in(mirror, archive((NAME, ONE)))
        assert (reply.status, "cache.max_size" in reply.message) == (400, True)
        assert (await only(mirror, archive((NAME, OTHER))))["result"] == "imported"


async def test_what_was_made_for_agents_comes_along(tmp_path: Path) -> None:
    settings = {"wasm": {"repackage": "agents"}}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", cncf(plugin()))
        async with running(tmp_path / "a", {"up": up.url}, settings) as first:
            out = await export(first, f"{NAME}-istio")
            made = await whole(first, "up/team/plugin", "1-istio")
    async with running(tmp_path / "b", {"up": OFFLINE}) as second:
        assert (await only(second, out.body))["result"] == "imported"
        assert await whole(second, "up/team/plugin", "1-istio") == made


async def test_an_import_may_follow_what_was_not_there(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(
            tmp_path, {"up": {"endpoints": [up.url], "negative_for": "1h", "fresh_for": "1h"}}
        ) as mirror:
            for target in ("1", str(ONE.digest)):
                assert (await mirror.get(f"/v2/up/team/plugin/manifests/{target}")).status == 404
            await only(mirror, archive((NAME, ONE)))
            assert await whole(mirror, "up/team/plugin", "1") == ONE.body
            assert await whole(mirror, "up/team/plugin", str(ONE.digest)) == ONE.body


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        content = archive((NAME, ONE))
        _, writer = await asyncio.open_connection(*mirror.address)
        head = f"POST /api/v1/import HTTP/1.1\r\nHost: {mirror.host}\r\nContent-Type: application/x-tar\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:200_000])
        await eventually(lambda: drafts(mirror), what="a draft")
        writer.close()
        await eventually(lambda: not mirror.files(), what="nothing is left")
        assert (await mirror.get("/v2/up/team/plugin/manifests/1")).status == 404


async def test_two_imports_at_once_do_each_other_no_harm(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": OFFLINE}) as mirror:
        archives = [archive((NAME, ONE)), archive((NAME, ONE)), archive(("up/team/other:2", ONE)), tar_of(GOOD)[:-2000]]
        replies = await asyncio.gather(*(take_in(mirror, content) for content in archives))
        assert [reply.status for reply in replies] == [200, 200, 200, 400]
        assert await whole(mirror, "up/team/plugin", "1") == ONE.body
        assert await whole(mirror, "up/team/other", "2") == ONE.body
        assert drafts(mirror) == []


async def test_what_is_being_pulled_can_be_imported_meanwhile(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ONE)
        async with running(tmp_path, {"up": up.url}) as mirror:
            await mirror.get("/v2/up/team/plugin/manifests/1")
            gate = Gate()
            up.inject(Fault(gate=gate, gate_at=100_000), path=str(ONE.layers[0]))
            pull = asyncio.create_task(mirror.get(f"/v2/up/team/plugin/blobs/{ONE.layers[0]}"))
            await gate.reached()
            assert (await only(mirror, archive((NAME, ONE))))["result"] == "imported"
            assert await whole(mirror, "up/team/plugin", "1") == ONE.body
            gate.release()
            reply = await pull
            assert (reply.status, Digest.of(reply.body)) == (200, ONE.layers[0])
            assert await whole(mirror, "up/team/plugin", "1") == ONE.body


async def test_what_is_hosted_comes_along_and_is_pushed(tmp_path: Path) -> None:
    name = "hosted/team/plugin:1"
    async with running(tmp_path / "a", {"up": OFFLINE}) as first:
        assert (await Author(first).push(BOTH, "1")).status == 201
        out = await export(first, name)
    async with running(tmp_path / "b", {"up": OFFLINE}) as second:
        done = await only(second, out.body, pin="1")
        assert (done["result"], done["reference"]) == ("imported", name), done
        assert [one["reference"] for one in (await second.get("/api/v1/pins")).json["pins"]] == [name]
        assert await whole(second, "hosted/team/plugin", "1") == BOTH.body
        assert (await only(second, out.body))["result"] == "held"
        assert (await only(second, archive((name, OTHER))))["result"] == "imported", "who may import may overwrite"
        assert await whole(second, "hosted/team/plugin", "1") == OTHER.body


async def test_hosted_content_is_taken_in_as_a_push_is(tmp_path: Path) -> None:
    name = "hosted/team/plugin:1"
    files = files_of((name, BOTH))
    del files[blob_path(OTHER.digest)]
    async with running(tmp_path / "a", {"up": OFFLINE}, {"hosted": {"max_blob_size": "100KiB"}}) as mirror:
        done = await only(mirror, tar_of(files))
        assert (done["result"], "hosted.max_blob_size" in done["why"]) == ("failed", True), done
    async with running(tmp_path / "b", {"up": OFFLINE}, {"wasm": {"check": "enforce"}}) as mirror:
        done = await only(mirror, archive((name, OTHER)))
        assert (done["result"], "Envoy will not run it" in done["why"]) == ("failed", True), done
    async with running(tmp_path / "c", {"up": OFFLINE}) as mirror:
        done = await only(mirror, tar_of(files))
        assert (done["result"], str(OTHER.digest) in done["why"]) == ("failed", True), "a hosted index is whole"
        assert (await mirror.get("/v2/hosted/team/plugin/manifests/1")).status == 404
    async with running(tmp_path / "d", {"up": OFFLINE}, {"hosted": {"enabled": False}}) as mirror:
        done = await only(mirror, archive((name, ONE)))
        assert (done["result"], "hosted.enabled" in done["why"]) == ("invalid", True)

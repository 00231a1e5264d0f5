"""What was pushed is pulled from here, exactly, through its own repository; what the disk lost is never made up."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.answer import Flowing, Held, Hit, Whole
from mirror.config import Settings
from mirror.copies import Copies, NothingBehind
from mirror.digest import Digest
from mirror.errors import BlobUnknown, ManifestUnknown, NameInvalid, NameUnknown, StoreError, UpstreamUnavailable
from mirror.fills import Fills
from mirror.hosted.together import ByItself
from mirror.hosting import Hosting, Routed
from mirror.listing import MAX_PAGE
from mirror.names import Names, Place
from mirror.oci import OCI_INDEX, Reference
from tests.fill.source import PIECE, MemorySource, Sending, Tap
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, Shelf, shelf
from tests.metadata.memory import Memory, MemoryMetadata
from tests.support.artifacts import compat, descriptor, image, raw, wasm_module
from tests.support.running import running
from tests.support.waiting import eventually

GRACE = 100.0
MODULE = wasm_module(200_000)
PLUGIN = raw(MODULE)
PLACE = Place("hosted", REPOSITORY)
_ABSENT = Digest.of(b"never pushed")
_MODULE = Digest.of(MODULE)


def at(digest: Digest, repository: str = REPOSITORY) -> Reference:
    return Reference("hosted", repository, digest=digest)


def hosting(hosted: Shelf, clock: Clock | None = None) -> Hosting:
    return Hosting(hosted.catalogue, hosted.store, GRACE, ByItself(), now=clock or time.time)


async def test_a_manifest_is_answered_exactly_by_tag_and_by_digest(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        for reference in (Reference("hosted", REPOSITORY, tag="1.0"), at(PLUGIN.digest)):
            for _ in range(2):
                answer = await hosting(hosted).manifest(reference)
                assert (answer.media_type, answer.digest) == (PLUGIN.media_type, PLUGIN.digest)
                assert answer.body == Whole(PLUGIN.body)
                assert answer.outcome == Hit()


async def test_a_blob_is_answered_through_a_repository_that_has_it_and_no_other(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        await hosted.push_blob(OTHER, b"something else")
        for read in (True, False):
            answer = await hosting(hosted).blob(at(_MODULE), read=read)
            assert isinstance(answer.body, Held)
            assert bytes(answer.body.blob.read(0, answer.body.size)) == MODULE
            with pytest.raises(BlobUnknown):
                await hosting(hosted).blob(at(_MODULE, OTHER), read=read)
            with pytest.raises(NameUnknown):
                await hosting(hosted).blob(at(_MODULE, "team/none"), read=read)


async def test_a_manifest_of_another_repository_is_not_there(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        await hosted.push_blob(OTHER, b"something else")
        for reference in (at(PLUGIN.digest, OTHER), Reference("hosted", OTHER, tag="1.0"), at(_ABSENT)):
            with pytest.raises(ManifestUnknown):
                await hosting(hosted).manifest(reference)
        with pytest.raises(NameUnknown, match="nothing was pushed to it"):
            await hosting(hosted).manifest(Reference("hosted", "team/none", tag="1.0"))


@pytest.mark.shows("the file of something hosted is damaged, or gone")
@pytest.mark.parametrize("cut", [True, False])
async def test_a_blob_whose_file_is_cut_or_gone_is_not_served_and_may_be_pushed_again(
    tmp_path: Path, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        file = hosted.directory.blob(_MODULE)
        file.write_bytes(MODULE[:-1]) if cut else file.unlink()
        with pytest.raises(StoreError, match="lost the content"):
            await hosting(hosted).blob(at(_MODULE), read=True)
        with pytest.raises(BlobUnknown, match="push it again"):
            await hosting(hosted).blob(at(_MODULE), read=False)
        assert caplog.text.count(str(_MODULE)) == 2
        await hosted.push_blob(REPOSITORY, MODULE)
        assert (await hosting(hosted).blob(at(_MODULE), read=True)).body.size == len(MODULE)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
async def test_a_manifest_whose_file_is_damaged_is_not_served(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        file = hosted.directory.blob(PLUGIN.digest)
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(PLUGIN.body[:-1] + (b" " if damage == "other" else b""))
        with pytest.raises(StoreError, match="lost the content"):
            await hosting(hosted).manifest(Reference("hosted", REPOSITORY, tag="1.0"))
        assert str(PLUGIN.digest) in caplog.text
        assert file.exists() == (damage != "gone")


async def test_who_is_told_that_a_blob_is_there_may_count_on_it(tmp_path: Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push_blob(REPOSITORY, MODULE)
        clock.time += GRACE - 1
        await hosting(hosted, clock).blob(at(_MODULE), read=False)
        link = await hosted.catalogue.blob(REPOSITORY, _MODULE)
        assert link is not None
        assert link.touched_at == clock.time


class Others(ByItself):
    """Replicas that tell what they know when they are ``asked``, or already when their news are ``wanted``."""

    def __init__(self, when: str, learn: Callable[[], Awaitable[object]]) -> None:
        self._when = when
        self._learn = learn

    async def current(self) -> None:
        if self._when == "wanted":
            await self._learn()

    async def asked(self) -> None:
        if self._when == "asked":
            await self._learn()


ASKED: Sequence[Callable[[Hosting, str], Awaitable[object]]] = (
    lambda answers, name: answers.manifest(Reference("hosted", name, tag="1.0")),
    lambda answers, name: answers.manifest(at(PLUGIN.digest, name)),
    lambda answers, name: answers.blob(at(_MODULE, name), read=True),
    lambda answers, name: answers.blob(at(_MODULE, name), read=False),
    lambda answers, name: answers.tags(Place("hosted", name), n=None, last=None),
)


async def test_what_is_not_known_here_is_asked_for_before_it_is_said_not_to_be_there(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        for number, ask in enumerate(ASKED):
            name = f"team/plugin-{number}"
            others = Others("asked", functools.partial(hosted.push, name, PLUGIN, "1.0"))
            await ask(Hosting(hosted.catalogue, hosted.store, GRACE, others), name)


async def test_what_others_have_changed_is_known_before_tags_and_lists_are_read(tmp_path: Path) -> None:
    subject = descriptor(PLUGIN.media_type, PLUGIN.body)
    newer = image([], extra={"subject": subject, "artifactType": "a/signature"})
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        others = Others("wanted", functools.partial(hosted.push, REPOSITORY, newer, "1.0", "2.0"))

        def hosting() -> Hosting:
            return Hosting(hosted.catalogue, hosted.store, GRACE, others)

        assert (await hosting().manifest(Reference("hosted", REPOSITORY, tag="1.0"))).digest == newer.digest
        await hosted.catalogue.delete_manifest(REPOSITORY, newer.digest)
        assert json.loads((await hosting().tags(PLACE, n=None, last=None)).body) == ["1.0", "2.0"]
        await hosted.catalogue.delete_manifest(REPOSITORY, newer.digest)
        referrers = await hosting().referrers(PLACE, PLUGIN.digest, artifact_type=None, page=None)
        assert [one["digest"] for one in json.loads(referrers.body)["manifests"]] == [str(newer.digest)]


class Disks:
    """Other replicas: whether one ``has`` a blob, and the bytes of ``manifests``, which were asked for so often."""

    def __init__(self, has: bool | None = None, manifests: Mapping[Digest, bytes] | None = None) -> None:
        self.has = has
        self.manifests = manifests or {}
        self.asked = 0

    async def holds(self, digest: Digest) -> bool | None:
        return self.has

    async def content(self, digest: Digest, limit: int, hinted: Sequence[str] = ()) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(0)
        body = self.manifests.get(digest)
        return body if body is not None and len(body) <= limit else None


@asynccontextmanager
async def among(hosted: Shelf, disks: Disks, source: MemorySource) -> AsyncIterator[tuple[Hosting, Copies]]:
    """What answers at a replica: the others have ``disks``, and bytes come from ``source``."""
    fills = Fills(hosted.directory, hosted.store, MemoryMetadata(Memory()), {"hosted": source})
    copies = Copies("hosted", hosted.store, fills, disks, 1 << 20, hold_for=5.0)
    try:
        yield Hosting(hosted.catalogue, hosted.store, GRACE, ByItself(), copies), copies
    finally:
        await copies.aclose()
        await fills.aclose()


@pytest.mark.parametrize(("has", "there"), [(True, True), (None, True), (False, False)])
async def test_a_blob_whose_bytes_are_elsewhere_is_there_unless_all_others_say_that_they_have_not_got_it(
    tmp_path: Path, has: bool | None, there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelf(tmp_path) as hosted, among(hosted, Disks(has), MemorySource(MODULE)) as (answers, _):
        await hosted.push(REPOSITORY, PLUGIN)
        hosted.store.delete(_MODULE)
        if there:
            answer = await answers.blob(at(_MODULE), read=False)
            assert (answer.body.size, answer.outcome) == (len(MODULE), Hit())
        else:
            with pytest.raises(BlobUnknown, match="push it again"):
                await answers.blob(at(_MODULE), read=False)
        assert not hosted.store.holds(_MODULE)
        assert caplog.text == ""  # that it lies elsewhere is nothing to be said


async def test_who_is_told_of_a_blob_that_is_elsewhere_may_count_on_it_too(tmp_path: Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as hosted, among(hosted, Disks(True), MemorySource()) as (_, copies):
        await hosted.push_blob(REPOSITORY, MODULE)
        hosted.store.delete(_MODULE)
        clock.time += GRACE - 1
        answers = Hosting(hosted.catalogue, hosted.store, GRACE, ByItself(), copies, now=clock)
        await answers.blob(at(_MODULE), read=False)
        link = await hosted.catalogue.blob(REPOSITORY, _MODULE)
        assert link is not None
        assert link.touched_at == clock.time


async def test_an_archive_on_another_disk_is_sent_only_when_it_is_whole_and_a_module_as_it_comes(
    tmp_path: Path,
) -> None:
    archive = compat(MODULE)
    packed = archive.blobs[archive.layers[0]]
    assert min(len(MODULE), len(packed)) > 3 * PIECE
    source = MemorySource(MODULE, packed)
    async with shelf(tmp_path) as hosted, among(hosted, Disks(True), source) as (answers, _):
        for content, flows in ((MODULE, True), (packed, False)):
            digest = await hosted.push_blob(REPOSITORY, content)
            hosted.store.delete(digest)
            sending = Sending(tap=Tap(2 * PIECE))
            source.script.append(sending)
            answer = await answers.blob(at(digest), read=True)
            ready = asyncio.ensure_future(answer.body.ready(0, None))
            assert isinstance(answer.body, Flowing)
            await answer.body.content.reached(2 * PIECE - 1)
            for _ in range(20):  # all that can go on by now has done so
                await asyncio.sleep(0)
            assert ready.done() == flows
            sending.tap.open()
            await ready
            assert b"".join([bytes(piece) async for piece in answer.body.read(0, None)]) == content
            await eventually(functools.partial(hosted.store.holds, digest))


async def test_a_manifest_that_this_disk_has_lost_is_got_once_for_all_from_another_and_kept(tmp_path: Path) -> None:
    disks = Disks(manifests={PLUGIN.digest: PLUGIN.body})
    async with shelf(tmp_path) as hosted, among(hosted, disks, MemorySource()) as (_, copies):
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        for damaged in (None, PLUGIN.body[:-1] + b" "):
            hosted.store.delete(PLUGIN.digest)
            if damaged is not None:
                hosted.store.put(PLUGIN.digest, damaged)
            fresh = Hosting(hosted.catalogue, hosted.store, GRACE, ByItself(), copies)
            reading = (fresh.manifest(Reference("hosted", REPOSITORY, tag="1.0")) for _ in range(10))
            assert {answer.body for answer in await asyncio.gather(*reading)} == {Whole(PLUGIN.body)}
            blob = hosted.store.open(PLUGIN.digest)
            assert blob is not None
            assert bytes(blob.read(0, blob.size)) == PLUGIN.body
        assert disks.asked == 2


async def test_bytes_are_brought_whole_and_not_for_longer_than_somebody_gives_them(tmp_path: Path) -> None:
    source = MemorySource(MODULE)
    async with shelf(tmp_path) as hosted, among(hosted, Disks(True), source) as (_, copies):
        await copies.bring(_MODULE, len(MODULE))
        assert hosted.store.holds(_MODULE)
        await copies.bring(_MODULE, len(MODULE))
        assert len(source.gets) == 1
        source.away = True
        with pytest.raises(UpstreamUnavailable):
            await copies.bring(_ABSENT, 5)


async def test_where_nobody_stands_behind_replicas_they_are_looked_at_until_the_end() -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(UpstreamUnavailable, match="must be pushed again") as nobody:
        await NothingBehind().open_blob("", _ABSENT, deadline=began + 0.2)
    assert 0.1 <= clock() - began <= 2
    assert nobody.value.retry_after


async def test_tags_come_in_pages_that_lead_to_the_next(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        names = [f"{number:04}" for number in range(MAX_PAGE + 5)]
        await hosted.push(REPOSITORY, PLUGIN, *names)
        page = await hosting(hosted).tags(PLACE, n=None, last=None)
        assert (json.loads(page.body), page.headers["last"]) == (names[:MAX_PAGE], names[MAX_PAGE - 1])
        page = await hosting(hosted).tags(PLACE, n=10**9, last=names[MAX_PAGE - 1])
        assert (json.loads(page.body), page.headers) == (names[MAX_PAGE:], {})
        page = await hosting(hosted).tags(PLACE, n=3, last="0005")
        assert (json.loads(page.body), page.headers) == (names[6:9], {"last": "0008", "n": "3"})
        page = await hosting(hosted).tags(PLACE, n=0, last=None)
        assert (json.loads(page.body), page.headers) == ([], {})
        with pytest.raises(NameUnknown):
            await hosting(hosted).tags(Place("hosted", OTHER), n=0, last=None)


async def test_referrers_are_an_index_of_descriptors_and_empty_for_what_is_not_there(tmp_path: Path) -> None:
    subject = descriptor(PLUGIN.media_type, PLUGIN.body)
    signature = image([], extra={"subject": subject, "artifactType": "a/signature", "annotations": {"by": "me"}})
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, signature)
        page = await hosting(hosted).referrers(PLACE, PLUGIN.digest, artifact_type=None, page=None)
        described = {**descriptor(signature.media_type, signature.body), "artifactType": "a/signature"}
        assert json.loads(page.body) == {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**described, "annotations": {"by": "me"}}],
        }
        assert page.headers == {}
        page = await hosting(hosted).referrers(PLACE, PLUGIN.digest, artifact_type="a/sbom", page=None)
        assert (json.loads(page.body)["manifests"], page.headers) == ([], {"filters": "artifactType"})
        page = await hosting(hosted).referrers(Place("hosted", OTHER), _ABSENT, artifact_type=None, page=None)
        assert json.loads(page.body)["manifests"] == []


async def test_hosted_names_come_before_upstreams_and_after_ns_and_host() -> None:
    names = Names(Settings.model_validate({"upstreams": {"ghcr.io": {}}, "default_upstream": "ghcr.io"}))
    assert names.place("hosted/team/x", ns=None, host="") == Place("hosted", "team/x")
    assert names.place("hosted/x", ns=None, host="") == Place("hosted", "x")
    assert names.place("hosted/team/x", ns=None, host="ghcr.io") == Place("ghcr.io", "hosted/team/x")
    assert names.place("hosted/x", ns="ghcr.io", host="") == Place("ghcr.io", "hosted/x", by_namespace=True)
    with pytest.raises(NameInvalid, match="append a repository"):
        names.place("hosted", ns=None, host="")
    with pytest.raises(NameUnknown):
        names.place("x", ns="hosted", host="")


@pytest.mark.parametrize("prefix", ["hosted", "ours"])
async def test_hosting_that_is_switched_off_says_which_setting_did_it(prefix: str) -> None:
    settings = {"upstreams": {"ghcr.io": {}}, "default_upstream": "ghcr.io"}
    off = Names(Settings.model_validate({**settings, "hosted": {"enabled": False, "prefix": prefix}}))
    with pytest.raises(NameUnknown, match=r"hosted\.enabled"):
        off.place(f"{prefix}/x", ns=None, host="")
    assert off.place("team/x", ns=None, host="") == Place("ghcr.io", "team/x")


async def test_where_replicas_cannot_ask_one_another_nothing_is_hosted_and_the_settings_for_it_are_named(
    tmp_path: Path,
) -> None:
    async with shelf(tmp_path) as hosted:
        elsewhere = hosting(hosted)
        routed = Routed("hosted", None, elsewhere, elsewhere)
        with pytest.raises(NameUnknown, match=r"cluster\.advertise.*cluster\.secret_file"):
            await routed.manifest(at(_ABSENT))
        with pytest.raises(NameUnknown, match=r"cluster\.secret_file"):
            await routed.tags(PLACE, n=None, last=None)


async def test_the_mirror_serves_what_was_pushed_wherever_it_serves_what_it_pulled(tmp_path: Path) -> None:
    """The registry, its lists, the plain module and what is said of it."""
    archive = compat(MODULE)
    async with shelf(tmp_path / "data") as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0", "2.0")
        await hosted.push(REPOSITORY, archive, "3.0")
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        root = f"/v2/hosted/{REPOSITORY}"
        manifest = await mirror.get(f"{root}/manifests/1.0")
        assert (manifest.status, manifest.body) == (200, PLUGIN.body)
        assert manifest.header("docker-content-digest") == str(PLUGIN.digest)
        assert manifest.header("cache-status") == "wasm-mirror; hit"
        head = await mirror.head(f"{root}/blobs/{_MODULE}")
        assert (head.status, head.header("content-length"), head.body) == (200, str(len(MODULE)), b"")
        part = await mirror.get(f"{root}/blobs/{_MODULE}", [("range", "bytes=7-70000")])
        assert (part.status, part.body) == (206, MODULE[7:70001])
        tags = await mirror.get(f"{root}/tags/list?n=2")
        assert tags.json == {"name": f"hosted/{REPOSITORY}", "tags": ["1.0", "2.0"]}
        assert "last=2.0" in (tags.header("link") or "")
        referrers = await mirror.get(f"{root}/referrers/{PLUGIN.digest}?artifactType=x")
        assert (referrers.status, referrers.header("oci-filters-applied")) == (200, "artifactType")
        for tag in ("1.0", "3.0"):
            module = await mirror.get(f"/modules/hosted/{REPOSITORY}:{tag}")
            assert (module.status, module.body) == (200, MODULE)
            told = await mirror.get(f"/modules/hosted/{REPOSITORY}:{tag}?info")
            assert (told.status, told.json["module"]["size"]) == (200, len(MODULE))
        for target in (f"{root}/manifests/9", f"/v2/hosted/{OTHER}/blobs/{_MODULE}", f"/modules/hosted/{OTHER}:1.0"):
            assert (await mirror.get(target)).status == 404


@pytest.mark.shows("the records of hosted content (`hosted.sqlite`) are damaged or lost")
async def test_damaged_records_leave_the_cache_alone(tmp_path: Path) -> None:
    async with shelf(tmp_path / "data") as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
    hosted.database.write_bytes(b"no database at all" * 1000)
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        reply = await mirror.get(f"/v2/hosted/{REPOSITORY}/manifests/1.0")
        assert reply.status == 500
        assert "restore hosted.sqlite" in reply.body.decode()
        assert str(tmp_path) not in reply.body.decode()
        assert (await mirror.get("/readyz")).status == 200
        assert 'wasm_mirror_metadata_up{store="hosted"} 0' in (await mirror.get("/metrics")).body.decode()
        assert 'wasm_mirror_metadata_up{store="sqlite"} 1' in (await mirror.get("/metrics")).body.decode()

"""What was pushed is pulled from here, exactly, through its own repository; what the disk lost is never made up."""

import json
import time
from pathlib import Path

import pytest

from mirror.answer import Held, Hit, Whole
from mirror.config import Settings
from mirror.digest import Digest
from mirror.errors import BlobUnknown, ManifestUnknown, NameInvalid, NameUnknown, StoreError
from mirror.hosted.together import ByItself
from mirror.hosting import Hosting, Routed
from mirror.listing import MAX_PAGE
from mirror.names import Names, Place
from mirror.oci import OCI_INDEX, Reference
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, Shelf, shelf
from tests.support.artifacts import compat, descriptor, image, raw, wasm_module
from tests.support.running import running

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

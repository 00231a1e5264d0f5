"""Referrers are passed through: upstream's own index, its filter, its pages; the last good answer in an outage."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mirror.digest import Digest
from mirror.oci import OCI_INDEX, OCI_MANIFEST
from tests.support.artifacts import Artifact, image, publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

SUBJECT = raw(wasm_module(100))
URL = f"/v2/ghcr.io/team/plugin/referrers/{SUBJECT.digest}"
SIGNATURE = "application/vnd.example.signature"
BOM = "application/vnd.example.sbom"


def referrer(artifact_type: str, number: int = 0) -> Artifact:
    descriptor = {"mediaType": OCI_MANIFEST, "digest": str(SUBJECT.digest), "size": len(SUBJECT.body)}
    layer = (artifact_type, f"{artifact_type} {number}".encode())
    return image([layer], extra={"artifactType": artifact_type, "subject": descriptor})


def publish_all(up: FaultyUpstream, *referrers: Artifact) -> None:
    publish(up, "team/plugin", "1", SUBJECT)
    for one in referrers:
        publish(up, "team/plugin", None, one)


async def test_the_index_is_upstreams_byte_for_byte(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE), referrer(BOM))
        own = up.answer(f"/v2/team/plugin/referrers/{SUBJECT.digest}", {}).content
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for target in (URL, URL.replace("ghcr.io/", "") + "?ns=ghcr.io"):
                reply = await mirror.get(target)
                assert (reply.status, reply.body) == (200, own)
                assert len(reply.json["manifests"]) == 2
                assert reply.header("content-type") == OCI_INDEX
                assert reply.header("oci-filters-applied") is None
                assert reply.header("cache-status") == "wasm-mirror; fwd=request; fwd-status=200"
                head = await mirror.head(target)
                assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(own)))


async def test_nothing_refers_to_it_is_an_empty_index(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(URL)
            assert (reply.status, reply.json["manifests"]) == (200, [])


async def test_the_filter_is_upstreams_and_is_told_only_when_it_was_applied(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE), referrer(BOM))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            filtered = await mirror.get(f"{URL}?artifactType={SIGNATURE}")
            assert filtered.header("oci-filters-applied") == "artifactType"
            assert [entry["artifactType"] for entry in filtered.json["manifests"]] == [SIGNATURE]
            up.filters_referrers = False
            other = await mirror.get(f"{URL}?artifactType={BOM}")
            assert other.header("oci-filters-applied") is None
            assert len(other.json["manifests"]) == 2


async def test_pages_lead_back_to_the_mirror_and_keep_the_filter(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, *(referrer(SIGNATURE, number) for number in range(5)), referrer(BOM))
        up.page_size = 2
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            target, sizes = f"/v2/team/plugin/referrers/{SUBJECT.digest}?artifactType={SIGNATURE}&ns=ghcr.io", []
            while target:
                reply = await mirror.get(target)
                assert reply.status == 200
                assert {entry["artifactType"] for entry in reply.json["manifests"]} == {SIGNATURE}
                sizes.append(len(reply.json["manifests"]))
                target = (reply.header("link") or "").partition("<")[2].partition(">")[0]
                if target:
                    assert target.startswith(f"/v2/team/plugin/referrers/{SUBJECT.digest}?")
                    assert parse_qs(urlsplit(target).query)["ns"] == ["ghcr.io"]
            assert sizes == [2, 2, 1]


async def test_the_last_good_answer_is_kept_for_an_outage_each_filter_its_own(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE), referrer(BOM))
        settings = {"defaults": {"hold_for": "300ms"}}
        asked = [URL, f"{URL}?artifactType={SIGNATURE}", f"{URL}?artifactType={BOM}"]
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            good = {target: await mirror.get(target) for target in asked}
            assert len({reply.body for reply in good.values()}) == 3
        up.refuse()
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            for target in asked:
                stale = await mirror.get(target)
                assert (stale.status, stale.body) == (200, good[target].body)
                assert stale.header("oci-filters-applied") == good[target].header("oci-filters-applied")
                assert (stale.header("cache-status") or "").startswith("wasm-mirror; fwd=stale; detail=upstream_")
            unseen = await mirror.get(f"{URL}?artifactType=another")
            assert (unseen.status, unseen.code) == (503, "UPSTREAM_UNAVAILABLE")
            assert int(unseen.header("retry-after") or "") >= 1


async def test_an_upstream_without_the_api_is_404_so_that_clients_take_the_tag(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE))
        fallback = referrer(BOM)
        publish(up, "team/plugin", f"sha256-{SUBJECT.digest.hex}", fallback)
        up.referrers_api = False
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(URL)
            assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
            by_tag = await mirror.get(f"/v2/ghcr.io/team/plugin/manifests/sha256-{SUBJECT.digest.hex}")
            assert (by_tag.status, by_tag.body) == (200, fallback.body)


async def test_no_old_answer_is_served_after_a_refusal(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(URL)).status == 200
            with up.inject(Fault(status=403), path="/referrers/"):
                reply = await mirror.get(URL)
                assert (reply.status, reply.code) == (403, "DENIED")


async def test_what_is_no_index_is_not_passed_on(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish_all(up, referrer(SIGNATURE))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for fault in (Fault(html=True), Fault(gzip=True), Fault(truncate_to=50), Fault(pad_to=100 << 20)):
                with up.inject(fault, path="/referrers/"):
                    reply = await mirror.get(URL)
                    assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
                    assert up.host in reply.message
            body = b'{"schemaVersion": 2, "manifests": {}}'
            digest = up.add_blob("team/plugin", body, OCI_INDEX, digest=Digest.of(body))
            with up.inject(Fault(redirect=f"{up.url}/v2/team/plugin/blobs/{digest}"), path="/referrers/"):
                reply = await mirror.get(URL)
                assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")

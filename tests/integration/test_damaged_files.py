"""What has lost bytes on the disk, or has others now, is not served, and takes the place of nothing."""

from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import MAX_MANIFEST_SIZE, Manifest
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

MANIFESTS = "/v2/up/team/plugin/manifests"


@pytest.mark.parametrize("damage", ["another byte", "cut short"])
async def test_a_manifest_that_was_damaged_is_fetched_anew_and_mended(tmp_path: Path, damage: str) -> None:
    artifact = compat(wasm_module(), extra={"annotations": {"a": "b"}})
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(f"{MANIFESTS}/v1")).body == artifact.body
            file = mirror.directory.blob(artifact.digest)
        file.write_bytes(artifact.body.replace(b'"b"', b'"c"') if damage == "another byte" else artifact.body[:-1])
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(f"{MANIFESTS}/{artifact.digest}")).body == artifact.body
            await eventually(lambda: file.exists() and file.read_bytes() == artifact.body, what="it is mended")


async def test_a_blob_that_no_manifest_has_named_is_not_served_cut_short_either(tmp_path: Path) -> None:
    content = wasm_module(5_000)
    at = f"/v2/up/team/plugin/blobs/{Digest.of(content)}"
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", content)
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(at)).body == content
            await mirror.until_held(Digest.of(content))
            file = mirror.directory.blob(Digest.of(content))
            for _ in range(2):
                file.unlink()
                file.write_bytes(content[:-1])
                assert (await mirror.get(at)).body == content
                await eventually(lambda: file.exists() and file.read_bytes() == content, what="it is mended")


async def test_a_module_that_is_asked_for_as_a_manifest_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = wasm_module(MAX_MANIFEST_SIZE + 1)
    sizes: list[int] = []
    parse = Manifest.parse

    def counted(body: bytes, media_type: str, digest: Digest) -> Manifest:
        sizes.append(len(body))
        return parse(body, media_type, digest)

    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(module))
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get("/modules/up/team/plugin:v1")).body == module
            await mirror.until_held(Digest.of(module))
            monkeypatch.setattr(Manifest, "parse", counted)
            assert (await mirror.get(f"{MANIFESTS}/{Digest.of(module)}")).status == 404
            assert (await mirror.get(f"/modules/up/team/plugin@{Digest.of(module)}")).status == 404
    assert max(sizes, default=0) <= MAX_MANIFEST_SIZE

"""Who takes in pushes to hosted repositories, where a request over a socket could not show it."""

import contextlib
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blake3 import blake3

from mirror.admission import Admission
from mirror.digest import Digest
from mirror.errors import Denied, DiskFull, ManifestBlobUnknown, ManifestInvalid
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import BlobLink
from mirror.hosted.together import ByItself
from mirror.metadata.sqlite import SqliteMetadata
from mirror.names import Place
from mirror.oci import DOCKER_MANIFEST, OCI_MANIFEST, Manifest
from mirror.publish import Chunk
from mirror.publishing import Hosted
from mirror.sharing import Unshared
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.uploads import Uploads
from tests.support.artifacts import Artifact, cncf, image, wasm_module

PLACE = Place("hosted", "team/plugin")
REFUSED = cncf(wasm_module())
MANIFEST = Manifest.parse(REFUSED.body, REFUSED.media_type, REFUSED.digest)


@contextlib.asynccontextmanager
async def hosted(folder: Path, check: str) -> AsyncIterator[tuple[Hosted, Catalogue, BlobStore]]:
    """All that is needed to host, without HTTP."""
    with contextlib.ExitStack() as stack:
        directory = DataDirectory.open(folder)
        stack.callback(directory.close)
        store, catalogue = BlobStore(directory), Catalogue.of(directory)
        metadata = SqliteMetadata.open(directory.database, holds=store.holds, holds_any=store.holds_any)
        uploads = Uploads(directory, lambda: 0.0, expires=3600, max_uploads=10)
        stack.callback(uploads.close)
        admission = Admission(check, 1 << 20, directory.spool)
        stack.callback(admission.close)
        try:
            publisher = Hosted(uploads, store, catalogue, metadata, admission, 1 << 20, ByItself(), Unshared().announce)
            yield publisher, catalogue, store
        finally:
            await catalogue.aclose()
            await metadata.aclose()


async def push_blobs(publisher: Hosted, artifact: Artifact) -> None:
    for digest, content in artifact.blobs.items():
        upload = await publisher.begin(PLACE, "", algorithm="sha256")
        await upload.finish(digest, Chunk(stream(content)))


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_layer_that_comes_while_its_manifest_is_judged_does_not_let_that_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path, "enforce") as (publisher, catalogue, store):
        await push_blobs(publisher, REFUSED)

        async def not_yet(repository: str, digest: Digest) -> BlobLink | None:
            return None

        with monkeypatch.context() as patched:
            patched.setattr(catalogue, "blob", not_yet)
            with pytest.raises(ManifestBlobUnknown):
                await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        with pytest.raises(ManifestInvalid):
            await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        assert not store.holds(MANIFEST.digest)


async def test_who_may_not_overwrite_does_not_change_the_type_of_what_a_tag_names(tmp_path: Path) -> None:
    """A manifest that does not name its type has the one that it is sent as."""
    body = image([("application/vnd.example", b"x")], extra={"mediaType": None}).body
    first, second = (Manifest.parse(body, kind, Digest.of(body)) for kind in (OCI_MANIFEST, DOCKER_MANIFEST))
    async with hosted(tmp_path, "warn") as (publisher, catalogue, _):
        await push_blobs(publisher, image([("application/vnd.example", b"x")]))
        await publisher.put_manifest(PLACE, "", first, ["v1"], overwrite=False)
        await publisher.put_manifest(PLACE, "", first, ["v1", "v2"], overwrite=False)
        with pytest.raises(Denied, match="overwrite"):
            await publisher.put_manifest(PLACE, "", second, ["v3"], overwrite=False)
        found = await catalogue.tagged(PLACE.repository, "v1")
        assert found is not None
        assert found.media_type == OCI_MANIFEST
        await publisher.put_manifest(PLACE, "", second, [], overwrite=True)
        assert (await catalogue.tagged(PLACE.repository, "v1") or found).media_type == DOCKER_MANIFEST


async def test_what_a_check_of_the_disk_compares_is_noted_of_a_pushed_blob(tmp_path: Path) -> None:
    content = wasm_module(2_000)
    async with hosted(tmp_path, "off") as (publisher, _, store):
        upload = await publisher.begin(PLACE, "", algorithm="sha256")
        await upload.finish(Digest.of(content), Chunk(stream(content)))
        assert store.holds(Digest.of(content))
    metadata = SqliteMetadata.open(
        DataDirectory.attach(tmp_path).database, holds=lambda _: True, holds_any=lambda: True
    )
    record = await metadata.blob(Digest.of(content))
    await metadata.aclose()
    assert record is not None
    assert (record.size, record.blake3) == (len(content), blake3(content).hexdigest())


async def test_a_disk_that_is_full_under_a_manifest_leaves_no_record_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path, "warn") as (publisher, catalogue, store):
        await push_blobs(publisher, REFUSED)

        def fails(digest: Digest, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(store, "put", fails)
            with pytest.raises(DiskFull, match="was not taken in"):
                await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        assert await catalogue.tag(PLACE.repository, "v1") is None
        pushed = await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        (warning,) = pushed.warnings
        assert warning.startswith("agents will refuse this: ")

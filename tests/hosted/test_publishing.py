"""Who takes in pushes to hosted repositories, where a request over a socket could not show it."""

import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from mirror.admission import Admission
from mirror.digest import Digest
from mirror.errors import (
    Denied,
    DiskFull,
    ManifestBlobUnknown,
    ManifestInvalid,
    NotNow,
    UpstreamUnavailable,
)
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import BlobLink
from mirror.hosted.together import ByItself, Together, Turn
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
async def hosted(
    folder: Path, check: str, together: Together | None = None
) -> AsyncIterator[tuple[Hosted, Catalogue, BlobStore]]:
    """All that is needed to host, without HTTP."""
    with contextlib.ExitStack() as stack:
        directory = DataDirectory.open(folder)
        stack.callback(directory.close)
        store, catalogue = BlobStore(directory), Catalogue.of(directory)
        metadata = SqliteMetadata.open(directory.database, holds=store.holds, holds_any=store.holds_any)
        uploads = Uploads(directory, lambda: 0.0, expires=3600, max_uploads=10)
        stack.callback(uploads.close)
        admission = Admission(check, 1 << 20, directory.spool, lambda digests, facts: None)
        stack.callback(admission.close)
        try:
            others = together or ByItself()
            publisher = Hosted(uploads, store, catalogue, metadata, admission, 1 << 20, others, Unshared().announce)
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


async def nothing() -> None:
    """Nothing is learnt."""


class Others(ByItself):
    """Replicas that agree to everything, while they are not ``away``. ``events`` are what was asked of them, in order.

    ``learn`` is what is known here once they were asked, ``bring`` what is on this disk once it was brought.
    """

    def __init__(self) -> None:
        self.events: list[object] = []
        self.away = False
        self.learn: Callable[[], Awaitable[None]] = nothing
        self.bring: Callable[[], Awaitable[None]] = nothing
        self.moment = 2**51

    def refuse_while_away(self) -> None:
        if self.away:
            raise NotNow("Redis is away", retry_after=2)

    @contextlib.asynccontextmanager
    async def changing(self, repository: str) -> AsyncIterator[Turn]:
        self.events.append("begins")
        yield await self.numbered()
        self.events.append("ends")

    async def numbered(self) -> Turn:
        self.moment += 10
        return Turn(self.moment)

    async def told(self) -> None:
        self.events.append("told")

    async def copied(self, digests: Sequence[Digest]) -> None:
        self.events.append(("copied", *digests))

    async def brought(self, digest: Digest, size: int) -> None:
        self.events.append(("brought", digest))
        await self.bring()

    async def asked(self) -> None:
        self.events.append("asked")
        await self.learn()


async def test_what_is_changed_is_told_to_all_before_another_may_change_it_and_blobs_are_copied(tmp_path: Path) -> None:
    others = Others()
    async with hosted(tmp_path, "off", others) as (publisher, catalogue, _):
        await push_blobs(publisher, REFUSED)
        assert others.events == [event for digest in REFUSED.blobs for event in ("told", ("copied", digest))]
        assert await catalogue.latest() == others.moment
        others.events.clear()
        await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        assert await catalogue.latest() == others.moment
        config = MANIFEST.config
        assert config is not None
        copied = ("copied", config.digest, *(layer.digest for layer in MANIFEST.layers))
        assert others.events == ["begins", "told", "ends", copied]
        for delete in (
            publisher.delete_tag(PLACE, "", "v1"),
            publisher.delete_manifest(PLACE, "", MANIFEST.digest),
            publisher.delete_blob(PLACE, "", MANIFEST.layers[0].digest),
        ):
            others.events.clear()
            await delete
            assert others.events == ["begins", "told", "ends"]
            assert await catalogue.latest() == others.moment


async def test_while_redis_is_away_an_upload_is_told_of_and_cancelled_and_nothing_else(tmp_path: Path) -> None:
    others = Others()
    async with hosted(tmp_path, "off", others) as (publisher, catalogue, _):
        await push_blobs(publisher, REFUSED)
        upload = await publisher.begin(PLACE, "", algorithm="sha256")
        assert await upload.append(Chunk(stream(b"some"))) == 4
        others.away = True
        layer = MANIFEST.layers[0].digest
        for change in (
            publisher.begin(PLACE, "", algorithm="sha256"),
            upload.append(Chunk(stream(b"more"))),
            upload.finish(Digest.of(b"some"), None),
            publisher.mount(Place("hosted", "other"), "", layer, PLACE, lambda _: True),
            publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True),
            publisher.delete_tag(PLACE, "", "v1"),
            publisher.delete_manifest(PLACE, "", MANIFEST.digest),
            publisher.delete_blob(PLACE, "", layer),
        ):
            with pytest.raises(NotNow):
                await change
        assert not await catalogue.exists("other")
        assert (await publisher.find(PLACE, "", upload.id)).size == 4
        others.away = False
        other = await publisher.begin(PLACE, "", algorithm="sha256")
        await (await publisher.find(PLACE, "", upload.id)).finish(Digest.of(b"some"), None)
        others.away = True
        await (await publisher.find(PLACE, "", other.id)).cancel()


async def test_a_number_that_cannot_be_had_leaves_the_upload_to_be_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Others()
    async with hosted(tmp_path, "off", others) as (publisher, catalogue, _):
        upload = await publisher.begin(PLACE, "", algorithm="sha256")

        async def gone() -> Turn:
            raise NotNow("Redis has gone this moment", retry_after=2)

        with monkeypatch.context() as patched:
            patched.setattr(others, "numbered", gone)
            with pytest.raises(NotNow):
                await upload.finish(Digest.of(b"all"), Chunk(stream(b"all")))
        assert not await catalogue.exists(PLACE.repository)
        await (await publisher.find(PLACE, "", upload.id)).finish(Digest.of(b"all"), None)
        assert await catalogue.blob(PLACE.repository, Digest.of(b"all")) is not None


async def test_what_a_manifest_names_is_asked_for_before_it_is_said_to_be_unknown(tmp_path: Path) -> None:
    others = Others()
    async with hosted(tmp_path, "off", others) as (publisher, catalogue, store):
        with pytest.raises(ManifestBlobUnknown):
            await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        assert others.events == ["begins", "asked"]

        async def elsewhere() -> None:
            for digest, content in REFUSED.blobs.items():
                store.put(digest, content)
                await catalogue.link_blob(PLACE.repository, digest, len(content))

        others.learn = elsewhere
        await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
        assert await catalogue.tagged(PLACE.repository, "v1") is not None


async def test_a_layer_on_another_disk_is_brought_and_looked_into_before_its_manifest_is_let_in(tmp_path: Path) -> None:
    others = Others()
    layer = MANIFEST.layers[0].digest
    async with hosted(tmp_path, "enforce", others) as (publisher, _, store):
        await push_blobs(publisher, REFUSED)
        store.delete(layer)
        for error in (UpstreamUnavailable("replica-7 refuses connections"), TimeoutError()):

            async def fails(error: BaseException = error) -> None:
                raise error

            others.bring = fails
            with pytest.raises(NotNow, match="another replica in time") as refused:
                await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)
            assert "replica-7" not in refused.value.message, "an address that is none of the author's business"

        async def comes() -> None:
            store.put(layer, REFUSED.blobs[layer])

        others.bring = comes
        with pytest.raises(ManifestInvalid):
            await publisher.put_manifest(PLACE, "", MANIFEST, ["v1"], overwrite=True)


async def test_a_blob_is_mounted_once_it_is_on_this_disk_and_sent_where_it_cannot_be_had(tmp_path: Path) -> None:
    others = Others()
    layer, target = MANIFEST.layers[0].digest, Place("hosted", "other")
    async with hosted(tmp_path, "off", others) as (publisher, catalogue, store):
        await push_blobs(publisher, REFUSED)
        store.delete(layer)

        async def fails() -> None:
            raise UpstreamUnavailable("no replica gives it")

        others.bring = fails
        assert not await publisher.mount(target, "", layer, PLACE, lambda _: True)

        async def comes() -> None:
            store.put(layer, REFUSED.blobs[layer])

        others.bring = comes
        others.events.clear()
        assert await publisher.mount(target, "", layer, PLACE, lambda _: True)
        assert others.events == [("brought", layer), "told", ("copied", layer)]
        assert await catalogue.latest() == others.moment
        assert await catalogue.blob("other", layer) is not None

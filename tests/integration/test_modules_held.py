"""A module that was given out once is given out again: during an outage, after a restart, whatever was evicted."""

import asyncio
import errno
import hashlib
import time
from pathlib import Path

import pytest

from mirror import modules
from mirror.digest import Digest
from mirror.metadata.sqlite import SqliteMetadata
from mirror.wasm.examine import examine
from tests.integration.client import get
from tests.integration.whose import workers
from tests.store.disk import data_in, fail
from tests.support.artifacts import Artifact, compat, index, publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

MODULE = wasm_module(100_000)
UNPACKED = Digest("sha256", hashlib.sha256(MODULE).hexdigest())
AT = "/modules/up/team/plugin:v1"
ALWAYS_ASK = {"defaults": {"fresh_for": "0s"}}

LAYOUTS = {
    "raw": raw(MODULE),
    "compat": compat(MODULE),
    "index of raw": index(raw(MODULE)),
    "index": index(compat(MODULE)),
}
each_layout = pytest.mark.parametrize("artifact", LAYOUTS.values(), ids=LAYOUTS.keys())
raw_and_index = pytest.mark.parametrize("artifact", [LAYOUTS["raw"], LAYOUTS["index"]], ids=["raw", "index"])
archives = pytest.mark.parametrize("artifact", [LAYOUTS["compat"], LAYOUTS["index"]], ids=["compat", "index"])


def layer_of(artifact: Artifact) -> Digest:
    return (artifact.children[0] if artifact.children else artifact).layers[0]


def evict(mirror: Running, *digests: Digest) -> None:
    for digest in digests:
        mirror.directory.blob(digest).unlink()


async def held(mirror: Running, artifact: Artifact) -> None:
    """Have the mirror hold the module, and what it came out of."""
    assert (await mirror.get(AT)).body == MODULE
    for digest in (layer_of(artifact), UNPACKED, artifact.digest):
        await mirror.until_held(digest)


@raw_and_index
@pytest.mark.shows("a registry refuses connections, hangs, or answers with errors or what is not HTTP")
async def test_while_upstream_is_away_a_module_is_served_as_stale(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}, ALWAYS_ASK) as mirror:
            await held(mirror, artifact)
            up.refuse()
            stale = await mirror.get(AT)
            assert stale.body == MODULE
            assert str(stale.header("cache-status")).startswith("wasm-mirror; fwd=stale; detail=upstream_")
            by_digest = await mirror.get(f"/modules/up/team/plugin@{artifact.digest}")
            assert by_digest.body == MODULE
            assert by_digest.header("cache-status") == "wasm-mirror; hit"


@pytest.mark.parametrize("name", ["raw", "compat"])
async def test_that_a_tag_is_stale_is_told_although_its_layer_was_fetched(tmp_path: Path, name: str) -> None:
    artifact = LAYOUTS[name]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}, ALWAYS_ASK) as mirror:
            await held(mirror, artifact)
            evict(mirror, *{UNPACKED, layer_of(artifact)})
            up.inject(Fault(status=503), path="/manifests/")
            stale = await mirror.get(AT)
            assert stale.body == MODULE
            assert str(stale.header("cache-status")).startswith("wasm-mirror; fwd=stale; detail=upstream_")


@each_layout
@pytest.mark.shows("a registry is away and the mirror restarts")
async def test_after_a_restart_a_module_is_served_of_which_only_itself_and_its_tag_are_left(
    tmp_path: Path, artifact: Artifact
) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
        up.refuse()
        async with running(tmp_path, {"up": up}, {"defaults": {"hold_for": "200ms"}}) as mirror:
            if layer_of(artifact) != UNPACKED:
                evict(mirror, layer_of(artifact))
            if artifact.children:
                evict(mirror, artifact.children[0].digest)
            for _ in range(2):
                assert (await mirror.get(AT)).body == MODULE


@archives
async def test_a_module_that_was_evicted_is_unpacked_again_without_upstream(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
            asked = len(up.requests)
            evict(mirror, UNPACKED)
            assert (await mirror.get(AT)).body == MODULE
            assert mirror.holds(UNPACKED)
            assert len(up.requests) == asked


@raw_and_index
async def test_what_was_evicted_altogether_is_fetched_again(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
            evict(mirror, *{UNPACKED, layer_of(artifact), artifact.digest, *(one.digest for one in artifact.children)})
            again = await mirror.get(AT)
            assert again.body == MODULE
            assert str(again.header("cache-status")).startswith("wasm-mirror; fwd=miss; fwd-status=200; stored")
            assert up.count(method="GET", path=f"/blobs/{layer_of(artifact)}") == 2


@archives
async def test_all_that_a_module_needs_is_noted_as_asked_for(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
            began = time.time()
            assert (await mirror.get(AT)).body == MODULE
    directory = data_in(tmp_path / "data")
    known = SqliteMetadata.open(directory.database, holds=lambda _: True, holds_any=lambda: True)
    image = artifact.children[0] if artifact.children else artifact
    for digest in (UNPACKED, layer_of(artifact), image.digest, artifact.digest):
        at = await known.last_access(digest)
        assert at is not None
        assert at >= began
    await known.aclose()


async def test_a_module_whose_file_has_another_size_is_not_served(tmp_path: Path) -> None:
    artifact = LAYOUTS["compat"]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
            mirror.directory.blob(UNPACKED).write_bytes(MODULE[:-1])
            assert (await mirror.get(AT)).body == MODULE


@pytest.mark.parametrize("name", ["raw", "compat"])
async def test_a_layer_that_rots_is_fetched_again(tmp_path: Path, name: str) -> None:
    artifact = LAYOUTS[name]
    layer = layer_of(artifact)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
            whole = mirror.directory.blob(layer).read_bytes()
            mirror.directory.blob(layer).write_bytes(b"!" + whole[1:])
            if layer != UNPACKED:
                evict(mirror, UNPACKED)
            if layer == UNPACKED:
                damaged = await mirror.get(AT)
                assert (damaged.status, damaged.header("retry-after")) == (500, "1")
            assert (await mirror.get(AT)).body == MODULE
            assert up.count(method="GET", path=f"/blobs/{layer}") == 2


async def test_offline_what_is_held_is_served_and_nothing_else(tmp_path: Path) -> None:
    artifact = LAYOUTS["compat"]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(mirror, artifact)
        up.reset()
        offline = {"endpoints": [up.url], "offline": True}
        async with running(tmp_path, {"up": offline}) as mirror:
            evict(mirror, UNPACKED)
            assert (await mirror.get(AT)).body == MODULE
            assert (await mirror.get(f"{AT}?info")).json["accepted_by"]["agents"]["accepted"]
            assert (await mirror.get("/modules/up/team/plugin:v2")).code == "MANIFEST_UNKNOWN"
        assert up.requests == []


@pytest.mark.parametrize("name", ["raw", "compat"])
@pytest.mark.shows("the disk is full, or fails")
async def test_without_a_disk_modules_come_through_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", LAYOUTS[name])
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get("/readyz")).status == 200
            with monkeypatch.context() as patch:
                for call in ("pwrite", "write", "fsync"):
                    fail(patch, call, errno.ENOSPC)
                got = await asyncio.gather(*(mirror.get(AT) for _ in range(5)))
                assert all(one.body == MODULE for one in got)
                assert not mirror.holds(UNPACKED)

            async def kept() -> bool:
                assert (await mirror.get(AT)).body == MODULE  # the first one may still join what passes through memory
                return mirror.holds(UNPACKED)

            held: bool = await eventually(kept, what="a module that is kept")
            assert held


async def test_what_is_said_of_an_artifact_is_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def counted(*arguments: object, **options: object) -> object:
        looks.append(arguments)
        return examine(*arguments, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(modules, "examine", counted)
    artifact = LAYOUTS["index"]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            got = await asyncio.gather(*(mirror.get(f"{AT}?info") for _ in range(20)))
            told = got[0].json
            assert all(one.json == told for one in got)
            assert (await mirror.head(f"{AT}?info")).body == b""
            assert len(looks) == 1
            pinned = (await mirror.get(f"/modules/up/team/plugin@{artifact.digest}?info")).json
            assert len(looks) == 2
            assert up.count(method="GET") == 3
    assert told["module"]["sha256"] == UNPACKED.hex
    assert (told["layout"], told["index"]) == ("oci tar+gzip", str(artifact.digest))
    assert told["accepted_by"]["agents"]["accepted"]
    assert pinned["digest"] == told["digest"] == str(artifact.children[0].digest)
    assert not pinned["accepted_by"]["agents"]["accepted"]
    assert str(artifact.children[0].digest) in pinned["accepted_by"]["agents"]["remedy"]


@pytest.mark.parametrize("name", ["raw", "compat"])
async def test_two_workers_unpack_once(tmp_path: Path, name: str) -> None:
    artifact = LAYOUTS[name]
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": 2}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        assert len(workers(mirror)) == 2
        got = await asyncio.gather(*(get(mirror.url, AT) for _ in range(50)))
        assert all(one.body == MODULE for one in got)
        assert up.count(method="GET", path=f"/blobs/{layer_of(artifact)}") == 1
        assert mirror.log_text().count("unpacked sha256:") == (name == "compat")
        up.refuse()
        assert all([(await get(mirror.url, AT)).body == MODULE for _ in range(10)])


async def test_a_large_module_costs_little_memory(tmp_path: Path) -> None:
    module = wasm_module(64 << 20)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", compat(wasm_module()))
        assert (await get(mirror.url, AT)).status == 200
        at_rest = anonymous_memory(mirror.pid)
        publish(up, "team/large", "v1", compat(module))
        peaks = [at_rest]
        asking = asyncio.create_task(get(mirror.url, "/modules/up/team/large:v1"))
        while not asking.done():
            peaks.append(anonymous_memory(mirror.pid))
            await asyncio.sleep(0.02)
        assert Digest.of((await asking).body) == Digest.of(module)
        assert max(peaks) - at_rest < 24 << 20


def anonymous_memory(pid: int) -> int:
    """Bytes of memory that are no file's: a blob is sent as slices of its map, which cost nothing but page cache."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])

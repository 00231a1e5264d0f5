"""What nothing names goes when somebody wants it, and nothing else does."""

import os
import time
from pathlib import Path

from mirror.collecting import UNUSED_FOR
from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leftovers import clear
from mirror.store.spool import Spool
from tests.housekeeping.support import act, call, held, pull
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.pushing import Author
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

NAME = "up/team/plugin"
LATE = {"defaults": {"fresh_for": "1h"}}


async def test_it_gives_what_went_and_nothing_that_is_named_goes(tmp_path: Path) -> None:
    artifact, pushed = compat(wasm_module(4_000, seed=1)), raw(wasm_module(4_000, seed=2))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            assert (await mirror.get(f"/modules/{NAME}:1")).status == 200
            await Author(mirror).push(pushed, "1")
            before = mirror.files()
            answer = await call(mirror, "POST", "gc")
            assert answer == {"blobs": 0, "bytes": 0, "uploads": 0, "records": 0}
            assert mirror.files() == before


async def test_what_is_noted_of_what_is_gone_goes(tmp_path: Path) -> None:
    artifact = raw(wasm_module(4_000, seed=3))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            assert (await call(mirror, "POST", "gc"))["records"] == 0
            for digest in (artifact.digest, *artifact.blobs):
                mirror.directory.blob(digest).unlink()
            assert (await call(mirror, "POST", "gc"))["records"] == 0, "it may be on its way here"
            assert (await act(mirror, "purge", f"{NAME}:1"))[0]["result"] == "purged"
            assert held(mirror, artifact) == set()


def test_spools_and_drafts_go_when_nobody_has_written_to_them_for_long(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    directory = DataDirectory.attach(tmp_path)
    digests = [Digest.of(bytes([number])) for number in range(3)]
    for digest in digests:
        spool = Spool.acquire(directory, digest)
        assert spool is not None
        spool.append(b"bytes")
        spool.close()
    draft = directory.spool / "sha256-00.draft.whole"
    draft.write_bytes(b"draft")
    old = time.time() - UNUSED_FOR - 60
    for file in directory.spool.iterdir():
        if file.name != f"sha256-{digests[0].hex}":
            os.utime(file, (old, old))
    writer = Spool.acquire(directory, digests[1])
    assert writer is not None
    os.utime(directory.spool / f"sha256-{digests[1].hex}", (old, old))
    left = clear(directory, time.time() - UNUSED_FOR)
    assert (left.files, left.size) == (2, 10)
    kept = {f"sha256-{digest.hex}" for digest in digests[:2]}
    assert {file.name for file in directory.spool.iterdir()} == kept, "one is new, one is written to"
    writer.close()
    assert clear(directory, time.time() - UNUSED_FOR).files == 1
    assert not BlobStore(directory).holds_any()

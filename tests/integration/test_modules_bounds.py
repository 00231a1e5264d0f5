"""What artifacts of strangers may cost: they are looked into once, by turns, and what is asked for first goes first."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror import modules
from mirror.digest import Digest
from mirror.oci import Manifest
from mirror.upstream.queue import FairQueue
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from tests.support.artifacts import OCI_LAYER, Artifact, compat, image, publish, raw, tar_gz, wasm_module
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

MODULE = wasm_module(2_000)
AT = "/modules/up/team/plugin:v1"


@contextmanager
def looked_into(patch: pytest.MonkeyPatch, gate: threading.Semaphore | None = None) -> Iterator[list[str]]:
    """The digests of what is looked into, in their order; each look waits for the ``gate``."""
    looks: list[str] = []

    def look(manifest: Manifest, *arguments: object, **options: object) -> Description:
        looks.append(str(manifest.digest))
        if gate is not None:
            gate.acquire(timeout=10)
        return examine(manifest, *arguments, **options)  # type: ignore[arg-type]  # as they came

    with patch.context() as within:
        within.setattr(modules, "examine", look)
        yield looks


CUT = MODULE[:-10]
TOO_LARGE = tar_gz({"plugin.wasm": wasm_module(3_000_000)})
COSTLY = {
    "a malformed module": (raw(CUT), True),
    "a malformed module of an archive": (compat(CUT), True),
    "a layer that is too large": (image([(OCI_LAYER, tar_gz({"x": b"-"})), (OCI_LAYER, TOO_LARGE)]), False),
}


@pytest.mark.parametrize(("artifact", "has_one"), COSTLY.values(), ids=COSTLY)
async def test_what_is_no_good_is_looked_into_once_however_often_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, has_one: bool
) -> None:
    with FaultyUpstream() as up, looked_into(monkeypatch) as looks:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}, {"wasm": {"max_module_size": "1MiB"}}) as mirror:
            described = [(await mirror.get(f"{AT}?info")).json for _ in range(3)]
            assert described[0]["problem"] == described[2]["problem"] is not None
            assert len(looks) == 1
            if not has_one:
                answers = [await mirror.get(AT) for _ in range(3)]
                assert {answer.status for answer in answers} == {404}
                assert len(looks) == 2


async def test_a_manifest_is_parsed_once_however_often_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 4 MiB holds up the loop for a quarter of a second."""
    parsed: list[str] = []
    parse = Manifest.parse

    def counted(body: bytes, media_type: str, digest: Digest) -> Manifest:
        parsed.append(str(digest))
        return parse(body, media_type, digest)

    artifact = image([("text/plain", b"-")] * 100)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            for path in (AT, f"{AT}?info"):
                await mirror.get(path)
            monkeypatch.setattr(Manifest, "parse", counted)
            for path in (AT, f"{AT}?info") * 3:
                await mirror.get(path)
    assert parsed == []


async def test_a_disk_that_fails_says_nothing_of_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> Description:
        raise OSError(28, "No space left on device")

    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", compat(MODULE))
        async with running(tmp_path, {"up": up}) as mirror:
            with monkeypatch.context() as within:
                within.setattr(modules, "examine", failing)
                assert (await mirror.get(f"{AT}?info")).status == 500
            assert (await mirror.get(f"{AT}?info")).json["accepted_by"]["agents"]["accepted"]


async def test_who_wants_a_module_goes_before_descriptions_and_repositories_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: list[FairQueue] = []

    def queue(limit: int) -> FairQueue:
        queues.append(FairQueue(limit))
        return queues[-1]

    monkeypatch.setattr(modules, "FairQueue", queue)
    gate = threading.Semaphore(0)
    evil = [compat(wasm_module(1_000 + number)) for number in range(5)]
    other, good = compat(wasm_module(500)), compat(MODULE)
    with FaultyUpstream() as up, looked_into(monkeypatch, gate) as looks:
        for number, artifact in enumerate([*evil, compat(wasm_module(3_000))]):
            publish(up, "evil/plugin", f"v{number}", artifact)
        publish(up, "other/plugin", "v1", other)
        publish(up, "team/plugin", "v1", good)
        async with running(tmp_path, {"up": up}) as mirror:
            asked = [asyncio.create_task(mirror.get(f"/modules/up/evil/plugin:v{number}?info")) for number in range(5)]
            await eventually(lambda: len(looks) == 2 and queues[0].waiting == 3)
            asked += [asyncio.create_task(mirror.get(path)) for path in ("/modules/up/other/plugin:v1?info", AT)]
            await eventually(lambda: queues[0].waiting == 5)
            monkeypatch.setattr(modules, "_MOST_WAITING", 3)
            refused = await mirror.get("/modules/up/evil/plugin:v5?info")
            assert (refused.status, "too many artifacts of up/evil/plugin" in refused.message) == (503, True)
            gate.release(2)
            await eventually(lambda: len(looks) == 4)
            gate.release(10)
            assert all(answer.status == 200 for answer in await asyncio.gather(*asked))
    assert looks[2] == str(good.digest)
    assert str(other.digest) in looks[3:5]

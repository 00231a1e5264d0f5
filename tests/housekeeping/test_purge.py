"""What is purged is gone, nothing else is, and whoever asks for it next has it anew."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.housekeeping.support import act, call, held, pull, rows
from tests.support.artifacts import Artifact, compat, image, index, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.pushing import Author
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

NAME = "up/team/plugin"
LATE = {"defaults": {"fresh_for": "1h"}}


def plugin(seed: int, size: int = 5_000) -> Artifact:
    return raw(wasm_module(size, seed=seed))


async def test_what_is_purged_is_gone_and_the_next_pull_has_it_anew(tmp_path: Path) -> None:
    artifact = plugin(1)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            (result,) = await act(mirror, "purge", f"oci://{NAME}:1")
            everything = len(artifact.body) + sum(map(len, artifact.blobs.values()))
            assert (result["result"], result["bytes"]) == ("purged", everything), result
            assert result["digest"] == str(artifact.digest)
            assert held(mirror, artifact) == set()
            assert await rows(mirror) == []
            asked = len(up.requests)
            await pull(mirror, f"{NAME}:1", artifact)
            gets = [str(request.path) for request in up.requests[asked:] if request.method == "GET"]
            assert sorted(gets) == sorted(
                ["/v2/team/plugin/manifests/1", *(f"/v2/team/plugin/blobs/{digest}" for digest in artifact.blobs)]
            )
            assert (await act(mirror, "purge", f"{NAME}:2"))[0]["result"] == "absent"


async def test_a_layer_that_another_tag_names_too_stays(tmp_path: Path) -> None:
    shared = wasm_module(5_000, seed=3)
    one, other = raw(shared, {"annotations": {"n": "1"}}), raw(shared, {"annotations": {"n": "2"}})
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", one)
        publish(up, "team/plugin", "2", other)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", one)
            await pull(mirror, f"{NAME}:2", other)
            (result,) = await act(mirror, "purge", f"{NAME}:1")
            assert (result["result"], result["bytes"]) == ("purged", len(one.body))
            assert held(mirror, one, other) == {other.digest, *other.blobs}
            asked = len(up.requests)
            await pull(mirror, f"{NAME}:2", other)
            assert len(up.requests) == asked


async def test_two_tags_of_one_manifest_go_one_after_the_other(tmp_path: Path) -> None:
    artifact = plugin(4)
    with FaultyUpstream() as up:
        for tag in "12":
            publish(up, "team/plugin", tag, artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            for tag in "12":
                await pull(mirror, f"{NAME}:{tag}", artifact)
            (first,) = await act(mirror, "purge", f"{NAME}:1")
            assert (first["result"], first["bytes"]) == ("purged", 0)
            assert held(mirror, artifact) == {artifact.digest, *artifact.blobs}
            (second,) = await act(mirror, "purge", f"{NAME}:2")
            assert second["bytes"] > 5_000
            assert held(mirror, artifact) == set()


async def test_what_is_pinned_is_refused_by_any_of_its_names(tmp_path: Path) -> None:
    artifact = plugin(5)
    both = index(artifact)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        publish(up, "team/plugin", "other", artifact)
        publish(up, "team/plugin", "index", both)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            for tag in ("1", "other"):
                await pull(mirror, f"{NAME}:{tag}", artifact)
            await act(mirror, "pins", f"{NAME}:index")
            references = f"{NAME}:index", f"{NAME}:1", f"{NAME}:other", f"{NAME}@{artifact.digest}"
            results = await act(mirror, "purge", *references)
            assert {result["result"] for result in results} == {"pinned"}
            assert all("unpin" in result["why"] and f"{NAME}:index" in result["why"] for result in results)
            assert held(mirror, artifact) == {artifact.digest, *artifact.blobs}
            await call(mirror, "DELETE", f"pins/{NAME}:index")
            results = await act(mirror, "purge", *references)
            assert {result["result"] for result in results} == {"purged"}, results
            assert held(mirror, artifact, both) == set()


async def test_each_reference_is_answered_for_itself(tmp_path: Path) -> None:
    artifact = plugin(6)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            pushed = plugin(7)
            await Author(mirror).push(pushed, "1")
            results = await act(
                mirror,
                "purge",
                "no such thing!",
                f"{NAME}:nothing",
                "elsewhere.example/team/plugin:1",
                "hosted/team/plugin:1",
                f"{NAME}@{artifact.layers[0]}",
                f"{NAME}:1",
            )
            found = [result["result"] for result in results]
            assert found == ["invalid", "absent", "invalid", "failed", "purged", "purged"], results
            assert "DELETE /v2/hosted/team/plugin/manifests/1" in results[3]["why"]
            assert held(mirror, pushed, artifact) == {pushed.digest, *pushed.blobs}


async def test_a_blob_that_a_manifest_names_goes_with_that_alone(tmp_path: Path) -> None:
    artifact = plugin(8)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            (result,) = await act(mirror, "purge", f"{NAME}@{artifact.layers[0]}")
            assert (result["result"], result["bytes"]) == ("failed", 0)
            assert str(artifact.digest) in result["why"]
            assert mirror.holds(artifact.layers[0])


async def test_what_is_hosted_too_stays(tmp_path: Path) -> None:
    artifact = plugin(9)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            await Author(mirror).push(artifact, "1")
            (result,) = await act(mirror, "purge", f"{NAME}:1")
            assert result["result"] == "purged"
            assert held(mirror, artifact) == {artifact.digest, *artifact.blobs}
            assert (await mirror.get("/v2/hosted/team/plugin/manifests/1")).status == 200


async def test_with_a_layer_goes_what_was_unpacked_of_it(tmp_path: Path) -> None:
    module = wasm_module(5_000, seed=10)
    artifact = compat(module)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            assert (await mirror.get(f"/modules/{NAME}:1")).body == module
            unpacked = [file for file in mirror.files() if file.startswith("blobs/")]
            assert len(unpacked) == 3
            await act(mirror, "purge", f"{NAME}:1")
            await eventually(lambda: mirror.files() == [], what="nothing of it is left")
            assert (await mirror.get(f"/modules/{NAME}:1")).body == module


async def test_a_purge_in_the_middle_of_a_pull_cuts_nobody(tmp_path: Path) -> None:
    artifact = plugin(11, 400_000)
    layer, gate = artifact.layers[0], Gate()
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(gate=gate, gate_at=200_000), path=f"blobs/{layer}")
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).body == artifact.body
            blobs = [asyncio.ensure_future(mirror.get(f"/v2/{NAME}/blobs/{layer}")) for _ in range(10)]
            await gate.reached()
            (result,) = await act(mirror, "purge", f"{NAME}:1")
            assert result["result"] == "purged"
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).body == artifact.body
            gate.release()
            for reply in await asyncio.gather(*blobs):
                assert (reply.status, reply.whole, reply.body == artifact.blobs[layer]) == (200, True, True)
            assert up.count(method="GET", path=f"blobs/{layer}") == 1, "what was on its way here is not fetched twice"


async def test_a_download_of_what_is_purged_goes_on_to_its_end(tmp_path: Path) -> None:
    artifact = plugin(13, 8_000_000)
    layer = artifact.layers[0]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            reader, writer = await asyncio.open_connection(*mirror.address, limit=1024)
            writer.write(f"GET /v2/{NAME}/blobs/{layer} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await act(mirror, "purge", f"{NAME}:1")
            assert not mirror.holds(layer)
            assert await reader.read() == artifact.blobs[layer]
            writer.close()
            await writer.wait_closed()


@pytest.mark.integration
async def test_while_upstream_is_away_it_is_gone_all_the_same(tmp_path: Path) -> None:
    """Whoever purges knows: there is no other copy."""
    artifact = plugin(12)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, {"defaults": {"hold_for": "300ms"}}) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            up.refuse()
            assert (await act(mirror, "purge", f"{NAME}:1"))[0]["result"] == "purged"
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 503
            up.accept()

            async def is_there() -> bool:
                return (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 200

            comes: Callable[[], bool | Awaitable[bool]] = is_there
            await eventually(comes, what="it is pulled again", timeout=20)


async def test_an_index_goes_with_its_children(tmp_path: Path) -> None:
    child = image([("application/vnd.oci.image.layer.v1.tar+gzip", b"layer" * 100)])
    both = index(child)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", both)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 200
            assert (await mirror.get(f"/v2/{NAME}/manifests/{child.digest}")).status == 200
            await mirror.until_held(child.digest)
            (result,) = await act(mirror, "purge", f"{NAME}:1")
            assert result["bytes"] >= len(both.body) + len(child.body)
            assert not held(mirror, both) | {digest for digest in [child.digest] if mirror.holds(digest)}
            asked = len(up.requests)
            assert (await mirror.get(f"/v2/{NAME}/manifests/{child.digest}")).status == 200
            assert len(up.requests) > asked, "nobody goes on giving it out of memory"

"""Artifacts that agents will refuse are counted, and said once; nobody waits for that, nor is upstream asked."""

import asyncio
import logging
from pathlib import Path

import pytest

from mirror import checks
from tests.support.artifacts import (
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.faults import Fault, Gate
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

MODULE = plugin()
NAME = "/v2/up/team/plugin"
CONTAINER = image([(OCI_LAYER, tar_gz({"bin/sh": b"\x7fELF" * 100}))])
NO_PLUGIN = wasm_module()

ACCEPTED = {"raw": raw(MODULE), "compat": compat(MODULE), "docker": docker(MODULE)}
REFUSED = {
    "cncf": (cncf(MODULE), "unknown to agents"),
    "another name": (image([(OCI_LAYER, tar_gz({"main.wasm": MODULE}))]), "call the module plugin.wasm"),
    "raw layer alone": (image([(RAW_LAYER, MODULE)], config=(RAW_CONFIG, b"{}")), "exactly two"),
    "no module": (raw(b"not a module"), "is no module"),
    "module not last": (
        image([(OCI_LAYER, tar_gz({"plugin.wasm": MODULE})), (OCI_LAYER, tar_gz({"notes.txt": b"x"}))]),
        "plugin.wasm",
    ),
    "for wasm only": (index(raw(MODULE), platforms=("wasi/wasm",)), "no child for linux/amd64"),
}


async def verdicts(mirror: Running) -> dict[str, float]:
    return Scrape.of((await mirror.get("/metrics")).body).by("verdict", "wasm_checks_total")


async def until_told(mirror: Running, expected: dict[str, float]) -> None:
    async def told() -> bool:
        return await verdicts(mirror) == expected

    found: bool = await eventually(told, what=f"the verdicts {expected}")
    assert found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "mirror.checks" and record.levelno >= logging.WARNING
    ]


async def test_what_agents_take_is_counted_and_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyUpstream() as up:
        for tag, artifact in ACCEPTED.items():
            publish(up, "team/plugin", tag, artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            for tag in ACCEPTED:
                await mirror.get(f"{NAME}/manifests/{tag}")
            await until_told(mirror, {"accepted": 3})
    assert warnings(caplog) == []


@pytest.mark.parametrize(("artifact", "words"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_agents_refuse_is_said_with_the_reason_and_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, artifact: Artifact, words: str
) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(f"{NAME}/manifests/v1")).body == artifact.body
            await until_told(mirror, {"refused": 1})
    (said,) = warnings(caplog)
    assert said.startswith(f"agents will refuse up/team/plugin:v1 ({artifact.digest}): ")
    assert words in said
    assert "; to mend it: " in said


async def test_a_digest_is_counted_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = cncf(MODULE)
    with FaultyUpstream() as up:
        for tag in ("v1", "v2"):
            publish(up, "team/plugin", tag, artifact)
        publish(up, "team/copy", "v1", artifact)
        async with running(tmp_path, {"up": up}, {"defaults": {"fresh_for": "0s"}}) as mirror:
            for target in (f"{NAME}/manifests/v1", f"{NAME}/manifests/v2", "/v2/up/team/copy/manifests/v1"):
                for _ in range(3):
                    assert (await mirror.get(target)).status == 200
                await until_told(mirror, {"refused": 1})
    assert len(warnings(caplog)) == 1


async def test_a_small_container_is_none_of_our_business(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layers = [(OCI_LAYER, tar_gz({f"bin/{number}": b"x"})) for number in range(5)]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "small", CONTAINER)
        publish(up, "team/plugin", "large", image(layers))
        publish(up, "team/plugin", "arm", index(CONTAINER, platforms=("linux/arm64",)))
        async with running(tmp_path, {"up": up}) as mirror:
            for tag in ("large", "arm", "small"):
                await mirror.get(f"{NAME}/manifests/{tag}")
            await until_told(mirror, {"not_wasm": 1})
            assert up.count(path="/blobs/") == 1
    assert warnings(caplog) == []


async def test_a_module_that_envoy_will_not_run_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(NO_PLUGIN))
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/v1")
            await until_told(mirror, {"accepted": 1})
    (said,) = warnings(caplog)
    assert said.startswith("agents take up/team/plugin:v1 (sha256:")
    assert "Envoy will not run it: it exports no function proxy_abi_version" in said


async def test_a_look_waits_for_layers_on_their_way_and_asks_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_BEGINS_WITHIN", 0.5)
    clock = asyncio.get_running_loop().time
    artifact, gate = compat(MODULE), Gate()
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(hold=gate), path="/blobs/")
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/v1")
            await gate.reached()
            long_after = clock() + 1.0
            await eventually(lambda: clock() > long_after, what="a layer that takes long")
            assert await verdicts(mirror) == {}
            gate.release()
            await until_told(mirror, {"accepted": 1})
        assert (up.count(path="/blobs/"), up.count(path="/manifests/"), up.count()) == (1, 1, 2)


async def test_what_never_comes_is_not_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_BEGINS_WITHIN", 0.2)
    artifact, other = compat(MODULE), cncf(MODULE)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        publish(up, "team/plugin", "v2", other)
        up.inject(Fault(status=404), path=f"/blobs/{artifact.layers[0]}")
        async with running(tmp_path, {"up": up}) as mirror:
            await mirror.get(f"{NAME}/manifests/v1")
            assert (await mirror.get(f"{NAME}/blobs/{artifact.layers[0]}")).status == 404
            await mirror.get(f"{NAME}/manifests/v2")
            await until_told(mirror, {"refused": 1})
    (said,) = warnings(caplog)
    assert str(other.digest) in said


async def test_an_index_that_is_asked_for_by_digest_is_said_with_the_digest_to_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = compat(MODULE)
    parent = index(
        child, compat(plugin(), extra={"annotations": {"for": "arm"}}), platforms=("linux/amd64", "linux/arm64")
    )
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", parent)
        async with running(tmp_path, {"up": up}) as mirror:
            for _ in range(3):
                for digest in (parent.digest, child.digest):
                    assert (await mirror.get(f"{NAME}/manifests/{digest}")).status == 200
            await eventually(lambda: warnings(caplog), what="the warning")
            await until_told(mirror, {"accepted": 1})
        assert up.count(path="/manifests/") == 2
    (said,) = warnings(caplog)
    assert said.startswith(f"up/team/plugin@{parent.digest} was asked for by the digest of an index")
    assert said.endswith(f"pin that one instead: up/team/plugin@{child.digest}")


@pytest.mark.parametrize("kind", ["by tag", "a container", "the child alone"])
async def test_an_index_that_agents_can_use_is_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    child = image([(OCI_LAYER, tar_gz({"bin/sh": b"x"}))]) if kind == "a container" else compat(MODULE)
    parent = index(child)
    first = {"by tag": "v1", "a container": parent.digest, "the child alone": child.digest}[kind]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", parent)
        async with running(tmp_path, {"up": up}) as mirror:
            for target in (first, child.digest):
                assert (await mirror.get(f"{NAME}/manifests/{target}")).status == 200
            await until_told(mirror, {"not_wasm" if kind == "a container" else "accepted": 1})
            await asyncio.gather(*(mirror.get(f"{NAME}/manifests/{child.digest}") for _ in range(3)))
    assert warnings(caplog) == []


async def test_a_look_that_fails_costs_nobody_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []

    def failing(*arguments: object, **others: object) -> None:
        looked.append(arguments)
        raise RuntimeError("a reader that fails")

    monkeypatch.setattr(checks, "examine", failing)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(MODULE))
        async with running(tmp_path, {"up": up}) as mirror:
            for _ in range(2):
                assert (await mirror.get(f"{NAME}/manifests/v1")).status == 200
            await eventually(lambda: looked, what="a look")
            assert await verdicts(mirror) == {}
    assert warnings(caplog) == []


async def test_looks_are_bounded_and_end_with_the_mirror(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        for number in range(80):
            publish(up, "team/plugin", f"v{number}", raw(wasm_module(200 + number)))
        up.inject(Fault(hold=gate), path="/blobs/")
        async with running(tmp_path, {"up": up}) as mirror:
            replies = await asyncio.gather(*(mirror.get(f"{NAME}/manifests/v{number}") for number in range(80)))
            assert {reply.status for reply in replies} == {200}
            looks = [task for task in asyncio.all_tasks() if task.get_name().startswith("look at ")]
            assert len(looks) == 64
        assert all(task.cancelled() for task in looks)
        gate.release()

"""An index may lead to another one, as agents follow it: its module is given, its layers sent for, its verdict told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.indexes import MAX_DEPTH
from mirror.oci import OCI_MANIFEST
from tests.support.artifacts import (
    Artifact,
    compat,
    descriptor,
    index,
    publish,
    raw,
)
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

MODULE = plugin()
AT = "/modules/up/team/plugin:v1"
MANIFESTS = "/v2/up/team/plugin/manifests"


def nested(artifact: Artifact, depth: int) -> Artifact:
    """The artifact behind so many indexes."""
    for _ in range(depth):
        artifact = index(artifact)
    return artifact


def chain(artifact: Artifact) -> list[Artifact]:
    """What lies on the way to the image, which is the last."""
    way = [artifact]
    while way[-1].children:
        way.append(way[-1].children[0])
    return way


async def as_agents(mirror: Running, artifact: Artifact, first: object) -> None:
    """Pull what is called ``first`` and all that it leads to."""
    assert (await mirror.get(f"{MANIFESTS}/{first}")).body == artifact.body
    for one in chain(artifact)[1:]:
        assert (await mirror.get(f"{MANIFESTS}/{one.digest}")).body == one.body


@pytest.mark.parametrize("layout", [raw, compat])
@pytest.mark.parametrize("depth", [2, MAX_DEPTH])
async def test_the_module_behind_several_indexes_is_given_and_described(
    tmp_path: Path, layout: Callable[[bytes], Artifact], depth: int
) -> None:
    image = layout(MODULE)
    artifact = nested(image, depth)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await mirror.get(AT)).body == MODULE
            told = (await mirror.get(f"{AT}?info")).json
            assert (told["digest"], told["index"]) == (str(image.digest), str(artifact.digest))
            assert told["accepted_by"]["agents"]["accepted"]
            pinned = (await mirror.get(f"/modules/up/team/plugin@{artifact.digest}?info")).json
            assert str(image.digest) in pinned["accepted_by"]["agents"]["remedy"]
            await mirror.until_held(image.layers[0])
            up.refuse()
            assert (await mirror.get(AT)).body == MODULE


async def test_more_indexes_than_anybody_needs_are_refused_in_words(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", nested(raw(MODULE), MAX_DEPTH + 1))
        async with running(tmp_path, {"up": up}) as mirror:
            for path in (AT, f"{AT}?info"):
                refused = await mirror.get(path)
                assert (refused.status, refused.code) == (404, "MODULE_UNKNOWN")
                assert "push the plugin's manifest alone" in refused.message


async def test_a_child_that_an_inner_index_calls_another_kind_is_refused_as_agents_do(tmp_path: Path) -> None:
    inner = index(raw(MODULE))
    entry = descriptor(OCI_MANIFEST, inner.body)  # which it is not
    body = json.dumps({"schemaVersion": 2, "mediaType": inner.media_type, "manifests": [entry]}).encode()
    outer = Artifact(body, inner.media_type, children=(inner,))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", index(outer))
        async with running(tmp_path, {"up": up}) as mirror:
            agents = (await mirror.get(f"{AT}?info")).json["accepted_by"]["agents"]
            assert not agents["accepted"]
            assert f"calls {inner.digest}" in agents["reason"]


async def test_a_tag_does_not_move_to_an_index_whose_inner_image_is_not_there(tmp_path: Path) -> None:
    old, image = raw(MODULE), compat(MODULE)
    new = nested(image, 2)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", old)
        settings = {"defaults": {"fresh_for": "0s", "hold_for": "300ms"}}
        async with running(tmp_path, {"up": up}, settings) as mirror:
            assert (await mirror.get(f"{MANIFESTS}/v1")).body == old.body
            publish(up, "team/plugin", "v1", new)
            up.delete("team/plugin", image.digest)
            half = await mirror.get(f"{MANIFESTS}/v1")
            assert half.body == old.body
            publish(up, "team/plugin", "v1", new)

            async def moved() -> bool:
                return (await mirror.get(f"{MANIFESTS}/v1")).body == new.body

            held: bool = await eventually(moved, what="the tag has moved")
            assert held
            await mirror.until_held(image.layers[0])


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_index_is_only_warned_of_where_it_was_the_first_that_was_asked_for_by_digest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, restarted: bool
) -> None:
    artifact = nested(compat(MODULE), 2)
    image = chain(artifact)[-1]

    def warnings() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "mirror.checks" and record.levelno >= logging.WARNING
        ]

    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        if restarted:
            async with running(tmp_path, {"up": up}) as mirror:
                await as_agents(mirror, artifact, "v1")
                await mirror.until_held(image.layers[0])
        async with running(tmp_path, {"up": up}) as mirror:
            await as_agents(mirror, artifact, "v1")
            await mirror.until_held(image.layers[0])
            assert (await mirror.get(AT)).body == MODULE
            await as_agents(mirror, artifact, artifact.digest)
            await eventually(warnings, what="the warning")
    (said,) = warnings()
    assert said.startswith(f"up/team/plugin@{artifact.digest} was asked for by the digest of an index")
    assert said.endswith(f"pin that one instead: up/team/plugin@{image.digest}")

"""Repackaging at its edges: other ways to one artifact, upstreams that answer nonsense, tags about the suffix."""

import dataclasses
from pathlib import Path

import pytest

from mirror.answer import Answer, Whole
from mirror.modules import Modules
from mirror.oci import Reference
from tests.integration.test_repackage import MANIFESTS, MODULE, ON, module_of, repackaging
from tests.support.artifacts import cncf, compat, index, publish
from tests.support.faults import Fault


@pytest.mark.parametrize("tags", [("index", "alone"), ("alone", "index")])
async def test_that_another_index_leads_elsewhere_changes_nothing_for_the_artifact_alone(
    tmp_path: Path, tags: tuple[str, str]
) -> None:
    """Agents take the artifact as it is; through an index for other platforms they do not get to it."""
    artifact = compat(MODULE)
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "index", index(artifact, platforms=("wasip1/wasm",)))
        publish(up, "team/plugin", "alone", artifact)
        for tag in (*tags, *tags):
            reply = await mirror.get(f"{MANIFESTS}/{tag}-istio")
            if tag == "index":
                assert await module_of(mirror, reply) == MODULE
            else:
                assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
                assert "agents take that one as it is" in reply.message


async def test_pages_of_html_in_place_of_answers_are_an_outage_like_any(tmp_path: Path) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert (await mirror.get(f"{MANIFESTS}/v1")).status == 200
        for layer in cncf(MODULE).layers:
            await mirror.until_held(layer)
        up.inject(Fault(html=True))
        for _ in range(2):
            reply = await mirror.get(f"{MANIFESTS}/v1-istio")
            assert await module_of(mirror, reply) == MODULE
            assert "fwd=stale" in (reply.header("cache-status") or "")


async def test_of_a_module_that_lost_bytes_no_manifest_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Modules.module

    async def short(self: Modules, reference: Reference) -> Answer:
        answer = await module(self, reference)
        return dataclasses.replace(answer, body=Whole(MODULE[:-1]))

    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        with monkeypatch.context() as patch:
            patch.setattr(Modules, "module", short)
            damaged = await mirror.get(f"{MANIFESTS}/v1-istio")
            assert (damaged.status, damaged.header("retry-after")) == (500, "1")
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE


async def test_the_suffix_is_taken_off_once_and_never_makes_a_tag_of_nothing(tmp_path: Path) -> None:
    settings = {**ON, "wasm": {"repackage": "agents", "repackage_suffix": "_istio"}}
    async with repackaging(tmp_path, settings) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1_istio")) == MODULE
        assert (await mirror.get(f"{MANIFESTS}/v1_istio_istio")).code == "MANIFEST_UNKNOWN"
        assert (await mirror.get(f"{MANIFESTS}/_istio")).code == "MANIFEST_UNKNOWN"
        publish(up, "team/plugin", "v1_istio", cncf(MODULE, extra={"annotations": {"by": "its author"}}))
        again = await mirror.get(f"{MANIFESTS}/v1_istio_istio")
        assert await module_of(mirror, again) == MODULE, "upstream's own tag is an artifact like any"

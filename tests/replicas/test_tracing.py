"""A trace goes on at the replica that is asked, whichever of its workers answers."""

import asyncio
from pathlib import Path

import pytest

from tests.support.artifacts import compat, publish, wasm_module
from tests.support.asking import ask
from tests.support.collector import Collector
from tests.support.replicas import replicated
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ARTIFACT = compat(wasm_module(300_000))
NAME = "/v2/up/team/plugin"


async def test_the_trace_of_a_pull_leads_to_the_replica_that_has_the_blob(tmp_path: Path) -> None:
    ours = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with Collector() as collector:
        settings = {"tracing": {"endpoint": collector.url, "sample": 0}}
        with replicated(tmp_path, n=2, settings=settings) as (up, _, replicas):
            publish(up, "team/plugin", "1", ARTIFACT)
            first, second = (address_of(url) for url in replicas.urls)
            layer = f"{NAME}/blobs/{ARTIFACT.layers[0]}"
            assert (await ask(first, f"{NAME}/manifests/1")).status == 200
            assert (await ask(first, layer)).whole
            await asyncio.to_thread(up.refuse)
            assert (await ask(second, layer, headers=ours)).whole

            def told() -> bool:
                return any(span.name == "GET peer" for span in collector.spans())

            await eventually(told, what="the other replica's span")
        spans = {span.id: span for span in collector.spans()}
    assert {span.trace for span in spans.values()} == {TRACE}
    answered = [span for span in spans.values() if span.name == "GET peer"]
    assert answered
    for span in answered:
        asked = spans[span.parent]
        assert (asked.name, asked.kind) == ("ask replica", "client")
        assert asked.resource["process.pid"] != span.resource["process.pid"]
        assert "url.path" not in span.attributes
    by_fill = [span for span in answered if spans[spans[span.parent].parent].name == "fill"]
    assert by_fill


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)

"""Traces: one from a client's request to the upstream's, nothing secret in it; nobody waits for the collector."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.telemetry import Telemetry
from tests.integration.client import pull
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.collector import Collector, Received
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

ARTIFACT = compat(wasm_module(300_000))
LAYER = ARTIFACT.layers[0]
NAME = "/v2/up/team/plugin"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OURS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "congo=t61rcWkgMzE"}


def to(collector: Collector, **more: object) -> dict[str, object]:
    return {"tracing": {"endpoint": collector.url, **more}}


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


async def test_one_trace_leads_from_the_clients_request_over_the_fill_to_the_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, to(collector)) as mirror:
            assert (await mirror.get(f"{NAME}/manifests/1", OURS)).status == 200
            assert (await mirror.get(f"{NAME}/blobs/{LAYER}", OURS)).whole
            await mirror.get("/peer/v1/blobs/x")  # as a replica that asks by itself: that is no trace
            asked = [request for request in up.requests if f"/blobs/{LAYER}" in request.path]
        spans = collector.spans()  # all that waited was sent as it stopped
    assert set(collector.paths) == {"/v1/traces"}
    assert {span.trace for span in spans} == {TRACE}
    assert {span.resource["service.name"] for span in spans} == {"wasm-mirror"}
    by_id = {span.id: span for span in spans}
    (fill,) = [span for span in named(spans, "fill") if span.attributes["wasm_mirror.digest"] == str(LAYER)]
    (question,) = [span for span in named(spans, "get_blob") if span.parent == fill.id]
    assert (question.kind, question.attributes["server.address"]) == ("client", up.host)
    request = by_id[fill.parent]  # of the manifest: layers are sent for ahead
    assert (request.name, request.kind, request.parent) == ("GET manifests", "server", PARENT)
    (blob,) = named(spans, "GET blobs")
    assert blob.parent == PARENT
    assert fill.attributes["wasm_mirror.result"] == "success"
    assert blob.attributes["url.path"] == f"{NAME}/blobs/{LAYER}"
    assert [one.headers["traceparent"] for one in asked] == [f"00-{TRACE}-{question.id}-01"]
    assert [one.headers["tracestate"] for one in asked] == [OURS["tracestate"]]
    assert not any(span.failed for span in spans)


async def test_a_fill_that_several_join_is_linked_with_each_of_them(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        up.inject(Fault(gate=gate, gate_at=1000), path=f"/blobs/{LAYER}")
        async with running(tmp_path, {"up": up}, to(collector)) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            readers = [asyncio.create_task(mirror.get(f"{NAME}/blobs/{LAYER}")) for _ in range(4)]
            await gate.reached()

            async def all_wait() -> bool:
                return b"wasm_mirror_fill_waiters 4.0" in (await mirror.get("/metrics")).body

            waiting: bool = await eventually(all_wait, what="four wait")
            assert waiting
            gate.release()
            assert all(reply.whole for reply in await asyncio.gather(*readers))
        spans = collector.spans()
    (fill,) = [span for span in named(spans, "fill") if span.attributes["wasm_mirror.digest"] == str(LAYER)]
    requests = named(spans, "GET blobs")
    assert len({span.trace for span in requests} - {fill.trace}) == 4
    assert set(fill.links) == {span.id for span in requests}
    assert {span.links for span in requests} == {(fill.id,)}
    assert len(named(spans, "get_blob")) == len(ARTIFACT.layers)


MALFORMED = [
    "",
    "00",
    f"00-{TRACE}-{PARENT}",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE.upper()}-{PARENT}-01x",
    f"00-{TRACE}-{PARENT}-zz",
    "00-\xff\xfe-x-01",
    "0" * 8000,
]


async def test_a_malformed_traceparent_begins_a_trace_of_its_own(tmp_path: Path) -> None:
    twice = [("traceparent", OURS["traceparent"])] * 2
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, to(collector)) as mirror:
            for headers in ([("traceparent", text), ("tracestate", "a=b")] for text in MALFORMED):
                assert (await mirror.get(f"{NAME}/manifests/1", headers)).status == 200
            assert (await mirror.get(f"{NAME}/manifests/1", twice)).status == 200
        requests = named(collector.spans(), "GET manifests")
    assert len({span.trace for span in requests} - {TRACE}) == len(MALFORMED) + 1
    assert {(span.parent, span.state) for span in requests} == {("", "")}


async def test_no_secret_is_in_a_trace_and_none_goes_where_a_redirect_leads(tmp_path: Path) -> None:
    with FaultyUpstream() as up, FaultyUpstream() as storage, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        publish(storage, "team/plugin", "1", ARTIFACT)
        target = f"{storage.url}/v2/team/plugin/blobs/{LAYER}?X-Signature=querysecret"
        up.inject(Fault(status=307, redirect=target), path=f"/blobs/{LAYER}")
        password = "pass" + "wordsecret"
        known: dict[str, object] = {
            "endpoints": [{"url": up.url, "redirect_hosts": [storage.host]}],
            "credentials": {"username": "robotsecret", "password": password},
        }
        headers = {"authorization": "Basic Y2xpZW50c2VjcmV0Og==", "cookie": "cookiesecret=1", **OURS}
        async with running(tmp_path, {"up": known}, to(collector)) as mirror:
            await mirror.get(f"{NAME}/manifests/1?token=querysecret", headers)
            assert (await mirror.get(f"{NAME}/blobs/{LAYER}?token=querysecret", headers)).whole
            await mirror.ask("POST", f"{NAME}/blobs/uploads/?token=querysecret", headers)
        assert storage.requests
        assert not [one for one in storage.requests if "traceparent" in one.headers]
    sent = b"".join(collector.bodies)
    assert b"manifests" in sent
    for secret in (b"secret", b"Y2xpZW50"):
        assert secret not in sent


async def test_what_fails_is_told(tmp_path: Path) -> None:
    short = {"defaults": {"hold_for": "1s"}}
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, {**to(collector), **short}) as mirror:
            assert (await mirror.get(f"{NAME}/manifests/absent")).status == 404
            up.inject(Fault(status=500))
            assert (await mirror.get(f"{NAME}/manifests/1")).status == 503
        spans = collector.spans()
    absent, failed = named(spans, "GET manifests")
    assert (absent.failed, absent.attributes["http.response.status_code"]) == (False, 404)
    assert (failed.failed, failed.attributes["error.type"]) == (True, "503")
    questions = [span for span in named(spans, "get_manifest") if span.parent == failed.id]
    assert questions
    assert all(span.failed for span in questions)
    assert "UpstreamUnavailable" in {span.attributes["error.type"] for span in questions}


async def test_an_answer_that_is_cut_is_a_failure(tmp_path: Path) -> None:
    artifact, gate = raw(wasm_module(300_000)), Gate()
    layer = artifact.layers[0]
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(tamper_from=-1, gate=gate, gate_at=200_000), path=f"/blobs/{layer}")
        async with running(tmp_path, {"up": up}, to(collector)) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            reading = asyncio.create_task(mirror.get(f"{NAME}/blobs/{layer}"))
            await gate.reached()
            await eventually(lambda: list(mirror.directory.spool.iterdir()), what="bytes")
            gate.release()
            reply = await reading
        spans = collector.spans()
    assert (reply.status, reply.whole) == (200, False)
    (blob,) = named(spans, "GET blobs")
    assert (blob.failed, blob.attributes["error.type"]) == (True, "cut")
    (fill,) = [span for span in named(spans, "fill") if span.attributes["wasm_mirror.digest"] == str(layer)]
    assert (fill.failed, fill.attributes["error.type"]) == (True, "DigestMismatch")


async def test_only_the_part_that_is_sampled_is_sent_and_what_clients_trace(tmp_path: Path) -> None:
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"up": up}, to(collector, sample=0)) as mirror:
            await mirror.get(f"{NAME}/manifests/1")
            await mirror.get("/healthz", OURS)
            await mirror.get("/metrics", OURS)
            await mirror.get(f"{NAME}/manifests/1", OURS)
        spans = collector.spans()
    assert [(span.name, span.trace) for span in spans] == [("GET manifests", TRACE)]


async def test_a_collector_that_hangs_or_is_away_costs_no_request_and_no_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyUpstream() as up, Collector() as collector:
        publish(up, "team/plugin", "1", ARTIFACT)
        collector.holding.set()
        async with running(tmp_path, {"up": up}, to(collector)) as mirror:
            assert (await mirror.get(f"{NAME}/manifests/1", OURS)).status == 200
            await eventually(collector.held.is_set, what="the collector keeps a batch waiting")
            assert (await mirror.get(f"{NAME}/manifests/1", OURS)).status == 200
        assert "the last traces could not be sent" in caplog.text
        away = {"tracing": {"endpoint": "http://127.0.0.1:1"}}
        async with running(tmp_path, {"up": up}, away) as mirror:
            assert (await mirror.get(f"{NAME}/manifests/1", OURS)).status == 200


async def test_what_waits_for_the_collector_is_bounded_and_ending_a_span_waits_for_nobody() -> None:
    with Collector() as collector:
        collector.holding.set()
        telemetry = Telemetry(f"{collector.url}/v1/traces", 1.0)
        for _ in range(600):
            telemetry.begin("GET", {}, {}).end()
        await eventually(collector.held.is_set, what="the collector keeps a batch waiting")
        for _ in range(6000):
            telemetry.begin("GET", {}, {}).end()
        collector.let_go()
        await telemetry.aclose()
        assert 4096 <= len(collector.spans()) <= 4096 + 512


async def test_the_exporter_is_told_of_headers_and_of_itself_by_the_usual_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,service.name=ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with Collector() as collector:
        telemetry = Telemetry(f"{collector.url}/v1/traces", 1.0)
        telemetry.begin("GET", {}, {}).end()
        await telemetry.aclose()
        (span,) = collector.spans()
        assert (span.resource["service.name"], span.resource["deployment.environment"]) == ("ours", "prod")
        assert collector.headers[0]["authorization"] == "Bearer token"


def test_who_sends_no_traces_does_not_load_what_sends_them() -> None:
    program = (
        "import sys, mirror.cli, mirror.server\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('opentelemetry', 'google', 'requests')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_every_worker_sends_its_traces(tmp_path: Path) -> None:
    with (
        FaultyUpstream() as up,
        Collector() as collector,
        MirrorProcess(tmp_path, {"up": up.url}, {"workers": 2, **to(collector)}) as mirror,
    ):
        for number in range(6):
            publish(up, "team/plugin", f"v{number}", compat(wasm_module(2000, number)))
        await asyncio.gather(*(pull(mirror.url, "up/team/plugin", f"v{number % 6}") for number in range(60)))
        await eventually(lambda: len(named(collector.spans(), "GET manifests")) >= 60, what="all requests are told")
        spans = collector.spans()
    assert len(named(spans, "GET manifests")) == 60
    assert len({span.resource["process.pid"] for span in spans}) == 2

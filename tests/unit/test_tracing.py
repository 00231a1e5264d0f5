"""Spans follow the work, and where nothing is traced there are none; settings of traces, and the extra for them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mirror import wiring
from mirror.config import Settings, load
from mirror.errors import StartError, UpstreamDenied
from mirror.tracing import Attributes, Kind, Span, begin, carried, current, inside


class Noted:
    """A span that notes what is said of it."""

    def __init__(self, name: str = "root") -> None:
        self.called = name
        self.failed: tuple[str, str] | None = None
        self.said: dict[str, str | int | bool] = {}
        self.ended = False

    def child(self, name: str, kind: Kind, attributes: Attributes) -> "Noted":
        return Noted(f"{self.called}/{name}")

    def name(self, name: str) -> None:
        self.called = name

    def say(self, attributes: Attributes) -> None:
        self.said.update(attributes)

    def link(self, other: Span) -> None: ...

    def fail(self, kind: str, message: str = "") -> None:
        self.failed = kind, message

    def end(self) -> None:
        self.ended = True

    def carried(self) -> Mapping[str, str]:
        return {"traceparent": self.called}


async def test_a_span_goes_along_with_the_tasks_that_its_work_begins() -> None:
    root = Noted()

    async def work() -> Mapping[str, str]:
        with inside(begin("work", Kind.INTERNAL, {})):
            return carried()

    with inside(root):
        task = asyncio.create_task(work())
    assert root.ended
    assert await task == {"traceparent": "root/work"}
    assert current() is None


def test_where_nothing_is_traced_there_is_no_span() -> None:
    assert begin("work", Kind.CLIENT, {}) is None
    assert carried() == {}
    with inside(None):
        assert current() is None


def test_a_failure_is_told_and_of_others_errors_only_the_kind() -> None:
    ours, theirs = Noted(), Noted()
    with pytest.raises(UpstreamDenied), inside(ours):
        raise UpstreamDenied("it refuses us")
    with pytest.raises(KeyError), inside(theirs):
        raise KeyError("a secret")
    assert (ours.failed, theirs.failed) == (("UpstreamDenied", "it refuses us"), ("KeyError", ""))
    assert ours.ended
    assert theirs.ended


async def test_what_is_abandoned_has_not_failed() -> None:
    span, begun = Noted(), asyncio.Event()

    async def work() -> None:
        with inside(span):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (span.failed, span.said, span.ended) == (None, {"wasm_mirror.abandoned": True}, True)


def settings(**tracing: Any) -> Settings:
    return Settings.model_validate({"upstreams": {"ghcr.io": {}}, "tracing": tracing})


@pytest.mark.parametrize(
    ("given", "sent_to"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("HTTPS://collector/", "https://collector/v1/traces"),
        ("http://[::1]:4318/otlp/v1/traces", "http://[::1]:4318/otlp/v1/traces"),
        (None, None),
    ],
)
def test_a_collector_is_named_by_its_url(given: str | None, sent_to: str | None) -> None:
    assert settings(endpoint=given).tracing.endpoint == sent_to


@pytest.mark.parametrize(
    "wrong",
    [
        *("collector:4318", "grpc://collector:4317", "http://", "http://user@collector", "http://c/?token=x", 1, True),
        *("http://c/a b", "http://c:0x", "http://c/\n"),
    ],
)
def test_what_is_no_url_of_a_collector_is_an_error_that_says_so(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ValueError, match="must"):
        settings(endpoint=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "all", True, None, float("nan")])
def test_a_part_is_a_number_from_0_to_1(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        settings(sample=wrong)


def test_the_environment_turns_traces_on(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("upstreams: {ghcr.io: {}}\n")
    found = load(file, {"WASM_MIRROR_TRACING__ENDPOINT": "http://c:4318", "WASM_MIRROR_TRACING__SAMPLE": "0.1"}, {})
    assert (found.tracing.endpoint, found.tracing.sample) == ("http://c:4318/v1/traces", 0.1)


def test_traces_without_the_extra_are_refused_before_anything_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    wiring.check_extras(settings(endpoint="http://collector:4318"))
    monkeypatch.setattr(wiring, "_OF_TRACING", ("absent.package.module",))
    wiring.check_extras(settings())
    with pytest.raises(StartError, match=r"pip install 'wasm-mirror\[tracing\]'"):
        wiring.check_extras(settings(endpoint="http://collector:4318"))

"""What an answer says about the mirror's own state, and what it never says: how the mirror is made."""

import asyncio
import json
import logging

import pytest
from starlette.types import ASGIApp

from mirror.edge.app import App
from mirror.edge.respond import Cut
from tests.edge.asgi import Fixed, asked

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]}
PART = {"type": "http.response.body", "body": b"half", "more_body": True}
REST = {"type": "http.response.body", "body": b" done", "more_body": False}


def app(registry: ASGIApp, *, draining: bool = False, log_access: bool = False) -> App:
    return App({"/v2": registry}, lambda: draining, log_access=log_access)


async def test_a_failure_of_the_mirror_is_an_error_body_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    failure = RuntimeError("/var/lib/mirror/metadata.sqlite: password=hunter2")
    sent = await asked(app(Fixed(then=failure)), "/v2/x/tags/list")
    assert sent.status == 500
    assert sent.headers["content-type"] == "application/json"
    (error,) = json.loads(sent.body)["errors"]
    assert error == {"code": "UNKNOWN", "message": "the mirror failed; its log says why"}
    assert caplog.records[-1].exc_info is not None


async def test_a_failure_after_the_status_line_leaves_the_body_unfinished(caplog: pytest.LogCaptureFixture) -> None:
    sent = await asked(app(Fixed(START, PART, then=RuntimeError("boom"))), "/v2/x/blobs/y")
    assert (sent.status, sent.body, sent.finished) == (200, b"half", False)
    assert "failed" in caplog.text


async def test_a_cut_leaves_the_body_unfinished_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    sent = await asked(app(Fixed(START, PART, then=Cut())), "/v2/x/blobs/y")
    assert (sent.body, sent.finished) == (b"half", False)
    assert not caplog.records


async def test_while_it_drains_each_answer_closes_its_connection() -> None:
    registry = Fixed(START, PART, REST)
    sent = await asked(app(registry, draining=True), "/v2/")
    assert (sent.headers["connection"], sent.body, sent.finished) == ("close", b"half done", True)
    assert "connection" not in (await asked(app(registry), "/v2/")).headers


async def test_ready_says_whether_it_stops_and_alive_stays() -> None:
    for draining, status in ((False, 200), (True, 503)):
        one = app(Fixed(), draining=draining)
        assert (await asked(one, "/readyz")).status == status
        assert (await asked(one, "/readyz", "HEAD")).status == status
        assert (await asked(one, "/healthz")).status == 200


async def test_it_is_ready_once_it_knows_what_it_has_to_know_and_is_asked_by_others_before() -> None:
    known: list[bool] = []
    one = App({"/peer/": Fixed(START, PART, REST)}, lambda: False, log_access=False, begun=lambda: bool(known))
    assert (await asked(one, "/readyz")).status == 503
    for path in ("/healthz", "/peer/v1/x"):
        beginning = await asked(one, path)
        assert (beginning.status, "connection" in beginning.headers) == (200, False)
    known.append(True)
    assert (await asked(one, "/readyz")).status == 200


@pytest.mark.parametrize("path", ["/", "/v1/", "/v", "/metrics/../v2", "/index.html", "*", "/healthz/x", "/V2/"])
async def test_other_addresses_are_not_there(path: str) -> None:
    sent = await asked(app(Fixed(START, REST)), path)
    assert sent.status == 404
    (error,) = json.loads(sent.body)["errors"]
    assert "/v2/" in error["message"]


async def test_requests_are_logged_on_demand_without_their_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await asked(app(Fixed(START, REST)), "/v2/x")
    assert not caplog.records
    await asked(app(Fixed(START, REST), log_access=True), "/v2/x")
    (record,) = caplog.records
    assert record.getMessage().startswith("192.0.2.7 GET /v2/x 200 0.0")
    assert "secret" not in caplog.text


async def test_a_request_that_is_stopped_because_the_time_is_over_is_told_to_ask_again() -> None:
    sent = await asked(app(Fixed(then=asyncio.CancelledError())), "/v2/x/blobs/y")
    assert (sent.status, sent.headers["retry-after"]) == (503, "1")
    (error,) = json.loads(sent.body)["errors"]
    assert error["code"] == "UPSTREAM_UNAVAILABLE"


async def test_a_request_that_is_stopped_in_the_middle_of_its_body_is_cut() -> None:
    sent = await asked(app(Fixed(START, PART, then=asyncio.CancelledError())), "/v2/x/blobs/y")
    assert sent.messages == [START, PART]


async def test_other_replicas_are_answered_at_their_own_addresses_and_only_where_there_are_any() -> None:
    among_others = App({"/v2": Fixed(), "/peer/": Fixed(START, REST)}, lambda: False, log_access=False)
    assert (await asked(among_others, "/peer/v1/blobs/x")).status == 200
    assert (await asked(among_others, "/peerless")).status == 404
    assert (await asked(app(Fixed()), "/peer/v1/blobs/x")).status == 404

"""What every operation of the admin API can rely on: its request is what its models say, or has one clear error."""

import asyncio
import json
import logging
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.edge.api.asked import MAX_BODY
from mirror.edge.api.operation import Call
from mirror.edge.api.results import MOST
from mirror.edge.respond import Cut
from mirror.errors import UpstreamUnavailable
from mirror.names import Names
from tests.edge.api.stand import HERE, JSON, SETTINGS, Stand, fault
from tests.edge.asgi import Sent, nothing_more
from tests.support.waiting import eventually

GOOD = b'{"references": ["a", "b"], "pin": true}'


async def test_an_operation_gets_its_path_its_query_and_its_body() -> None:
    one = Stand()
    said = json.loads((await one.ask("GET", "things/4")).body)
    assert said == {"path": {"thing": "4"}, "who": "who is on loopback, at 127.0.0.1", "query": None, "body": None}
    query = "limit=5&pinned=1&reference=a&reference=b%2Fc&as=d"
    said = json.loads((await one.ask("GET", "things", query=query)).body)
    assert said["query"] == {"limit": 5, "pinned": True, "sort": "size", "reference": ["a", "b/c"], "as_": "d"}
    sent = await one.ask("POST", "things", GOOD, headers=JSON)
    assert (sent.status, sent.headers["location"]) == (202, "/api/v1/things/1")
    assert json.loads(sent.body)["body"] == {"references": ["a", "b"], "pin": True, "parallel": 8}


async def test_a_body_may_come_in_pieces_and_its_type_with_a_charset() -> None:
    headers = {**HERE, "content-type": "Application/JSON; charset=utf-8"}
    sent = await Stand().ask("POST", "things", [GOOD[:7], GOOD[7:]], headers=headers)
    assert sent.status == 202


async def test_what_is_written_out_comes_before_what_a_parameter_might_mean() -> None:
    assert json.loads((await Stand().ask("GET", "things/special")).body)["path"] == {}


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("limits=5", "limits", "did you mean limit?"),
        ("other=5", "other", "known are limit, pinned, sort, reference, as"),
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("limit=1e400", "limit", "valid integer"),
        ("limit=" + "9" * 5000, "limit", "limit:"),
        ("limit=%00", "limit", "valid integer"),
        ("limit=", "limit", "valid integer"),
        ("pinned=perhaps", "pinned", "valid boolean"),
        ("sort=name", "sort", "pattern"),
        ("limit=1&limit=2", None, "'limit' stands 2 times"),
        ("as_=x", "as_", "'as_' is unknown"),
        ("%ff=1", None, "percent-encoded UTF-8"),
        ("limit=%ff", None, "percent-encoded UTF-8"),
        ("reference=a&" * 10_001, None, "more than 10000 parameters"),
        ("a" * (1 << 20) + "=1", None, "the query has"),
        ("\x1b[2J=1", "\\x1b[2J", "is unknown"),
    ],
)
async def test_a_query_that_is_wrong_has_one_error_that_names_the_field(
    query: str, field: str | None, words: str
) -> None:
    one = Stand()
    sent = await one.ask("GET", "things", query=query)
    assert (sent.status, one.calls) == (400, [])
    error = fault(sent)
    assert error["code"] == "REQUEST_INVALID"
    assert words in error["message"]
    assert len(sent.body) < 1000
    assert error["message"].isprintable()
    if field is not None:
        assert [told["field"] for told in error["detail"]] == [field]


@pytest.mark.parametrize("query", ["a=1", "a", "%00=%00", "=1"])
async def test_an_operation_without_a_query_takes_none(query: str) -> None:
    sent = await Stand().ask("GET", "things/4", query=query)
    assert (sent.status, fault(sent)["code"]) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is no JSON"),
        (b"", "the body is no JSON"),
        (b"\xff\xfe{}", "the body is no JSON"),
        (b'{"references": ["\\ud800"]}', "the body is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "the body is no JSON"),
        (b'{"references":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the body is no JSON"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "the body is no JSON"),
        (b"[]", "the body must be a JSON object"),
        (b"null", "the body must be a JSON object"),
        (b"{}", "references is missing in the body"),
        (b'{"references": "a"}', "references: "),
        (b'{"references": []}', "references: "),
        (b'{"references": ["a", "b", "c", "d"]}', "references: "),
        (b'{"references": [1]}', "references[0]: "),
        (b'{"references": [null, "a", {}]}', "references[2]: "),
        (b'{"references": ["a"], "pin": "yes"}', "pin: "),
        (b'{"references": ["a"], "parallel": "8"}', "parallel: "),
        (b'{"references": ["a"], "parallel": 8.5}', "parallel: "),
        (b'{"references": ["a"], "parallel": 1e999}', "parallel: "),
        (b'{"references": ["a"], "parallel": ' + b"9" * 10_000 + b"}", "the body is no JSON"),
        (b'{"references": ["a"], "parallel": NaN}', "parallel: "),
        (b'{"references": ["a"], "pins": true}', "'pins' is unknown in the body; did you mean pin?"),
        (b'{"refs": [], "parallel": 0}', "references is missing in the body; parallel: "),
        (b'{"references": ["a"], "' + b"x" * 500_000 + b'": 1}', "is unknown in the body"),
        (b'{"references": ["a"], ' + b",".join(b'"a%d": 1' % n for n in range(10_000)) + b"}", "and 9980 more"),
    ],
)
async def test_a_body_that_is_wrong_has_one_error_that_names_the_fields(body: bytes, words: str) -> None:
    one = Stand()
    sent = await one.ask("POST", "things", body, headers=JSON)
    assert (sent.status, one.calls) == (400, [])
    error = fault(sent)
    assert error["code"] == "REQUEST_INVALID"
    assert words in error["message"]
    assert len(sent.body) < 8000
    assert error["message"].isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["references", "pin", "x\n"]), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50), st.text(max_size=20))
def test_whatever_is_sent_is_taken_or_has_one_error(body: bytes, query: str) -> None:
    one = Stand()
    for sent in (
        asyncio.run(one.ask("POST", "things", body, headers=JSON)),
        asyncio.run(one.ask("GET", "things", query=quote(query, safe="=&"))),
    ):
        assert sent.status in (200, 202) or (sent.status, fault(sent)["code"]) == (400, "REQUEST_INVALID")
        assert sent.status < 400 or fault(sent)["message"].isprintable()


async def test_a_body_of_more_than_a_mebibyte_is_refused_unread() -> None:
    one = Stand()
    for body in (b" " * (MAX_BODY + 1), [b" " * (1 << 16)] * 17):
        sent = await one.ask("POST", "things", body, headers=JSON)
        assert (sent.status, fault(sent)["code"]) == (413, "SIZE_INVALID")
    announced = await one.ask("POST", "things", headers={**JSON, "content-length": "9" * 18})
    assert announced.status == 413
    for wrong in ("9" * 19, "-1", "1, 2", "a"):
        sent = await one.ask("POST", "things", headers={**JSON, "content-length": wrong})
        assert (sent.status, fault(sent)["code"]) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("things", None),
        ("things", ""),
        ("things", "text/plain"),
        ("things", "application/x-www-form-urlencoded"),
        ("things", "multipart/form-data; boundary=x"),
        ("things", "application/jsonp"),
        ("things", "text/plain; application/json"),
        ("raw", "application/json"),
        ("chore", "text/plain"),
        ("chore", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_of_another_kind_is_refused(path: str, given: str | None) -> None:
    one = Stand()
    headers = dict(HERE) if given is None else {**HERE, "content-type": given}
    sent = await one.ask("POST", path, GOOD if path != "chore" else b"", headers=headers)
    assert (sent.status, fault(sent)["code"], one.calls) == (415, "REQUEST_INVALID", [])


async def test_an_operation_without_a_body_takes_none() -> None:
    one = Stand()
    sent = await one.ask("POST", "chore", GOOD, headers=JSON)
    assert (sent.status, one.calls) == (415, [])
    assert (await one.ask("POST", "chore")).status == 200


async def test_an_operation_may_read_its_body_itself() -> None:
    one = Stand()
    headers = {**HERE, "content-type": "application/x-tar"}
    sent = await one.ask("POST", "raw", [b"a" * 70_000, b"b" * (2 * MAX_BODY), b"c"], headers=headers)
    assert sent.status == 200
    assert len(one.taken) == 70_001 + 2 * MAX_BODY


async def test_a_client_that_leaves_in_the_middle_of_its_body_has_not_asked() -> None:
    one = Stand()
    with pytest.raises(Cut):
        await one.ask("POST", "things", headers={**JSON, "content-length": "10"}, stays=False, body=[])
    assert one.calls == []


async def test_ten_thousand_references_are_taken_in_one_call_and_one_more_is_not() -> None:
    one = Stand()
    texts = [f"ghcr.io/a/b:{number}" for number in range(MOST)]
    sent = await one.ask("POST", "each", json.dumps({"references": texts}).encode(), headers=JSON)
    assert [result["reference"] for result in json.loads(sent.body)["results"]] == texts
    more = json.dumps({"references": [*texts, "ghcr.io/a/b:1"]}).encode()
    sent = await one.ask("POST", "each", more, headers=JSON)
    assert sent.status == 400
    assert "10000" in fault(sent)["message"]


async def test_no_reference_stops_at_a_bad_one() -> None:
    texts = [
        "oci://wasm.mesh/ghcr.io/a/b",
        "ghcr.io/../../etc/passwd:1",
        "ghcr.io/a/b:slow",
        "other.example/a:1",
        "ghcr.io/a\0b:1",
        "",
        "ghcr.io/a/b@sha256:" + "0" * 64,
    ]
    sent = await Stand().ask("POST", "each", json.dumps({"references": texts}).encode(), headers=JSON)
    results = json.loads(sent.body)["results"]
    assert [(result["reference"], result["result"]) for result in results] == [
        (texts[0], "done"),
        (texts[1], "invalid"),
        (texts[2], "failed"),
        (texts[3], "invalid"),
        (texts[4], "invalid"),
        (texts[5], "invalid"),
        (texts[6], "done"),
    ]
    assert results[0]["digest"] == "ghcr.io/a/b:latest"
    assert results[2]["why"] == "it takes too long"
    assert "upstreams" in results[3]["why"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "", 404, None),
        ("GET", "nothing", 404, None),
        ("POST", "things/4/5", 404, None),
        ("GET", "things/", 404, None),
        ("DELETE", "by/", 404, None),
        ("GET", "../v2/", 404, None),
        ("DELETE", "things", 405, "GET, HEAD, POST"),
        ("POST", "things/4", 405, "GET, HEAD, DELETE"),
        ("OPTIONS", "things", 405, "GET, HEAD, POST"),
        ("get", "things", 405, "GET, HEAD, POST"),
        ("HEAD", "chore", 405, "POST"),
        ("GET", "by/a", 405, "DELETE"),
        ("POST", "things/special", 405, "GET, HEAD"),
    ],
)
async def test_an_address_or_a_method_that_is_not_there(method: str, path: str, status: int, allow: str | None) -> None:
    sent = await Stand().ask(method, path)
    assert (sent.status, sent.headers.get("allow")) == (status, allow)
    if method != "HEAD":
        assert "/api/v1/things" in fault(sent)["message"] or "/api/v1/" in fault(sent)["message"]


async def test_what_is_not_there_is_told_with_what_is() -> None:
    message = fault(await Stand().ask("GET", "nothing"))["message"]
    assert "/api/v1/things, /api/v1/things/special, /api/v1/things/{thing}" in message
    assert "/api/v1/openapi.json" in message


@pytest.mark.parametrize("path", ["by/a/../b", "by//", "by/\0", "by/a\nb", "by/" + "a" * 100_000, "by/%2e%2e"])
async def test_the_rest_of_a_path_is_what_it_is(path: str) -> None:
    sent = await Stand().ask("DELETE", path)
    assert json.loads(sent.body)["path"] == {"reference": path.removeprefix("by/")}


async def test_head_is_a_get_without_a_body() -> None:
    one = Stand()
    got, head = await one.ask("GET", "things/4"), await one.ask("HEAD", "things/4")
    assert (head.status, head.body, head.headers) == (200, b"", got.headers)
    wrong = await one.ask("HEAD", "things", query="limit=0")
    assert (wrong.status, wrong.body) == (400, b"")
    streamed = await one.ask("HEAD", "archive")
    assert (streamed.status, streamed.body, streamed.headers["content-type"]) == (200, b"", "application/x-tar")


async def test_every_answer_is_kept_by_nobody_and_taken_for_nothing_else() -> None:
    one = Stand()
    one.told.put_nowait(None)
    answers: list[Sent] = [
        await one.ask("GET", "things/4"),
        await one.ask("GET", "things/absent"),
        await one.ask("GET", "nothing"),
        await one.ask("PUT", "things"),
        await one.ask("POST", "things", b"{", headers=JSON),
        await one.ask("GET", "broken"),
        await one.ask("GET", "archive", stays=True),
        await one.ask("GET", "openapi.json"),
        await one.ask("GET", "things", headers={"host": "other.example"}),
    ]
    assert sorted({sent.status for sent in answers}) == [200, 400, 401, 404, 405, 500]
    for sent in answers:
        assert sent.headers["cache-control"] == "no-store"
        assert sent.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in sent.headers


async def test_an_error_of_the_mirrors_own_says_nothing_of_it_but_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sent = await Stand().ask("GET", "broken")
    assert (sent.status, fault(sent)["code"]) == (500, "UNKNOWN")
    assert b"secret" not in sent.body
    assert "a secret of the mirror's own" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "things", GOOD, 202),
        ("POST", "things", b"{}", 400),
        ("DELETE", "things/absent", b"", 404),
        ("DELETE", "by/a\n\x1b[2Jb", b"", 200),
    ],
)
async def test_every_change_is_logged_with_who_and_what(
    caplog: pytest.LogCaptureFixture, method: str, path: str, body: bytes, status: int
) -> None:
    caplog.set_level(logging.INFO)
    await Stand().ask(method, path, body, headers=JSON if body else HERE)
    (record,) = (record for record in caplog.records if record.name == "mirror.edge.api.admin")
    note = "" if status == 400 else "; it was a test"
    assert record.getMessage() == f"{method} {f'/api/v1/{path}'!r} by who is on loopback, at 127.0.0.1: {status}{note}"
    assert record.getMessage().isprintable()


def test_a_note_is_one_line_of_bounded_length() -> None:
    call = Call({"type": "http", "headers": []}, nothing_more, Names(SETTINGS), {}, "somebody")
    call.note("pinned a\nb\x1b[2J")
    call.note("x" * 1_000_000)
    assert all(note.isprintable() and len(note) < 2100 for note in call.notes)


async def test_when_the_time_to_finish_is_over_a_request_is_told_so() -> None:
    one = Stand()
    asking = asyncio.create_task(one.ask("POST", "wait"))
    await eventually(lambda: one.calls)
    asking.cancel()
    sent = await asking
    assert (sent.status, fault(sent)["code"], sent.headers["cache-control"]) == (
        503,
        "UPSTREAM_UNAVAILABLE",
        "no-store",
    )


async def test_what_is_only_read_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = Stand()
    await one.ask("GET", "things/4")
    await one.ask("HEAD", "things/absent")
    assert [record for record in caplog.records if record.name == "mirror.edge.api.admin"] == []


async def test_a_stream_is_sent_as_it_comes() -> None:
    one = Stand()
    asking = asyncio.create_task(one.ask("GET", "events", stays=True))
    for piece in (b"a", b"b", None):
        one.told.put_nowait(piece)
    sent = await asking
    assert (sent.headers["content-type"], sent.headers["x-more"]) == ("text/event-stream", "1")
    assert [message.get("body") for message in sent.messages[1:]] == [b"a", b"b", None]
    assert sent.finished


@pytest.mark.parametrize("path", ["events", "archive"])
async def test_a_stream_ends_when_its_client_leaves(path: str) -> None:
    one = Stand()
    sent = await one.ask("GET", path)
    assert sent.status == 200
    assert one.closed or not one.told.qsize()


async def test_events_end_when_the_mirror_is_about_to_stop_and_an_archive_goes_on() -> None:
    one = Stand()
    events = asyncio.create_task(one.ask("GET", "events", stays=True))
    archive = asyncio.create_task(Stand.ask(other := Stand(), "GET", "archive", stays=True))
    one.stops = other.stops = True
    assert (await events).finished
    assert not archive.done()
    other.told.put_nowait(None)
    assert (await archive).finished


async def test_a_stream_that_breaks_is_cut() -> None:
    one = Stand()
    one.told.put_nowait(UpstreamUnavailable("it is gone"))
    with pytest.raises(Cut):
        await one.ask("GET", "archive", stays=True)
    await eventually(lambda: one.closed)


PAGES: list[tuple[Mapping[str, str], int]] = [
    ({}, 200),
    ({"origin": "http://127.0.0.1:8080"}, 200),
    ({"sec-fetch-site": "same-origin"}, 200),
    ({"sec-fetch-site": "none"}, 200),
    ({"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}, 200),
    ({"origin": "http://127.0.0.1:3000"}, 403),
    ({"origin": "http://localhost:8080"}, 403),
    ({"origin": "https://attacker.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": ""}, 403),
    ({"origin": "http://127.0.0.1:8080, https://attacker.example"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"sec-fetch-site": ""}, 403),
    ({"origin": "http://127.0.0.1:8080", "sec-fetch-site": "cross-site"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), PAGES)
async def test_no_web_page_of_another_site_can_use_the_api_of_a_mirror_without_a_token(
    headers: Mapping[str, str], status: int
) -> None:
    one = Stand()
    for method, path in (("POST", "chore"), ("DELETE", "things/4"), ("GET", "things")):
        sent = await one.ask(method, path, headers={**HERE, **headers})
        assert sent.status == status, method
        if status == 403:
            assert fault(sent)["code"] == "DENIED"
            assert "admin.token_file" in fault(sent)["message"]
    assert bool(one.calls) == (status == 200)

"""Single fields of an answer, in every form in which they come."""

import time
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.digest import Digest
from mirror.upstream import answers

DATE = "Tue, 01 Sep 2026 12:00:00 GMT"
DIGEST = Digest.of(b"x")


def answer(**headers: str) -> httpx.Response:
    return httpx.Response(200, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": " 0 "}, 0),
        ({"retry_after": "999999999"}, 86400),
        ({"retry_after": "Tue, 01 Sep 2026 12:01:30 GMT", "date": DATE}, 90),
        ({"retry_after": "Tue, 01 Sep 2026 11:00:00 GMT", "date": DATE}, 0),
        ({"retry_after": "Fri, 01 Jan 2100 00:00:00 GMT", "date": DATE}, 86400),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1e9"}, None),
        ({"retry_after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(fields: dict[str, str], seconds: float | None) -> None:
    assert answers.retry_after(answer(**fields)) == seconds


def test_a_date_counts_by_our_clock_where_the_sender_tells_no_time() -> None:
    found = answers.retry_after(answer(retry_after=formatdate(time.time() + 100, usegmt=True)))
    assert found == pytest.approx(100, abs=5)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("bytes 5-9/100", (5, 100)),
        ("bytes 5-9/*", (5, None)),
        ("bytes 9-5/100", None),
        ("bytes */100", None),
        ("items 5-9/100", None),
        ("bytes 5-9", None),
        ("bytes -5-9/100", None),
        ("", None),
    ],
)
def test_a_content_range_tells_where_a_part_lies(field: str, expected: tuple[int, int | None] | None) -> None:
    assert answers.content_range(answer(content_range=field)) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [(str(DIGEST), DIGEST), ("sha256:abc", None), ("blake3:" + "0" * 64, None), ("", None)],
)
def test_a_digest_that_we_do_not_know_is_none(field: str, expected: Digest | None) -> None:
    assert answers.digest(answer(docker_content_digest=field)) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "last=b&n=2"),
        ("<https://other.example/?last=b>; rel=next", "last=b"),
        ('<?x=1>; title="y"; REL="Next"', "x=1"),
        ('</a?x=1>; rel="prev", </b?x=2>; rel="next"', "x=2"),
        ("</a?x=1#fragment>; rel=next", "x=1"),
        ("</a>; rel=next", None),
        ("</a?x=1>; rel=prev", None),
        ("nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_only_the_query_of_the_next_page_is_taken(field: str | None, expected: str | None) -> None:
    assert answers.next_query(field) == expected


def test_a_link_field_made_to_be_slow_is_read_quickly() -> None:
    for field in ("<a>" * 100_000, "<a>" + ";" * 100_000, "<" * 100_000, "<a>; " * 100_000):
        began = time.process_time()
        assert answers.next_query(field) is None
        assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'{"errors":[{"code":"DENIED"},{"code":"NAME_UNKNOWN","message":"x"}]}', ["DENIED", "NAME_UNKNOWN"]),
        (b'{"errors":[{"code":"a secret"}]}', []),
        (b'{"errors":[{"code":5}]}', []),
        (b'{"errors":"DENIED"}', []),
        (b'{"errors":[[]]}', []),
        (b'{"details":"x"}', []),
        (b"<html>", []),
        (b"", []),
        (b"[" * 100_000, []),
    ],
)
def test_of_an_error_body_the_codes_are_taken(body: bytes, codes: list[str]) -> None:
    assert answers.error_codes(body) == codes


@given(st.binary(max_size=200))
def test_no_error_body_makes_it_fail(body: bytes) -> None:
    assert isinstance(answers.error_codes(body), list)

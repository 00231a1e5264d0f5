"""One range gives its bytes and no others, whatever a client writes; entity tags match where they should only."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.edge.ranges import Span, matches, parse_range, range_stands
from mirror.errors import RangeInvalid

unhurried = settings(deadline=None)

sizes = st.integers(0, 40)
positions = st.integers(0, 60)
TAG = '"sha256:0123"'


def served(header: str, content: bytes) -> bytes | None:
    """The bytes that ``header`` asks of ``content``; None where it cannot be satisfied."""
    try:
        span = parse_range(header, len(content))
    except RangeInvalid:
        return None
    assert span is not None
    assert 0 <= span.start < span.end <= span.size == len(content)
    assert span.content_range() == f"bytes {span.start}-{span.end - 1}/{len(content)}"
    return content[span.start : span.end]


@unhurried
@given(sizes, positions, positions)
def test_from_first_to_last(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    expected = content[first : last + 1] or None
    assert served(f"bytes={first}-{last}", content) == expected


@unhurried
@given(sizes, positions)
def test_from_first_on(size: int, first: int) -> None:
    content = bytes(range(size))
    assert served(f"bytes={first}-", content) == (content[first:] or None)


@unhurried
@given(sizes, positions)
def test_the_last_ones(size: int, length: int) -> None:
    content = bytes(range(size))
    assert served(f"bytes=-{length}", content) == (content[-length:] if length and content else None)


@unhurried
@given(st.text(st.sampled_from("bytes=0123456789-, \t"), max_size=30) | st.text(max_size=30), sizes)
@example("bytes=-", 5)
@example("bytes=" + "9" * 5000 + "-", 5)
@example("bytes=0-" + "9" * 5000, 5)
@example("bytes=\u0661-\u0662", 5)
def test_any_header_gives_bytes_that_are_there_or_the_whole_or_416(header: str, size: int) -> None:
    try:
        span = parse_range(header, size)
    except RangeInvalid:
        return
    assert span is None or 0 <= span.start < span.end <= span.size == size


@pytest.mark.parametrize(
    "header", ["bytes=0-0,2-3", "bytes=0-,0-,0-", "bytes=,", "bytes=0-1,", "bytes=junk,1-2", "BYTES=1-2,3-4"]
)
def test_more_than_one_range_gives_the_whole(header: str) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize("header", [None, "items=0-1", "seconds=1-2", "=0-1"])
def test_no_range_or_one_in_another_unit_gives_the_whole(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    "header",
    ["bytes", "0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2-3", "bytes=--1", "bytes=+1-2",
     "bytes=1.0-2", "bytes=0x1-2", "bytes=3-2", "bytes=-0", "bytes=10-", "bytes=10-20", "bytes=1 - 2",
     "bytes=99999999999999999999-"],
)  # fmt: skip
def test_what_is_malformed_or_outside_is_refused(header: str) -> None:
    with pytest.raises(RangeInvalid) as caught:
        parse_range(header, 10)
    assert (caught.value.status, caught.value.size) == (416, 10)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-9223372036854775807", Span(0, 10, 10)),
        ("bytes=2-18446744073709551615", Span(2, 10, 10)),
        ("bytes=-18446744073709551615", Span(0, 10, 10)),
        ("bytes=00000000000000000000000000003-4", Span(3, 5, 10)),
        ("Bytes= 3-4 ", Span(3, 5, 10)),
    ],
)
def test_numbers_may_be_larger_than_any_content(header: str, span: Span) -> None:
    assert parse_range(header, 10) == span


@pytest.mark.parametrize(
    "header", [TAG, f"W/{TAG}", f'"other", {TAG}', f' "other" ,W/{TAG} ', "*", " * "]
)  # fmt: skip
def test_if_none_match_compares_weakly(header: str) -> None:
    assert matches(header, TAG)


@pytest.mark.parametrize("header", [None, "", '"other"', "sha256:0123", '"sha256:01234"', f'{TAG}x, "*"', "w/" + TAG])
def test_if_none_match_matches_nothing_else(header: str | None) -> None:
    assert not matches(header, TAG)


def test_if_range_compares_strongly() -> None:
    assert range_stands(None, TAG)
    assert range_stands(f" {TAG} ", TAG)
    for other in (f"W/{TAG}", '"other"', "Wed, 21 Oct 2015 07:28:00 GMT", "*", ""):
        assert not range_stands(other, TAG)

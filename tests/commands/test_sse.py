"""Server-sent events, however their bytes are cut."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.commands.sse import MAX_EVENT, Event, events
from mirror.errors import CommandError

STREAM = (
    b": a comment\n\nretry: 1000\n\nevent: result\nid: 1\ndata: {\ndata: }\n\ndata:no blank\n\nevent: none\n\n"
    b"id: 2\nevent: end\r\ndata: \xc3\xa4\r\n\r\nunknown: x\ndata\n\nid: 3\ndata: cut"
)
TOLD = [
    Event("result", "{\n}", "1"),
    Event("message", "no blank", "1"),
    Event("end", "ä", "2"),
    Event("message", "", "2"),
]


def test_a_stream_is_its_events_and_an_id_stays_until_there_is_another() -> None:
    assert list(events([STREAM])) == TOLD


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    assert list(events(STREAM[a:b] for a, b in itertools.pairwise(places))) == TOLD


def test_an_event_is_given_out_before_the_stream_goes_on() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        raise AssertionError("it is read before it has to be")

    assert next(events(pieces())).data == "1"


@pytest.mark.parametrize("endless", [b"data: " + b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"])
def test_an_event_without_end_is_not_read(endless: bytes) -> None:
    pieces = (endless if not number or endless.endswith(b"\n") else endless[6:] for number in range(MAX_EVENT))
    with pytest.raises(CommandError, match=r"an event of more than 1,048,576 bytes"):
        list(events(pieces))

"""A window of bytes in memory."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.store.overflow import Overflow

PIECES = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), max_size=30)


def test_bytes_are_read_up_to_the_end_of_their_chunk() -> None:
    overflow = Overflow(100)
    overflow.append(b"abc")
    overflow.append(b"defg")
    assert (overflow.start, overflow.end) == (100, 107)
    assert overflow.read(100, 107) == b"abc"
    assert overflow.read(101, 102) == b"b"
    assert overflow.read(103, 200) == b"defg"
    assert overflow.read(106, 107) == b"g"


def test_what_is_let_go_of_is_exactly_what_was_said() -> None:
    overflow = Overflow(0)
    for _ in range(4):
        overflow.append(b"abcdef")
    overflow.forget(8)
    assert (overflow.start, overflow.end) == (8, 24)
    assert overflow.read(8, 24) == b"cdef"
    assert len(overflow._chunks) == 3
    overflow.forget(3)
    assert overflow.start == 8
    overflow.forget(1000)
    assert (overflow.start, overflow.end) == (24, 24)
    assert not overflow._chunks
    overflow.append(b"x")
    assert overflow.read(24, 25) == b"x"


@given(st.integers(0, 50), PIECES)
def test_what_is_there_is_what_was_added_whatever_was_let_go_of(start: int, pieces: list[tuple[int, int]]) -> None:
    overflow, content, kept_from = Overflow(start), bytes(start), start
    for size, before in pieces:
        chunk = bytes((len(content) + number) % 251 for number in range(size))
        overflow.append(chunk)
        content += chunk
        overflow.forget(before)
        kept_from = max(kept_from, min(before, len(content)))
        assert (overflow.start, overflow.end) == (kept_from, len(content))
        assert sum(map(len, overflow._chunks)) <= overflow.end - overflow.start + 20
        read = b""
        while kept_from + len(read) < len(content):
            part = overflow.read(kept_from + len(read), len(content))
            assert part
            read += part
        assert read == content[kept_from:]

"""Whatever somebody pushes: a sentence or a right answer, in little time and little memory."""

import gzip
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.wasm.archive import ArchiveError, modules_in
from tests.wasm.archives import BLOCK, END, MODULE, entry, header, long_name, mutated, record, stored, zipped
from tests.wasm.listings import ours
from tests.wasm.memory import little_memory

MUTATIONS = 6_000
MEMORY = 32 << 20
"""Bytes that reading takes at most, of the 64 MiB that it may."""


def fast(tar: bytes) -> bytes:
    return gzip.compress(tar, 1, mtime=0)


def named(archive: bytes, length: int) -> bytes:
    """The same gzip stream with a name of so many bytes in its header."""
    return archive[:3] + b"\x08" + archive[4:10] + b"n" * length + b"\0" + archive[10:]


def test_thousands_of_faulty_archives_give_a_sentence_or_what_is_in_them() -> None:
    """`ours` takes out all that was found; an exception that is no `ArchiveError` would come through."""
    broken = found = 0
    with little_memory(MEMORY):
        for seed in range(MUTATIONS):
            mine = ours(mutated(seed))
            found += bool(mine.told)
            if mine.error is not None:
                broken += 1
                assert mine.error.startswith("the archive cannot be read: "), seed
                assert "\n" not in mine.error
                assert len(mine.error) < 200
    assert broken > MUTATIONS / 3
    assert found > MUTATIONS / 5


def test_mutations_are_the_same_for_each_seed_and_all_of_them_others() -> None:
    some = [mutated(seed) for seed in range(500)]
    assert some == [mutated(seed) for seed in range(500)]
    assert len(set(some)) > 450


@given(st.binary(max_size=600))
@example(b"")
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_sentence_or_nothing(content: bytes) -> None:
    for archive in (
        content,
        zipped(content),
        zipped(entry(content[:100], content, content[-1:] or b"0"))[: -len(content) or None],
    ):
        mine = ours(archive)
        assert mine.error is None or mine.error.startswith("the archive cannot be read: ")


@given(
    st.lists(st.tuples(st.sampled_from(b"01256xgLKS\0"), st.binary(max_size=40), st.binary(max_size=30)), max_size=8)
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_entries_gives_a_sentence_or_files(entries: list[tuple[int, bytes, bytes]]) -> None:
    tar = b"".join(entry(b"x" + name, content, bytes([kind])) for kind, name, content in entries)
    mine = ours(zipped(tar + entry(b"plugin.wasm", MODULE) + END))
    assert mine.error is not None or mine.told


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb": (lambda: fast(entry(b"plugin.wasm", bytes(80 << 20))), "more than 200 times its size"),
    "a bomb in many members": (lambda: fast(entry(b"x", bytes(1 << 20))) * 300, "more than 200 times its size"),
    "a bomb in a bomb": (lambda: fast(fast(bytes(50 << 20))), "no tar archive|damaged"),
    "members with names": (lambda: named(zipped(b""), 500) * 60_000, "50,000 members"),
    "blocks without content": (lambda: zipped(b"")[:10] + b"\0\0\0\xff\xff" * 1_000_000, "cut short"),
    "entries": (lambda: fast((entry(b"x", b"", b"x") + entry(b"x")) * 26_000), "50,000 entries"),
    "records that count": (
        lambda: fast(entry(b"x", record("path", "a") * 100_000, b"x") * 9),
        "headers have more than",
    ),
    "records of different names": (
        lambda: fast(
            entry(b"x", b"".join(record(f"GNU.sparse.{one}", "") for one in range(40_000)), b"x") + entry(b"x")
        ),
        "sparse",
    ),
    "a record without end": (lambda: fast(entry(b"x", b"1" * (1 << 20), b"x")), "pax header"),
    "long names": (lambda: fast(long_name(b"a/" * 500_000) * 9), "headers have more than"),
    "a size of 2^63": (lambda: fast(header(b"x", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7) + END), "claims to have"),
    "a size that is not there": (lambda: fast(header(b"x", b"001777777777") + bytes(1 << 20)), "cut short"),
    "noise": (lambda: stored(random.Random(3).randbytes(BLOCK * 1000)), "no tar archive|damaged"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_time_and_little_memory(attack: str) -> None:
    make, words = ATTACKS[attack]
    archive = memoryview(make())
    began = time.process_time()
    with little_memory(MEMORY), pytest.raises(ArchiveError, match=words):
        modules_in([archive])
    assert time.process_time() - began < 10.0

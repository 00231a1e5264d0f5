"""Archives are read as Go's readers read them, which agents are made of, or refused in a sentence."""

import io
import json
import random
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.wasm.archive import ArchiveError, Entry, Limits, extract, modules_in
from tests.wasm.archive_cases import cases
from tests.wasm.archives import BLOCK, END, MODULE, corpus, entry, header, long_name, pax, plugin, stored, zipped
from tests.wasm.listings import LISTINGS, difference, ours, parsed

PLUGIN = Entry(0, "plugin.wasm", len(MODULE), True)

REFUSED = {
    "global-broken-number": "pax header",
    "long-name-of-5000": "name of 5,000 bytes",
    "pax-path-long": "name of 6,011 bytes",
    "pax-size-is-" + (b"0" * 40 + b"8").hex(): "pax header",
    "size-base256-huge-of-folder": "claims to have",
    "size-base256-least-of-folder": "negative size",
    "size-base256-negative-of-folder": "negative size",
    "size-octal-8g-of-folder": "claims to have",
    "size-octal-largest-of-folder": "claims to have",
    "sparse-gnu": "sparse",
    "sparse-pax-0.1": "sparse",
    "sparse-pax-1.0": "sparse",
}
"""What Go reads and this does not, with words of the sentence: Go would allocate it, or other readers differ."""


def whole(archive: bytes, wanted: Entry) -> bytes:
    return b"".join(extract([archive], wanted))


def refused(archive: bytes, limits: Limits) -> str:
    with pytest.raises(ArchiveError) as caught:
        modules_in([archive], limits)
    return str(caught.value)


def test_every_case_of_the_corpus_is_read_as_go_reads_it() -> None:
    """Entries, their order and content; and an error is an error."""
    go = {name: parsed(printed) for name, printed in json.loads(LISTINGS.read_text()).items()}
    assert go.keys() == corpus().keys()
    assert len(go) > 200
    listings = {name: ours(archive) for name, archive in corpus().items()}
    wrong = {name: difference(listing, go[name]) for name, listing in listings.items()}
    assert {name: words for name, words in wrong.items() if words} == {}
    stricter = {name: str(mine.error) for name, mine in listings.items() if mine.error and not go[name].error}
    assert stricter.keys() == REFUSED.keys()
    assert all(REFUSED[name] in words for name, words in stricter.items())


def test_the_corpus_holds_what_is_made_for_it() -> None:
    """And whatever was found since."""
    made = dict(cases())
    assert made.items() <= corpus().items()


def test_a_sentence_says_what_is_wrong() -> None:
    said = {
        "gzip-empty-file": "the archive cannot be read: it is empty",
        "gzip-not": "the archive cannot be read: it is not gzipped",
        "gzip-zstd": "the archive cannot be read: it is not gzipped",
        "gzip-cut": "the archive cannot be read: its gzip stream is cut short",
        "gzip-then-zeros": "the archive cannot be read: bytes that are no gzip stream follow the first one",
        "end-in-the-content": "the archive cannot be read: its tar archive is cut short",
        "checksum-wrong": "the archive cannot be read: its tar archive is damaged: a header has a wrong checksum",
        "sparse-gnu": "the archive cannot be read: it holds a sparse file, which not all readers read alike",
    }
    assert {name: ours(corpus()[name]).error for name in said} == said


def test_what_agents_take_is_told_also_where_the_rest_is_broken() -> None:
    """They stop there; and what is no file, but has the name, is what they stop at too."""
    behind = corpus()["gzip-damaged-behind-the-plugin"]
    with pytest.raises(ArchiveError) as caught:
        modules_in([behind])
    (found,) = caught.value.found
    assert found == Entry(1, "plugin.wasm", 8, True)
    assert whole(behind, found) == MODULE
    folder, file = modules_in([corpus()["kind-5-first"]])
    assert (folder.regular, file.regular) == (False, True)
    assert folder.index < file.index


def test_other_modules_are_told_up_to_a_number_and_never_in_place_of_the_plugin() -> None:
    found = modules_in([corpus()["many"]])
    assert [one.name for one in found if one.named] == ["plugin.wasm"]
    assert [one.index for one in found] == [*range(16), 40]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(
    names=st.lists(st.text("abc/ü.", max_size=120).map(lambda text: text.strip("/.")), max_size=6),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=40, deadline=None)
def test_what_python_writes_is_read_as_python_reads_it(form: int, names: list[str], seed: int) -> None:
    chance = random.Random(seed)
    buffer = io.BytesIO()
    written: list[tuple[str, bytes]] = []
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for place in names:
            info = tarfile.TarInfo(f"{place}/{chance.choice(['plugin.wasm', 'plugin.txt', 'x'])}".lstrip("/"))
            content = chance.choice([MODULE, b"", b"text"]) + chance.randbytes(chance.choice([0, 1, 503, 505, 3000]))
            info.size = len(content)
            info.mtime = chance.choice([0, 1.5, 1 << 40]) if form == tarfile.PAX_FORMAT else 0
            try:
                tar.addfile(info, io.BytesIO(content))
            except ValueError:  # too long a name for ustar
                continue
            written.append((info.name, content))
    archive = zipped(buffer.getvalue())
    expected = [
        Entry(index, name, len(content), content.startswith(b"\0asm"))
        for index, (name, content) in enumerate(written)
        if name.endswith("/plugin.wasm") or name == "plugin.wasm" or content.startswith(b"\0asm")
    ]
    found = modules_in([archive])
    assert found == expected
    assert [whole(archive, one) for one in found] == [written[one.index][1] for one in found]


@given(st.lists(st.integers(1, 400)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_how_the_bytes_come_in_makes_no_difference(sizes: list[int], views: bool) -> None:
    archive = corpus()["written-as-pax-deep"] + corpus()["gzip-member-empty-first"]

    def chunks() -> Iterator[bytes | memoryview]:
        at = 0
        for size in sizes:
            yield memoryview(archive)[at : at + size] if views else archive[at : at + size]
            yield b""
            at += size
        yield archive[at:]

    first, second = found = modules_in(chunks())
    assert found == modules_in([archive])
    assert b"".join(extract(chunks(), first)) == MODULE + first.name.encode()
    assert b"".join(extract(chunks(), second)) == MODULE + second.name.encode()


@pytest.mark.parametrize("content", [MODULE, MODULE + random.Random(1).randbytes(1_000)], ids=["small", "large"])
@pytest.mark.parametrize("zip_it", [zipped, stored])
def test_cut_at_any_byte_it_is_an_error_or_nothing_is_missing(content: bytes, zip_it: object) -> None:
    assert callable(zip_it)
    archive = zip_it(entry(b"README.md", b"text") + entry(b"plugin.wasm", content) + END)
    expected = [Entry(1, "plugin.wasm", len(content), True)]
    ends = set()
    for length in range(len(archive)):
        mine = ours(archive[:length])
        assert [one.entry for one in mine.told] in ([], expected)
        if mine.error is None:
            ends.add(length)
            assert mine.told == ours(archive).told
    assert ends <= set(range(len(archive) - 30 - 2 * BLOCK, len(archive)))


def test_any_third_bit_flipped_it_is_an_error_or_an_archive() -> None:
    """Of a tar that lies open in its gzip stream, so that the bits are those of headers."""
    archive = stored(pax({"path": "a/plugin.wasm"}) + entry(b"x", MODULE) + END)
    for bit in range(0, 8 * (len(archive) - 2 * BLOCK), 3):
        changed = bytearray(archive)
        changed[bit // 8] ^= 1 << bit % 8
        mine = ours(bytes(changed))
        assert mine.error is None or mine.error.startswith("the archive cannot be read: ")
        assert len(mine.told) <= 1


@pytest.mark.parametrize(
    ("archive", "limits", "words"),
    [
        (zipped(entry(b"x", bytes(1500)) * 2), Limits(output=2048), "unpacks to more than 2,048 bytes"),
        (plugin(bytes(4000)), Limits(output=3000), "claims to have 4,000 bytes; at most 3,000 are read"),
        (plugin(bytes(1 << 20)), Limits(ratio=100, ratio_from=0), "more than 100 times its size"),
        (zipped(b"") * 5 + plugin(), Limits(members=5), "more than 5 members"),
        (zipped(entry(b"x") * 6 + END), Limits(entries=5), "more than 5 entries"),
        (zipped(entry(b"x", b"", b"x") * 6 + END), Limits(entries=5), "more than 5 entries"),
        (zipped(pax({"comment": "x" * 100}) + END), Limits(header=100), "a header of 113 bytes; at most 100"),
        (zipped(long_name(b"x" * 90) * 3 + END), Limits(headers=200), "headers have more than 200 bytes"),
        (zipped(long_name(b"x" * 90) + entry(b"x") + END), Limits(path=89), "name of 90 bytes; at most 89"),
        (zipped(pax({"path": "x" * 90}, b"g") + END), Limits(path=89), "name of 90 bytes; at most 89"),
        (zipped(header(b"x", b"777777777777") + END), Limits(), "claims to have 68,719,476,735 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_limit_is_a_sentence_that_says_which(archive: bytes, limits: Limits, words: str) -> None:
    assert words in refused(archive, limits)


def test_a_limit_that_is_just_reached_is_none() -> None:
    tar = pax({"path": "a/plugin.wasm"}) + entry(b"x", bytes(600)) + END
    archive = zipped(b"") + zipped(tar)
    limits = Limits(
        output=len(tar), members=2, entries=2, header=22, headers=22, path=13, ratio=len(tar) // len(archive) + 1
    )
    assert [one.name for one in modules_in([archive], limits)] == ["a/plugin.wasm"]


def test_what_stood_before_a_limit_is_told() -> None:
    archive = zipped(entry(b"plugin.wasm", MODULE) + entry(b"x", bytes(4000)) + END)
    with pytest.raises(ArchiveError) as caught:
        modules_in([archive], Limits(output=4096))
    assert caught.value.found == (PLUGIN,)


def test_a_module_comes_out_in_pieces_and_no_more_is_read_than_that_takes() -> None:
    content = MODULE + random.Random(2).randbytes(3 << 20)
    archive = stored(entry(b"plugin.wasm", content) + entry(b"x", bytes(2 << 20)) + END)
    taken = 0

    def chunks() -> Iterator[memoryview]:
        nonlocal taken
        for at in range(0, len(archive), 1 << 16):
            taken += 1 << 16
            yield memoryview(archive)[at : at + (1 << 16)]

    pieces = list(extract(chunks(), Entry(0, "plugin.wasm", len(content), True)))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 1 << 20
    assert taken <= len(content) + (1 << 18)


@pytest.mark.parametrize(
    "wanted",
    [
        Entry(1, "plugin.wasm", 8, True),
        Entry(7, "plugin.wasm", 8, True),
        Entry(0, "other.wasm", 8, True),
        Entry(0, "plugin.wasm", 9, True),
        Entry(0, "plugin.wasm", 8, True, regular=False),
    ],
)
def test_an_entry_that_is_not_there_is_not_taken_for_another(wanted: Entry) -> None:
    if not wanted.regular:
        wanted = Entry(0, "plugin.wasm", 0, False)
        archive = corpus()["kind-5-first"]
    else:
        archive = plugin()
    with pytest.raises(ArchiveError, match=r"holds no file '(plugin|other)\.wasm'"):
        whole(archive, wanted)


def test_a_source_that_fails_is_heard() -> None:
    """It is no fault of the archive."""

    def chunks() -> Iterator[bytes]:
        yield plugin()[:20]
        raise OSError("the disk fails")

    with pytest.raises(OSError, match="the disk fails"):
        modules_in(chunks())

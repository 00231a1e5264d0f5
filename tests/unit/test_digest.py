"""A digest is taken only in its one right form, and a stream is held against it however it was cut into pieces."""

import hashlib

import blake3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.digest import Digest, Verifier
from mirror.errors import DigestInvalid

unhurried = settings(deadline=None)
algorithms = st.sampled_from(["sha256", "sha512"])
LENGTHS = {"sha256": 64, "sha512": 128}


@unhurried
@given(st.binary(), algorithms)
def test_a_digest_is_written_and_parsed_back(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    assert Digest.parse(str(digest)) == digest
    assert hash(Digest.parse(str(digest))) == hash(digest)


def test_sha256_is_what_is_meant_where_nothing_is_said() -> None:
    assert str(Digest.of(b"")) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    ["", ":", "sha256", "sha256:", HEX, f":{HEX}", f"sha256{HEX}", f"sha256:{HEX[:-1]}", f"sha256:{HEX}0",
     f"sha512:{HEX}", f"sha256:{HEX * 2}", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"sha384:{HEX}{HEX[:32]}",
     f"md5:{HEX[:32]}", f"sha256:{HEX[:-1]}g", f" sha256:{HEX}", f"sha256:{HEX} ", f"sha256:{HEX}\n",
     f"sha256:{HEX[:-1]}\n", f"sha256: {HEX[1:]}",
     f"sha256:{HEX[:-1]}\u0661", f"sha256:{HEX[:-1]}\uff41", f"sha256::{HEX[1:]}", f"sha256:{HEX[:62]}..",
     f"sha256:../{HEX[3:]}",
     f"sha256:0x{HEX[2:]}", f"sha256:{HEX[:-1]}\0", "\ud800", "x" * 1_000_000],
)  # fmt: skip
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert len(caught.value.message) < 300
    caught.value.message.encode()


@unhurried
@given(st.text() | st.tuples(algorithms, st.text("0123456789abcdefABCDEFg \n", max_size=140)).map(":".join))
@example(f"sha256:{HEX}")
def test_any_text_is_a_digest_in_its_one_form_or_refused(text: str) -> None:
    algorithm, _, digits = text.partition(":")
    if LENGTHS.get(algorithm) == len(digits) and set(digits) <= set("0123456789abcdef"):
        assert str(Digest.parse(text)) == text
    else:
        with pytest.raises(DigestInvalid):
            Digest.parse(text)


@unhurried
@given(st.lists(st.binary()), algorithms, st.booleans())
def test_a_stream_matches_however_it_was_cut(pieces: list[bytes], algorithm: str, as_views: bool) -> None:
    content = b"".join(pieces)
    verifier = Verifier(Digest.of(content, algorithm))
    for piece in pieces:
        verifier.update(memoryview(piece) if as_views else piece)
    assert verifier.matches()
    assert verifier.actual() == verifier.expected
    assert verifier.size == len(content)
    assert verifier.blake3() == blake3.blake3(content).hexdigest()


@unhurried
@given(st.binary(min_size=1), st.integers(min_value=0), st.integers(0, 7), algorithms)
def test_one_flipped_bit_does_not_match(content: bytes, at: int, bit: int, algorithm: str) -> None:
    changed = bytearray(content)
    changed[at % len(content)] ^= 1 << bit
    verifier = Verifier(Digest.of(content, algorithm))
    verifier.update(bytes(changed))
    assert not verifier.matches()
    assert verifier.actual() == Digest.of(bytes(changed), algorithm)


@unhurried
@given(st.binary(min_size=1), st.binary(min_size=1))
def test_a_part_does_not_match_until_the_rest_has_come(first: bytes, rest: bytes) -> None:
    verifier = Verifier(Digest.of(first + rest))
    assert not verifier.matches()
    verifier.update(first)
    assert not verifier.matches()
    verifier.update(rest)
    assert verifier.matches()
    verifier.update(b"more")
    assert not verifier.matches()

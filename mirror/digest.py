"""Digests, and the verifier that hashes a stream of bytes while it passes.

Source: OCI image specification 1.1, descriptor.md, "Digests".
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

import blake3

from mirror.errors import DigestInvalid

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of content: an algorithm (``sha256`` or ``sha512``) and lower-case hex digits."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``sha256:<64 hex>`` or ``sha512:<128 hex>``; raise `DigestInvalid` for anything else."""
        algorithm, colon, digits = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None or len(digits) != length or not _HEX.fullmatch(digits):
            shown = text if len(text) <= 80 else text[:80] + "…"
            raise DigestInvalid(
                f"{shown!r} is not a digest; it must be sha256: with 64 or sha512: with 128 lower-case hex digits"
            )
        return cls(algorithm, digits)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """The digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hash(Protocol):
    """What `hashlib` and `blake3` objects have in common."""

    def update(self, data: bytes | memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


class Verifier:
    """Hashes a stream: towards the digest that it must have, and with BLAKE3, by which the scrubber checks later.

    Not thread-safe: one `update` at a time. ``size`` is the number of bytes seen.
    """

    def __init__(self, expected: Digest) -> None:
        self.expected = expected
        self.size = 0
        self._hash: Hash = hashlib.new(expected.algorithm)
        self._blake3: Hash = blake3.blake3()

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next bytes of the stream."""
        self._hash.update(data)
        self._blake3.update(data)
        self.size += len(data)

    def matches(self) -> bool:
        """Whether the bytes seen so far have the expected digest."""
        return self._hash.hexdigest() == self.expected.hex

    def actual(self) -> Digest:
        """The digest of the bytes seen so far."""
        return Digest(self.expected.algorithm, self._hash.hexdigest())

    def blake3(self) -> str:
        """BLAKE3 of the bytes seen so far, 64 hex digits."""
        return self._blake3.hexdigest()

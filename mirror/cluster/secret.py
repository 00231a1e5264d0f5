"""The secret that all replicas share: with it they sign what they ask of one another, and what they tell.

A request carries ``Authorization: WasmMirror v=1,t=<seconds since the epoch>,n=<nonce>,s=<HMAC-SHA256>``. The signature
is over version, method, path with query, time and nonce, so it is good for this one question and for some minutes. A
document that is answered carries ``X-Signature: v=1,s=<HMAC-SHA256>``, over the question's nonce and the document.
Blobs carry none: their digest says what they must be. (HMAC: RFC 2104; the scheme: RFC 9110, section 11.)

Questions read, or have a replica do what it does by itself too: read what the others know, keep a blob. One that is
repeated by somebody who has overheard it tells nothing that was not overheard too, and changes nothing. Requests for
uploads do change something, once: `mirror.passing` has why. So no nonces are remembered, which nobody can then fill up.
"""

import hmac
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import StartError, Unauthorized

log = logging.getLogger(__name__)

SCHEME = "WasmMirror"
"""What ``Authorization`` and ``WWW-Authenticate`` begin with."""

SKEW = 300.0
"""Seconds by which the clocks of two replicas may differ."""

ACCEPTED_FOR = 600.0
"""Seconds for which a secret that has left the file is still good: not all replicas see a new file at once."""

LOOK_AGAIN_AFTER = 1.0
"""Seconds for which the file is taken to be unchanged."""

_SHORTEST = 16
_MAX_FILE = 64 * 1024
_MAX_SECRETS = 8
_MAX_RETIRED = 4

_HEADER = re.compile(rf"{SCHEME} v=1,t=([0-9]{{1,12}}),n=([0-9a-f]{{32}})((?:,s=[0-9a-f]{{64}}){{1,8}})")
_SIGNATURE = re.compile(r"v=1((?:,s=[0-9a-f]{64}){1,8})")


@dataclass(frozen=True, slots=True)
class Signed:
    """The value of ``Authorization`` for one request, and the nonce that its answer has to be signed with."""

    header: str
    nonce: str


class Secret:
    """The secret in a file, which is read again when it changes. Never shown in an error, a log or a ``repr``.

    The file holds one secret a line, of 16 bytes or more. The first one signs; all are accepted. One that leaves the
    file is accepted for another `ACCEPTED_FOR` seconds, and signs too, for replicas that have not seen the new file.
    A file that cannot be used any more leaves in force what it held.

    Looking at the file is a ``stat`` each second, and a read when it has changed: short enough for a loop. ``clock``
    gives seconds that never go back, ``random`` so many random bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Raises `StartError` when the file cannot be used."""
        self._path = path
        self._clock = clock
        self._random = random
        self._retired: dict[bytes, float] = {}
        self._complaint = ""
        self._look_at = clock() + LOOK_AGAIN_AFTER
        try:
            self._stamp = _stamp(path)
            self._secrets = _read(path)
        except (OSError, ValueError) as error:
            raise StartError(
                f"cluster.secret_file {path} cannot be used: {_words(error)}; let it hold a secret that all replicas "
                "share, such as what `openssl rand -hex 32` prints"
            ) from None  # a cause might show what was read

    def sign(self, method: str, target: str, now: float) -> Signed:
        """Proof for one request. ``target``: its path with the query, as they are sent; ``now``: since the epoch."""
        nonce, at = self._random(16).hex(), str(int(now))
        signatures = self._signatures(_request(method, target, at, nonce))
        return Signed(f"{SCHEME} v=1,t={at},n={nonce}{signatures}", nonce)

    def verify(self, header: str | None, method: str, target: str, now: float) -> str:
        """The nonce of a request that a replica has signed lately; raises `Unauthorized` for any other."""
        found = _HEADER.fullmatch(header) if header is not None else None
        if found is None:
            raise Unauthorized("this address is for the replicas of this mirror, which sign their requests")
        at, nonce, signatures = found.groups()
        if not self._is_ours(signatures, _request(method, target, at, nonce)):
            raise Unauthorized("the request is signed with another secret than that in this replica's secret_file")
        if abs(now - int(at)) > SKEW:
            raise Unauthorized(
                f"the clocks of the two replicas differ by {abs(now - int(at)):.0f} s, or the request is that old; "
                f"{SKEW:g} s are allowed"
            )
        return nonce

    def sign_answer(self, nonce: str, body: bytes) -> str:
        """The value of ``X-Signature`` for a document that answers the request with this nonce."""
        return f"v=1{self._signatures(_answer(nonce, body))}"

    def vouches_for(self, signature: str | None, nonce: str, body: bytes) -> bool:
        """Whether a replica has answered the request that had this nonce with this document."""
        found = _SIGNATURE.fullmatch(signature) if signature is not None else None
        return found is not None and self._is_ours(found[1], _answer(nonce, body))

    def derived(self, purpose: str) -> bytes:
        """A key of 32 bytes for ``purpose``, the same at all replicas; another one once another secret signs."""
        self._look()
        return hmac.digest(self._secrets[0], f"wasm-mirror {purpose} 1".encode(), "sha256")

    def _signatures(self, message: bytes) -> str:
        self._look()
        return "".join(f",s={_mac(secret, message)}" for secret in (self._secrets[0], *self._retired))

    def _is_ours(self, signatures: str, message: bytes) -> bool:
        self._look()
        given = signatures.split(",s=")[1:]
        right = [_mac(secret, message) for secret in (*self._secrets, *self._retired)]
        return any(hmac.compare_digest(one, other) for one in given for other in right)

    def _look(self) -> None:
        """Read the file again, if it has changed; at most once a second."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_AGAIN_AFTER
        self._retired = {secret: until for secret, until in self._retired.items() if until > now}
        complaint = ""
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._replace(_read(self._path), now)
                self._stamp = stamp
        except (OSError, ValueError) as error:
            complaint = f"cluster.secret_file {self._path}: {_words(error)}; what it held stays in force"
        if complaint and complaint != self._complaint:
            log.error("%s", complaint)
        self._complaint = complaint

    def _replace(self, secrets: tuple[bytes, ...], now: float) -> None:
        if secrets == self._secrets:
            return
        retired = {**self._retired, **dict.fromkeys(self._secrets, now + ACCEPTED_FOR)}
        left = [(secret, until) for secret, until in retired.items() if secret not in secrets]
        self._retired = dict(left[-_MAX_RETIRED:])
        self._secrets = secrets
        log.info("cluster.secret_file was read again; what it held is accepted for another %g s", ACCEPTED_FOR)


def _read(path: Path) -> tuple[bytes, ...]:
    """The secrets in the file; raises `OSError`, or `ValueError` with what is wrong."""
    with path.open("rb") as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise ValueError(f"it is longer than {_MAX_FILE} bytes")
    lines = [(number, line.strip()) for number, line in enumerate(content.splitlines(), 1)]
    for number, line in lines:
        if 0 < len(line) < _SHORTEST:
            raise ValueError(f"line {number} is shorter than {_SHORTEST} bytes")
    secrets = _distinct(line for _, line in lines if line)
    if not secrets:
        raise ValueError("it is empty")
    if len(secrets) > _MAX_SECRETS:
        raise ValueError(f"it holds more than {_MAX_SECRETS} secrets, one a line")
    return secrets


def _distinct(lines: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(lines))


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _words(error: OSError | ValueError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _request(method: str, target: str, at: str, nonce: str) -> bytes:
    return "\n".join(("wasm-mirror request 1", method, target, at, nonce)).encode()


def _answer(nonce: str, body: bytes) -> bytes:
    return b"\n".join((b"wasm-mirror answer 1", nonce.encode(), body))


def _mac(secret: bytes, message: bytes) -> str:
    return hmac.digest(secret, message, "sha256").hex()

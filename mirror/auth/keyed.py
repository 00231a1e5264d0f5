"""Names for what must not be kept: an HMAC of it, under a key that only this mirror has.

Alone, a mirror has a key of its own in its data directory (mode 0600), the same for all its workers and after a
restart. Replicas derive theirs from the secret that they share, so that each gives the same names.
"""

import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mirror.errors import StartError
from mirror.store.directory import sync_folder

log = logging.getLogger(__name__)

SIZE: Final = 32
"""Bytes of a key, and of a name."""

Keyed = Callable[..., bytes]
"""The name of some texts, in their order: 32 bytes that nobody can make, or hold against a guess, without the key."""


def keyed(key: Callable[[], bytes]) -> Keyed:
    """Names under a key that may change."""

    def name(*parts: str) -> bytes:
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hmac.digest(key(), message, "sha256")

    return name


def key_in(file: Path) -> bytes:
    """The key in ``file``, which is made where there is none. Raises `StartError` where there is another thing.

    On a disk that takes no more it is one for this process: what was remembered under another is not found then.
    """
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes()
    except OSError as error:
        log.warning("%s cannot be made or read (%s): who may pull is asked anew", file.name, error.strerror or error)
        return os.urandom(SIZE)
    if len(key) != SIZE:
        raise StartError(f"{file} does not hold a key; remove it, and another is made")
    return key


def _make(file: Path) -> None:
    """Several workers may do this at once: the first one's stays."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as written:
            written.write(os.urandom(SIZE))
            written.flush()
            os.fsync(fd)
        try:
            os.link(draft, file)
        except FileExistsError:
            return
        sync_folder(file.parent)
    finally:
        draft.unlink(missing_ok=True)

"""Bits that flip on the disk."""

import os
import random
from pathlib import Path


def rot(file: Path, at: int | None = None) -> None:
    """Flip one bit of a file, in place; the disk does not know of it, so the file's times stay."""
    before = os.stat(file)
    place = random.Random(before.st_ino).randrange(before.st_size) if at is None else at
    with file.open("r+b") as opened:
        (byte,) = os.pread(opened.fileno(), 1, place)
        os.pwrite(opened.fileno(), bytes([byte ^ 1 << place % 8]), place)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

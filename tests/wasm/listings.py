"""What Go's ``archive/tar`` reads of archives, as the program in tests/e2e/archives tells it, and what we do.

``python -m tests.wasm.listings PROGRAM`` makes the corpus anew: the cases that are made, and the listings of all.
"""

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.wasm.archive import ArchiveError, Entry, extract, modules_in
from mirror.wasm.inflate import LIMITS
from tests.wasm.archive_cases import cases
from tests.wasm.archives import CORPUS, corpus

LISTINGS = CORPUS / "listings.json"
_NO_FILES = frozenset(b"123456g")


@dataclass(frozen=True)
class Told:
    """An entry that counts here: what `Entry` says of it, and the digest of its content."""

    entry: Entry
    sha256: str


@dataclass(frozen=True)
class Listing:
    """What was read whole, and the error that ended the reading; None: the end of the archive."""

    told: tuple[Told, ...]
    error: str | None


def by_go(program: Path, archives: Sequence[bytes]) -> list[dict[str, Any]]:
    """What Go reads of each, as the program prints it."""
    given = b"".join(struct.pack(">I", len(archive)) + archive for archive in archives)
    done = subprocess.run([program], input=given, stdout=subprocess.PIPE, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def parsed(printed: Mapping[str, Any]) -> Listing:
    """The entries of a listing that count here, as many as are told of each sort."""
    told: dict[bool, list[Told]] = {True: [], False: []}
    for index, fields in enumerate(printed["entries"]):
        regular = fields["kind"] not in _NO_FILES
        named = bytes.fromhex(fields["base"]) == b"plugin.wasm"
        if named or (regular and fields["magic"]):
            name = bytes.fromhex(fields["name"]).decode(errors="backslashreplace")
            entry = Entry(index, name, fields["size"], fields["magic"], regular)
            told[named].append(Told(entry, fields["sha256"]))
    kept = told[True][: LIMITS.modules] + told[False][: LIMITS.modules]
    return Listing(tuple(sorted(kept, key=lambda one: one.entry.index)), printed["error"] or None)


def ours(archive: bytes) -> Listing:
    """What is read here."""
    try:
        entries, error = tuple(modules_in([archive])), None
    except ArchiveError as failure:
        entries, error = failure.found, str(failure)
    return Listing(tuple(Told(entry, _digest(archive, entry)) for entry in entries), error)


def difference(mine: Listing, go: Listing) -> str | None:
    """What is wrong with what is read here; to refuse what Go takes is not, as long as all before it is the same."""
    if mine.told != go.told[: len(mine.told)]:
        return f"other entries: {mine.told}, and not {go.told}"
    if mine.error is None and go.error is not None:
        return f"Go says: {go.error}"
    if mine.error is None and len(mine.told) < len(go.told):
        return f"Go has more: {go.told[len(mine.told) :]}"
    return None


def _digest(archive: bytes, entry: Entry) -> str:
    digest = hashlib.sha256()
    for piece in extract([archive], entry) if entry.regular else ():
        digest.update(piece)
    return digest.hexdigest()


def main(program: Path) -> None:
    """Write the corpus."""
    for name, archive in cases():
        (CORPUS / f"{name}.tar.gz").write_bytes(archive)
    listings = dict(zip(corpus(), by_go(program, list(corpus().values())), strict=True))
    lines = [f"{json.dumps(name)}: {json.dumps(listing)}" for name, listing in listings.items()]
    LISTINGS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

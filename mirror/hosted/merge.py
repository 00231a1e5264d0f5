"""How what another replica knows becomes a part of these records.

Of two entries for one key the later one stands; of one moment, what is there before what is gone. What follows from
that is decided by what all replicas come to know, so they end with the same rows, whatever each hears first and how
often (`joined`, `kept`, `fallen`). A blob that a manifest names is there as long as the manifest is.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mirror.errors import StoreError
from mirror.hosted import ledger, reads, rows
from mirror.hosted.entries import Entry, OfBlob, OfManifest, OfTag
from mirror.hosted.ledger import Noted, Told, Unread
from mirror.hosted.records import BlobLink, Described, HostedTag
from mirror.hosted.writes import There

_FOR_GOOD = float("inf")


def entries(connection: sqlite3.Connection, told: Sequence[Entry], there: There, forgotten: int) -> int:
    """Take in entries, in their order; how many of them said something new.

    What went before the moment ``forgotten`` is heard of no more, or replicas would bring one another to mind what
    each has forgotten. Raises `StoreError` where the disk has not the bytes of a manifest that stands.
    """
    changed = 0
    for entry in told:
        if entry.gone and entry.moment < forgotten and _known(connection, entry) is None:
            continue
        match entry:
            case OfBlob():
                changed += _blob(connection, entry, there)
            case OfManifest():
                changed += _manifest(connection, entry, there)
            case OfTag():
                changed += _tag(connection, entry)
    return changed


def order(entry: Told) -> tuple[Any, ...]:
    """Which of two entries for one key stands: the greater. Equal ones are the same, but for the time of a blob."""
    match entry:
        case OfBlob():
            # of two removals of one moment the one that leaves more stands: so all say the same together in any order
            before = _FOR_GOOD if entry.before is None else entry.before
            return entry.moment, -before if entry.gone else _FOR_GOOD, entry.size
        case Unread():
            return entry.moment, True, entry.media_type, entry.pushed_at
        case OfManifest():
            media_type = "" if entry.described is None else entry.described.manifest.media_type
            return entry.moment, not entry.gone, media_type, entry.pushed_at
        case OfTag():
            return entry.moment, not entry.gone, str(entry.digest or ""), entry.moved_at, entry.serial


def joined(own: OfBlob | None, other: OfBlob) -> OfBlob:
    """What two entries for a blob say together: the later one, and the latest time of both."""
    if own is None:
        return other
    return replace(max(own, other, key=order), touched_at=max(own.touched_at, other.touched_at))


def kept(blob: OfBlob, *, named: bool) -> OfBlob:
    """What becomes of a blob that is said to be gone, but must not be: a manifest names it, or somebody was told that
    it is there, later than whoever let it expire knew. It is there again, as of the moment in which it went.
    """
    touched = blob.before is not None and blob.touched_at >= blob.before
    return replace(blob, gone=False, before=None) if blob.gone and (named or touched) else blob


def fallen(tag: OfTag, manifest: Told | None) -> OfTag:
    """What becomes of a tag whose manifest was deleted after it had come to name it: that takes the tag.

    What moved the tag in between, and is not known here yet, has a later moment than this.
    """
    deleted = isinstance(manifest, OfManifest) and manifest.gone and manifest.moment > tag.moment
    return OfTag(tag.repository, tag.tag, tag.moment + 1, None) if deleted and not tag.gone else tag


def _known(connection: sqlite3.Connection, entry: Entry) -> Told | None:
    """What is known here of the same key."""
    match entry:
        case OfBlob():
            return ledger.known(connection, "blob", entry.repository, str(entry.digest))
        case OfManifest():
            return ledger.known(connection, "manifest", entry.repository, str(entry.digest))
        case OfTag():
            return ledger.known(connection, "tag", entry.repository, entry.tag)


def _blob(connection: sqlite3.Connection, told: OfBlob, there: There) -> bool:
    own = _known(connection, told)
    assert own is None or isinstance(own, OfBlob)
    if own is not None and told.size != own.size and there(own.digest, own.size):
        return False  # it is wrong about bytes that lie here
    stands = kept(joined(own, told), named=reads.naming(connection, told.repository, told.digest) is not None)
    if stands == own:
        return False
    if stands.gone and own is not None and not own.gone:
        rows.take_blob(connection, told.repository, told.digest)
    _put_blob(connection, stands)
    return True


def _put_blob(connection: sqlite3.Connection, blob: OfBlob) -> None:
    if blob.gone:
        noted = Noted(blob.moment, True, blob.size, blob.touched_at, blob.before)
    else:
        rows.put_blob(connection, blob.repository, BlobLink(blob.digest, blob.size, blob.touched_at))
        noted = Noted(blob.moment, False)
    ledger.put(connection, "blob", blob.repository, str(blob.digest), noted)


def _manifest(connection: sqlite3.Connection, told: OfManifest, there: There) -> bool:
    own = _known(connection, told)
    stands = own is None or order(told) > order(own)
    if told.described is None:
        if stands:
            _delete_manifest(connection, told)
        return stands
    if not stands:
        if isinstance(own, OfManifest):  # it is gone: the bytes were put on the disk for nothing
            rows.doom(connection, [told.digest])
        return False
    if not there(told.digest, len(told.described.manifest.body)):
        raise StoreError(
            f"the bytes of {told.digest} are not on the disk, so that it cannot be taken in", retry_after=1
        )
    rows.put_described(connection, told.repository, told.described, told.pushed_at)
    ledger.put(connection, "manifest", told.repository, str(told.digest), Noted(told.moment, False))
    _give_blobs(connection, told, told.described)
    return True


def _delete_manifest(connection: sqlite3.Connection, told: OfManifest) -> None:
    """Also the tags that name it, as far as they did before."""
    rows.take_manifest(connection, told.repository, told.digest)
    ledger.put(connection, "manifest", told.repository, str(told.digest), Noted(told.moment, True))
    for name in reads.tags_of(connection, told.repository, told.digest):
        tag = ledger.known(connection, "tag", told.repository, name)
        assert isinstance(tag, OfTag)
        if (after := fallen(tag, told)) != tag:
            _put_tag(connection, after)


def _give_blobs(connection: sqlite3.Connection, told: OfManifest, described: Described) -> None:
    """Let the repository have all that a manifest of it names: what is gone, or was not told of yet."""
    for to in described.blobs:
        own = ledger.known(connection, "blob", told.repository, str(to.digest))
        assert own is None or isinstance(own, OfBlob)
        if own is None:
            _put_blob(connection, OfBlob(told.repository, to.digest, told.moment, False, to.size, told.pushed_at))
        elif own.gone:
            _put_blob(connection, replace(kept(own, named=True), size=to.size))


def _tag(connection: sqlite3.Connection, told: OfTag) -> bool:
    if told.digest is not None:
        told = fallen(told, ledger.known(connection, "manifest", told.repository, str(told.digest)))
    own = _known(connection, told)
    stands = own is None or order(told) > order(own)
    if stands:
        _put_tag(connection, told)
    return stands


def _put_tag(connection: sqlite3.Connection, tag: OfTag) -> None:
    if tag.digest is None:
        rows.take_tag(connection, tag.repository, tag.tag)
    else:
        rows.put_tag(connection, tag.repository, HostedTag(tag.tag, tag.digest, tag.moved_at, tag.serial))
    ledger.put(connection, "tag", tag.repository, tag.tag, Noted(tag.moment, tag.gone))

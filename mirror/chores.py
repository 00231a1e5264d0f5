"""What replicas ask one another to do on their own disks: to let go of what is purged. In words that both understand.

What is asked stands in the query, which is signed: compressed, for it names many digests.
"""

import asyncio
import base64
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mirror import members
from mirror.cluster.documents import of_tag, to_tag
from mirror.digest import Digest
from mirror.disposal import Disposed, Doomed
from mirror.errors import MirrorError, NotFound, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.metadata.base import Tombstone
from mirror.oci import parse_name, parse_tag
from mirror.purging import Wanted

log = logging.getLogger(__name__)

ROOM = "chores"
VERSION = 1
"""Of what is asked and answered; one of a later version says nothing to this release."""

PORTION = 50
"""References in one question: some kilobytes of a URL."""

_MAX_DOCUMENT = 1024 * 1024
_MAX_ASKED = 1024 * 1024
_WITHIN = 60.0
"""Seconds for one portion: a large disk is looked through, and files are unlinked."""


class Peers(Protocol):
    """The other replicas: `mirror.peers`."""

    @property
    def alive(self) -> Sequence[str]: ...

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]: ...


class Chores:
    """Asks the others."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def purge(self, wanted: Sequence[Wanted]) -> Mapping[str, Sequence[Disposed] | MirrorError]:
        """What became of all of it at each replica that is there, by their addresses; or why that is not known."""
        addresses = list(self._peers.alive)
        told = await asyncio.gather(*(self._purge_at(address, wanted) for address in addresses))
        return dict(zip(addresses, told, strict=True))

    async def _purge_at(self, address: str, wanted: Sequence[Wanted]) -> Sequence[Disposed] | MirrorError:
        found: list[Disposed] = []
        try:
            for first in range(0, len(wanted), PORTION):
                portion = wanted[first : first + PORTION]
                target = f"{ROOM}/purge?portion={first // PORTION}&what={asked(portion)}"
                async with asyncio.timeout(_WITHIN):
                    found += _answered(await self._peers.document(address, target, _MAX_DOCUMENT), len(portion))
        except TimeoutError:
            return UpstreamTimeout(f"{address} has not said within {_WITHIN:g} s that it is gone there")
        except NotFound:
            return UpstreamUnavailable(f"{address} runs a release that cannot purge; purge it again after the upgrade")
        except MirrorError as error:
            return error
        return found


def asked(wanted: Sequence[Wanted]) -> str:
    """What is to go, as it stands in a query."""
    items = [
        {
            "upstream": one.doomed.upstream,
            "repository": one.doomed.repository,
            "digest": str(one.doomed.digest),
            "tags": list(one.doomed.tags),
            "tombstones": {tombstone.tag: of_tag(tombstone) for tombstone in one.tombstones},
        }
        for one in wanted
    ]
    text = json.dumps({"v": VERSION, "items": items}, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.compress(text)).decode()


def parse(text: str) -> list[Wanted]:
    """The same, out of a query. Raises `UpstreamInvalid`, `RequestError`."""
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(base64.urlsafe_b64decode(text.encode("ascii")), _MAX_ASKED)
        fields = json.loads(plain) if inflater.eof else None
    except (ValueError, zlib.error, RecursionError) as error:
        raise UpstreamInvalid("what is to be purged cannot be read") from error
    items = fields.get("items") if isinstance(fields, dict) and fields.get("v") == VERSION else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UpstreamInvalid("what is to be purged is told in words that this release does not know")
    return [_wanted(item) for item in items]


def answer(disposed: Sequence[Disposed]) -> dict[str, object]:
    """What became of it, as a replica tells it."""
    return {"v": VERSION, "items": [{"bytes": one.size, "pinned": one.pinned} for one in disposed]}


def _wanted(item: Mapping[str, Any]) -> Wanted:
    place = parse_name(members.text(item, "upstream")), parse_name(members.text(item, "repository"))
    tags, tombstones = item.get("tags"), item.get("tombstones")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise members.malformed("tags")
    if not isinstance(tombstones, dict) or not all(isinstance(one, dict) for one in tombstones.values()):
        raise members.malformed("tombstones")
    entries = [to_tag(one, *place, parse_tag(tag)) for tag, one in tombstones.items()]
    buried = tuple(entry for entry in entries if isinstance(entry, Tombstone))
    return Wanted(Doomed(*place, members.digest(item, "digest"), tuple(map(parse_tag, tags))), buried)


def _answered(fields: Mapping[str, Any], expected: int) -> list[Disposed]:
    items = fields.get("items")
    if fields.get("v") != VERSION or not isinstance(items, list) or len(items) != expected:
        raise UpstreamInvalid("another replica tells in words that this release does not know what it has purged")
    if not all(isinstance(item, dict) for item in items):
        raise members.malformed("items")
    return [
        Disposed({_ANY: members.number(item, "bytes", least=0)}, pinned=item.get("pinned") is True) for item in items
    ]


_ANY = Digest.of(b"")
"""In the place of the digests that went at another replica, which it does not tell."""

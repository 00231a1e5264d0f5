"""Where the modules of artifacts lie. What it took asking or opening archives to find out outlives a restart."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import DigestInvalid, StoreError
from mirror.metadata.base import KeptAnswer
from mirror.oci import Descriptor
from mirror.tags import Lru

log = logging.getLogger(__name__)

_REMEMBERED = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where the module of a manifest lies: it is ``layer`` itself or, if ``unpacked``, came out of it.

    ``image`` is the manifest that names the layer, to which an index may have led; ``module`` the module's sha256, None
    while nobody knows it; ``size`` its size in bytes.
    """

    image: Digest
    layer: Descriptor
    unpacked: bool
    module: Digest | None
    size: int


class Notes(Protocol):
    """Notes about this disk: `mirror.metadata.sqlite`. Both may raise `StoreError`."""

    async def kept(self, key: str) -> KeptAnswer | None: ...

    async def keep(self, key: str, answer: KeptAnswer) -> None: ...


class Places:
    """The place of the module of each manifest or index, which are told apart by digest and media type."""

    def __init__(self, notes: Notes, now: Callable[[], float] = time.time) -> None:
        self._notes = notes
        self._now = now
        self._known: Lru[tuple[Digest, str], Place] = Lru(_REMEMBERED)

    async def get(self, digest: Digest, media_type: str) -> Place | None:
        """The place, where it is known."""
        place = self._known.get((digest, media_type))
        if place is None:
            try:
                kept = await self._notes.kept(_key(digest, media_type))
            except StoreError as error:
                log.warning("where the module of %s lies could not be read: %s", digest, error)
                return None
            place = None if kept is None else _parse(kept.body)
            if place is not None:
                self._known.put((digest, media_type), place)
        return place

    async def put(self, digest: Digest, media_type: str, place: Place) -> None:
        """Remember a place; note it, where finding it again may take what is not here any more."""
        self._known.put((digest, media_type), place)
        if place.module is not None and (place.unpacked or place.image != digest):
            try:
                await self._notes.keep(_key(digest, media_type), KeptAnswer(_written(place), {}, self._now()))
            except StoreError as error:
                log.warning("where the module of %s lies could not be noted: %s", digest, error)


def _key(digest: Digest, media_type: str) -> str:
    return f"module {digest} {media_type}"


def _written(place: Place) -> bytes:
    layer = place.layer
    fields = {
        "image": str(place.image),
        "layer": [layer.media_type, str(layer.digest), layer.size],
        "unpacked": place.unpacked,
        "module": str(place.module),
        "size": place.size,
    }
    return json.dumps(fields).encode()


def _parse(text: bytes) -> Place | None:
    """A place as `_written`; None for anything else, which an older or newer release may have left."""
    try:
        fields = json.loads(text)
        media_type, digest, size = fields["layer"]
        layer = Descriptor(str(media_type), Digest.parse(digest), int(size))
        image, module = Digest.parse(fields["image"]), Digest.parse(fields["module"])
        return Place(image, layer, bool(fields["unpacked"]), module, int(fields["size"]))
    except (ValueError, KeyError, TypeError, AttributeError, DigestInvalid):
        return None

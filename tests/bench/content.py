"""What is pulled in benchmarks: layers whose bytes are made while they are sent, so that no size costs memory."""

import hashlib
import json
import random
from dataclasses import dataclass
from functools import cached_property

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from tests.support.artifacts import RAW_CONFIG, RAW_LAYER, descriptor

_HEAD = 4096
_BLOCK = memoryview(random.Random(0).randbytes(1024 * 1024))


@dataclass(frozen=True)
class Layer:
    """A raw module of ``size`` bytes; another ``seed`` gives other bytes, and another digest."""

    seed: int
    size: int

    @cached_property
    def digest(self) -> Digest:
        """The sha256 of all the bytes; takes a second for each 2 GB."""
        digest, position = hashlib.sha256(), 0
        while position < self.size:
            piece = self.piece(position, len(_BLOCK))
            digest.update(piece)
            position += len(piece)
        return Digest("sha256", digest.hexdigest())

    def piece(self, start: int, limit: int) -> memoryview:
        """Some of the bytes from ``start`` on, at least one and at most ``limit``."""
        limit = min(limit, self.size - start)
        if start < _HEAD:
            return self._head[start : min(_HEAD, start + limit)]
        within = (start - _HEAD) % len(_BLOCK)
        return _BLOCK[within : within + limit]

    @cached_property
    def _head(self) -> memoryview:
        return memoryview(b"\0asm\x01\0\0\0" + random.Random(self.seed).randbytes(_HEAD - 8))


RUNTIME = b'{"type":"envoy_proxy","abiVersions":["v0.2.1"],"config":{"rootIds":["root"]}}'
CONFIG = b"{}"


def manifest(layer: Layer) -> bytes:
    """The manifest of the layout with raw bytes: the module, and its runtime configuration."""
    module = {"mediaType": RAW_LAYER, "digest": str(layer.digest), "size": layer.size}
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(RAW_CONFIG, CONFIG),
        "layers": [module, descriptor(RAW_CONFIG, RUNTIME)],
    }
    return json.dumps(fields).encode()

"""The shape that a manifest must have for go-containerregistry, with which agents read it whole or not at all.

Source: go-containerregistry 0.21.6, ``pkg/v1`` (manifest.go, hash.go, platform.go); Go's ``encoding/json``, to which
the case of a key does not matter, and null is nothing.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mirror.oci import INDEXES, Manifest

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")

Check = Callable[[Any], bool]
"""Whether a value that is not null has the right type."""


def fault(manifest: Manifest) -> str | None:
    """What agents cannot read in a manifest, as the end of "its …"; None: nothing."""
    fields: Mapping[str, Any] = json.loads(manifest.body)
    return _fault(fields, _INDEX if manifest.media_type in INDEXES else _IMAGE)


def _fault(fields: Mapping[str, Any], shape: Mapping[str, Any]) -> str | None:
    for key, value in fields.items():
        check = shape.get(key.lower())
        if check is None or (value is None and key.lower() != "digest"):
            continue
        found = _fault_of(value, check)
        if found is not None:
            return f"{key}{found}"
    return None


def _fault_of(value: Any, check: Any) -> str | None:
    """What is wrong with a value, as it follows its key; None: nothing."""
    if isinstance(check, list):  # of such values
        if not isinstance(value, list):
            return " is no list"
        faults = ((number, _fault_of(one, check[0])) for number, one in enumerate(value) if one is not None)
        return next((f"[{number}]{found}" for number, found in faults if found is not None), None)
    if isinstance(check, Mapping):  # an object of this shape
        if not isinstance(value, Mapping):
            return " is no object"
        found = _fault(value, check)
        return None if found is None else f".{found}"
    right, wrong = check
    return None if right(value) else f" {wrong}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_notes(value: object) -> bool:
    return isinstance(value, dict) and all(note is None or isinstance(note, str) for note in value.values())


def _is_size(value: object) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_data(value: object) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode(value, validate=True) is not None
    except binascii.Error:
        return False


_TEXT = _is_text, "is no text"
_NOTES = _is_notes, "is no map of texts"
_PLATFORM = {
    **dict.fromkeys(("architecture", "os", "os.version", "variant"), _TEXT),
    **{key: [_TEXT] for key in ("os.features", "features")},
}
_DESCRIPTOR = {
    "mediatype": _TEXT,
    "size": (_is_size, "is no size"),
    "digest": (_is_digest, "is no sha256 digest"),
    "data": (_is_data, "is no base64"),
    "urls": [_TEXT],
    "annotations": _NOTES,
    "platform": _PLATFORM,
    "artifacttype": _TEXT,
}
_COMMON = {
    "schemaversion": (_is_size, "is no number"),
    "mediatype": _TEXT,
    "annotations": _NOTES,
    "subject": _DESCRIPTOR,
    "artifacttype": _TEXT,
}
_IMAGE = {**_COMMON, "config": _DESCRIPTOR, "layers": [_DESCRIPTOR]}
_INDEX = {**_COMMON, "manifests": [_DESCRIPTOR]}

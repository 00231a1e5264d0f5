"""What may stand as a value of the chart: JSON Schema by the names that comments in ``values.yaml`` use.

Patterns are those of Go's ``regexp``, without look-ahead, for Helm holds values against the schema.
"""

from typing import Any, Final

Schema = dict[str, Any]

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def mapping(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """A mapping that has no other keys than these."""
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_STRINGS = _list({"type": "string", "minLength": 1})

KINDS: Final[dict[str, Schema]] = {
    # free, for the API server to judge
    "anything": {"type": "object"},
    "objects": _list({"type": "object"}),
    "strings-by-name": {"type": "object", "additionalProperties": {"type": "string"}},
    "strings": _STRINGS,
    "named": _list(mapping({"name": _text(_NAME)}, ("name",))),
    # as the mirror reads them: mirror/config/values.py; of its settings no more than what templates look into
    "duration": _text(rf"^(0|({_NUMBER}(d|h|m|s|ms))+)$"),
    "optional-duration": _text(rf"^(0|({_NUMBER}(d|h|m|s|ms))+)?$"),
    "redis-url": _text(r"^(rediss?(\+(sentinel|cluster))?://.+)?$"),
    "settings": {
        "type": "object",
        "properties": {
            "names": _STRINGS,
            "upstreams": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
        }
        | {name: {"type": "object"} for name in ("admin", "auth", "cache", "cluster", "hosted", "metadata", "wasm")},
    },
    # as Kubernetes and its kin read them
    "quantity": _text(rf"^{_NUMBER}(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"),
    "go-duration": _text(rf"^({_NUMBER}(h|m|s))+$"),
    "digest": _text(r"^(sha256:[0-9a-f]{64})?$"),
    "port": _PORT,
    "ports": _list(_PORT) | {"uniqueItems": True},
    "names": _list(_text(_NAME)) | {"uniqueItems": True},
    # https://prometheus.io/docs/prometheus/latest/configuration/configuration/
    "prometheus-duration": _text(r"^([0-9]+(d|h|m|s|ms))*$"),
    # https://redis.io/docs/latest/operate/oss_and_stack/management/config/
    "redis-size": _text(r"^[0-9]+([kmg]b?)?$"),
    # the chart's own: names that can stand in an htpasswd file and as keys of a Secret
    "users": _list(_text(r"^[A-Za-z0-9][-._A-Za-z0-9]*$")) | {"uniqueItems": True},
    "credentials": _list(
        mapping(
            {"upstream": {"type": "string", "minLength": 1}, "existingSecret": _text(_NAME)},
            ("upstream", "existingSecret"),
        )
    ),
    "credential-helpers": _list(
        mapping(
            {
                "name": _text(r"^[A-Za-z0-9][-A-Za-z0-9]*$"),
                "image": {"type": "string", "minLength": 1},
                "path": _text("^/"),
                "command": _STRINGS,
                "upstreams": _STRINGS | {"minItems": 1},
            },
            ("name", "image", "upstreams"),
        )
    ),
}

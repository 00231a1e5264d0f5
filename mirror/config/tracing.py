"""Where traces are sent."""

import math
from typing import Annotated

from pydantic import BeforeValidator, Field

from mirror.config.hosts import split
from mirror.config.section import Section
from mirror.config.values import Kind, shown

_MAX_TEXT = 64


def parse_collector(value: object) -> str:
    """``http(s)://HOST[:PORT][/PATH]``; without a path it gets that of OTLP."""
    if not isinstance(value, str):
        raise ValueError(f"must be a URL such as http://otel-collector:4318, not {shown(value)}")
    if "@" in value or "?" in value or "#" in value:  # not shown: what stands there may be a secret
        raise ValueError("must not hold a user name, password or query; headers are in OTEL_EXPORTER_OTLP_HEADERS")
    scheme, separator, rest = value.partition("://")
    host, _, path = rest.partition("/")
    printable = value.isascii() and value.isprintable() and " " not in value
    if not separator or scheme.lower() not in ("http", "https") or split(host) is None or not printable:
        raise ValueError(f"must be http://HOST:PORT or https://HOST:PORT, with or without a path, not {shown(value)}")
    return f"{scheme.lower()}://{host}/{path or 'v1/traces'}"


def parse_part(value: object) -> float:
    """A number from 0 to 1."""
    try:
        part = float(value) if isinstance(value, int | float | str) and len(str(value)) <= _MAX_TEXT else math.nan
    except ValueError:
        part = math.nan
    if isinstance(value, bool) or not 0 <= part <= 1:
        raise ValueError(f"must be a number from 0 to 1, not {shown(value)}")
    return part


Collector = Annotated[str, Kind("URL"), BeforeValidator(parse_collector)]
Part = Annotated[float, Kind("number from 0 to 1"), BeforeValidator(parse_part)]


class TracingSettings(Section):
    """Traces of requests, as OpenTelemetry has them. They need the extra `wasm-mirror[tracing]`."""

    endpoint: Collector | None = Field(
        None,
        description="Where traces are sent, by OTLP over HTTP: a collector such as `http://otel-collector:4318`. "
        "Without one there are none, and they cost nothing. Headers, certificates and the resource's attributes are in "
        "OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_CERTIFICATE`, "
        "`OTEL_RESOURCE_ATTRIBUTES`.",
    )
    sample: Part = Field(
        1.0,
        description="The part of requests that is traced where the client does not say whether it traces its own: 1 is "
        "all, 0 none but those.",
    )

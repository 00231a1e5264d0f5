"""Where things listen and where they are: host names, ``HOST:PORT``, and the URLs of endpoints.

Hosts are lower-case and, alone, without the brackets of IPv6. Every parser raises `ValueError` whose words follow the
name of a key. Sources: RFC 3986 section 3.2.2; RFC 1123 section 2.1, and the underscore that container networks allow.
"""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import BeforeValidator

from mirror.config.values import Kind, shown

DEFAULT_LISTEN: Final = "127.0.0.1:8080"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_LOOKS_NUMERIC = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def split(text: str) -> tuple[str, int | None] | None:
    """Host and port of ``HOST`` or ``HOST:PORT``, an IPv6 address in brackets; None for anything else."""
    text = text.lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_address(host, 6):
            return None
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
        if not (_is_address(host, 4) if _LOOKS_NUMERIC.fullmatch(host) else _NAME.fullmatch(host)):
            return None
    if not rest:
        return host, None
    port = rest[1:]
    if rest[0] != ":" or not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    return host, int(port)


def join(host: str, port: int | None) -> str:
    """``HOST`` or ``HOST:PORT``, with the brackets that an IPv6 address needs."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name or number alone; nothing is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def parse_listen(value: object) -> str:
    """``HOST:PORT``; port 0 is any free one."""
    found = split(value) if isinstance(value, str) else None
    if found is None or found[1] is None:
        raise ValueError(f"must be HOST:PORT such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, not {shown(value)}")
    return join(*found)


def parse_host(value: object) -> str:
    """``HOST`` or ``HOST:PORT``."""
    found = split(value) if isinstance(value, str) else None
    if found is None or found[1] == 0:
        raise ValueError(f"must be HOST or HOST:PORT, without scheme and path, not {shown(value)}")
    return join(*found)


def parse_endpoint(value: object) -> str:
    """``http://HOST[:PORT]`` or ``https://…``, without a path and without the port that the scheme implies."""
    if not isinstance(value, str):
        raise ValueError(f"must be a URL such as https://registry.example.com, not {shown(value)}")
    if "@" in value or "?" in value:  # not shown: what stands there may be a secret
        raise ValueError("must not hold a user name, password or query; put these under credentials")
    scheme, separator, rest = value.partition("://")
    scheme, rest = scheme.lower(), rest.removesuffix("/")
    found = split(rest)
    if not separator or scheme not in _DEFAULT_PORTS or found is None or found[1] == 0:
        raise ValueError(
            f"must be scheme://HOST or scheme://HOST:PORT, with http or https and without a path, not {shown(value)}"
        )
    host, port = found
    return f"{scheme}://{join(host, None if port == _DEFAULT_PORTS[scheme] else port)}"


Listen = Annotated[str, Kind("HOST:PORT"), BeforeValidator(parse_listen)]
Host = Annotated[str, Kind("HOST or HOST:PORT"), BeforeValidator(parse_host)]
EndpointUrl = Annotated[str, Kind("URL without a path"), BeforeValidator(parse_endpoint)]

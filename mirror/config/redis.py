"""Where replicas meet: the URL of a Redis, alone, behind Sentinels, or as a Cluster; and of a replica itself.

Hosts are as in `mirror.config.hosts`. Every parser raises `ValueError` whose words follow the name of a key.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import BeforeValidator

from mirror.config import hosts
from mirror.config.values import Kind, shown

SQLITE = "sqlite"

_ALLOWED = (
    "sqlite, redis://HOST[:PORT][/DB], redis+sentinel://HOST[:PORT],…/SERVICE[/DB] or redis+cluster://HOST[:PORT],…, "
    "with rediss in place of redis for TLS"
)
_URL = re.compile(r"(?P<scheme>rediss?)(?:\+(?P<kind>sentinel|cluster))?://(?P<hosts>[^/]*)(?P<path>(?:/[^/]*)*)")
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,128}")  # what Sentinel takes for the name of a master
_DATABASE = re.compile(r"[0-9]{1,5}")


class Topology(Enum):
    """How the servers of a Redis hang together."""

    ALONE = "alone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_PORTS = {Topology.ALONE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """What a URL says: the servers (of Redis, or the Sentinels), the service that Sentinels watch, the database."""

    topology: Topology
    tls: bool
    servers: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0


def parse_place(url: str) -> RedisPlace | None:
    """What ``url`` says; None for anything that is no URL of a Redis."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    topology = Topology(found["kind"] or "alone")
    servers = tuple(_server(text, _PORTS[topology]) for text in found["hosts"].split(","))
    steps = found["path"].removesuffix("/").split("/")[1:]
    service = ""
    if topology is Topology.SENTINEL:
        if not steps or not _SERVICE.fullmatch(steps[0]):
            return None
        service, *steps = steps
    database = _database(steps)
    if (
        database is None
        or (topology is Topology.CLUSTER and steps)
        or (topology is Topology.ALONE and len(servers) > 1)
    ):
        return None
    known = tuple(server for server in servers if server is not None)
    return RedisPlace(topology, found["scheme"] == "rediss", known, service, database) if known == servers else None


def _server(text: str, default_port: int) -> tuple[str, int] | None:
    found = hosts.split(text)
    if found is None or found[1] == 0:
        return None
    return found[0], found[1] or default_port


def _database(steps: list[str]) -> int | None:
    if not steps:
        return 0
    return int(steps[0]) if len(steps) == 1 and _DATABASE.fullmatch(steps[0]) else None


def parse_store(value: object) -> str:
    """``sqlite``, or the URL of a Redis, as it was written."""
    if not isinstance(value, str):
        raise ValueError(f"must be {_ALLOWED}, not {shown(value)}")
    if "@" in value or "?" in value:  # not shown: what stands there may be a secret
        raise ValueError(
            "must not hold a user name, password or query; put these under metadata.username and metadata.password_file"
        )
    if value != SQLITE and parse_place(value) is None:
        nameless = "+sentinel://" in value and parse_place(f"{value.removesuffix('/')}/mymaster") is not None
        hint = "; the name by which the Sentinels know the master, such as /mymaster, is missing at its end"
        raise ValueError(f"must be {_ALLOWED}, not {shown(value)}{hint if nameless else ''}")
    return value


StoreUrl = Annotated[str, Kind("`sqlite` or URL of a Redis"), BeforeValidator(parse_store)]


def parse_advertised(value: object) -> str:
    """``http(s)://HOST[:PORT]``, at which one certain replica is reached."""
    if isinstance(value, str) and ("@" in value or "?" in value):
        raise ValueError(
            "must not hold a user name, password or query; replicas know one another by cluster.secret_file"
        )
    return hosts.parse_endpoint(value)


Advertised = Annotated[str, Kind("URL without a path"), BeforeValidator(parse_advertised)]

"""What a server of Redis says of itself (``INFO``), judged. Pure.

Source: https://redis.io/docs/latest/commands/info/
"""

import re
from collections.abc import Mapping

from mirror.config.redis import Topology
from mirror.doctor.report import Subject

_NEEDED = (6, 2)
_MIB = 1 << 20
_NEARLY_FULL = 0.9
_MODES = {
    "cluster": ("one server of a Cluster", "redis+cluster://HOST:PORT,… with a few of its servers"),
    "sentinel": ("a Sentinel, which keeps no data", "redis+sentinel://HOST:PORT,…/SERVICE with all Sentinels"),
}
_BY_USE = {"allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu"}


def parse(text: str) -> Mapping[str, str]:
    """The fields of all sections."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def judge(subject: Subject, info: Mapping[str, str], topology: Topology = Topology.ALONE) -> bool:
    """Note what matters to replicas: version, role, memory, persistence; whether it is what ``topology`` says."""
    _version(subject, info)
    mode = info.get("redis_mode", "")
    if mode in _MODES and topology is Topology.ALONE:
        what, url = _MODES[mode]
        subject.fail("topology", f"it is {what}", f"write metadata.url as {url}")
        return False
    _role(subject, info)
    _memory(subject, info)
    _persistence(subject, info)
    return True


def _version(subject: Subject, info: Mapping[str, str]) -> None:
    found = info.get("redis_version", "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    other = "".join(f", {name} {info[key]}" for name in ("valkey", "dragonfly") if (key := f"{name}_version") in info)
    if numbers and numbers < _NEEDED:
        subject.fail(
            "version",
            f"{found}{other}",
            "the mirror needs Redis 6.2 or newer, or what speaks its protocol, such as Valkey: upgrade it",
        )
    elif numbers:
        subject.ok("version", f"{found}{other}")


def _role(subject: Subject, info: Mapping[str, str]) -> None:
    role = info.get("role", "")
    if role == "slave":
        subject.fail(
            "role",
            f"a replica, which takes no writes; its master is {info.get('master_host')}:{info.get('master_port')}",
            "name the master in metadata.url, or let Sentinels name it: redis+sentinel://HOST:PORT,…/SERVICE",
        )
    elif role:
        subject.ok("role", f"{role}, with {info.get('connected_slaves', '0')} replicas")


def _memory(subject: Subject, info: Mapping[str, str]) -> None:
    try:
        used, limit = int(info["used_memory"]), int(info["maxmemory"])
    except (KeyError, ValueError):
        return
    if limit == 0:
        subject.ok("memory", f"{used / _MIB:.0f} MiB used, without a limit")
        return
    policy = info.get("maxmemory_policy", "")
    said = f"{used / _MIB:.0f} MiB used of {limit / _MIB:.0f} MiB, maxmemory-policy {policy or 'not told'}"
    if policy == "noeviction":
        _bounded(subject, said, used / limit)
    elif policy in _BY_USE:
        subject.ok("memory", f"{said}: when it is full, what is used least goes, which costs requests to upstreams")
    else:
        subject.warn(
            "memory",
            f"{said}: when it is full it evicts what replicas are using, leases and tags among it",
            "set maxmemory-policy to volatile-lru or allkeys-lru, or to noeviction with enough memory; nothing wrong "
            "is served either way, but what is evicted costs requests to upstreams",
        )


def _bounded(subject: Subject, said: str, part: float) -> None:
    advice = (
        "raise maxmemory, or set maxmemory-policy to volatile-lru or allkeys-lru: when it is full every write is "
        "refused, and replicas go on alone"
    )
    if part >= 1:
        subject.fail("memory", said, advice)
    elif part >= _NEARLY_FULL:
        subject.warn("memory", said, advice)
    else:
        subject.ok("memory", said)


def _persistence(subject: Subject, info: Mapping[str, str]) -> None:
    failed = [
        name
        for name, field in (("RDB", "rdb_last_bgsave_status"), ("AOF", "aof_last_write_status"))
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        subject.fail(
            "persistence",
            f"the last {' and '.join(failed)} could not be written",
            "see to the disk of Redis and to its log: it refuses writes then (MISCONF), and replicas go on alone",
        )
    elif info.get("aof_enabled") == "1":
        subject.ok("persistence", "append-only file")
    elif "aof_enabled" in info:
        subject.ok(
            "persistence",
            "no append-only file, which is fine: what a restart of Redis loses, replicas write back from their own "
            "databases; a tag that moved while one was away may cost a request to upstream",
        )

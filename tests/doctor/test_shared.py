"""What the doctor says of the Redis that replicas share: each case at a real server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mirror.config import MetadataSettings
from mirror.doctor import info
from mirror.doctor.refused import ACL
from mirror.doctor.report import Mark, Subject
from mirror.doctor.shared import StoreCheck
from tests.doctor.support import Found, certificate, found_by
from tests.support.faults import Fault
from tests.support.ports import ReservedPort
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

PASSWORD = "correct-horse-battery-staple"


async def store(url: str | RedisServer, **settings: Any) -> Found:
    """What is found at a Redis."""
    address = url.url if isinstance(url, RedisServer) else url
    return await found_by(StoreCheck(MetadataSettings(url=address, **settings)))


def password_file(folder: Path, password: str = PASSWORD) -> Path:
    file = folder / "password"
    file.write_text(f"{password}\n")
    return file


async def test_a_redis_that_does_all_is_well_and_keeps_nothing_of_the_doctors(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        found = await store(server)
        with server.client() as client:
            assert client.keys("*") == []
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    assert "write back" in found["persistence"].said
    assert "master" in found["role"].said
    for check in ("DNS", "TCP", "answer", "version", "memory", "PING", "scripts"):
        assert found.mark(check) is Mark.OK, found


async def test_a_redis_that_refuses_connections_leads_to_metadata_url() -> None:
    with ReservedPort() as port:
        found = await store(f"redis://127.0.0.1:{port.number}")
    assert found.mark("TCP") is Mark.FAIL
    assert "metadata.url" in found["TCP"].advice


async def test_a_redis_that_hangs_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.doctor.shared._ANSWER_WITHIN", 0.2)
    with RedisServer(tmp_path) as server:
        server.pause()
        found = await store(server)
    assert found.mark("TCP") is Mark.OK, "the kernel accepts for it"
    assert found.mark("answer") is Mark.FAIL
    assert "does not answer within" in found["answer"].said


async def test_a_redis_that_hangs_for_longer_than_a_connection_waits_is_told_as_one(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.pause()
        found = await store(server)
    assert found.mark("answer") is Mark.FAIL
    assert "does not answer" in found["answer"].advice


async def test_a_server_of_http_is_told_to_be_no_redis() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        found = await store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert found.mark("answer") is Mark.FAIL
    assert "no Redis" in found["answer"].advice


async def test_the_advice_about_a_redis_names_neither_a_proxy_nor_http(tmp_path: Path) -> None:
    with ReservedPort() as port:
        found = await store(f"redis://127.0.0.1:{port.number}")
    assert "PROXY" not in found["TCP"].advice
    with RedisServer(tmp_path) as server:
        plain = await store(server.url.replace("redis:", "rediss:"))
    assert "redis://" in plain["TLS"].advice
    assert "http" not in plain["TLS"].advice


async def test_a_file_for_tls_that_is_absent_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with RedisServer(tmp_path) as server:
        found = await store(server.url.replace("redis:", "rediss:"), ca_file=absent)
    assert str(absent) in found["TLS"].said


async def test_what_is_no_redis_is_told() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(drop=True))
        found = await store(f"redis://{up.host}")
    assert found.mark("answer") is Mark.FAIL


# Who we are, and what we may.


async def test_a_password_that_is_missing_or_wrong_leads_to_password_file(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", ["--requirepass", PASSWORD]) as server:
        missing = await store(server)
        wrong = await store(server, password_file=password_file(tmp_path, "WRONG-PASSWORD"))
        right = await store(server, password_file=password_file(tmp_path))
    for found in (missing, wrong):
        failed = [finding for finding in found.findings if finding.mark is Mark.FAIL]
        assert len(failed) == 1, found
        assert "metadata.password_file" in failed[0].advice
        assert "WRONG-PASSWORD" not in found.text
    assert right.mark("scripts") is Mark.OK, right


async def test_a_password_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", ["--requirepass", PASSWORD]) as server:
        found = await store(server, password_file=tmp_path / "absent")
    (failed,) = [finding for finding in found.findings if finding.mark is Mark.FAIL]
    assert "metadata.password_file" in failed.said
    assert "readable" in failed.advice


@pytest.mark.parametrize(
    "rights",
    [
        "~other:* +@all",  # no keys of ours
        "~wm1:* +@all -eval -evalsha",  # no scripts
        "~wm1:* +@all -hset",  # a command in a script
        "~wm1:* +@all -@sortedset",
        "~wm1:* +@all -scan",
    ],
)
async def test_a_user_who_may_not_do_all_leads_to_an_acl(tmp_path: Path, rights: str) -> None:
    with RedisServer(tmp_path / "redis", ["--user", "mirror", "on", f">{PASSWORD}", *rights.split()]) as server:
        found = await store(server, username="mirror", password_file=password_file(tmp_path))
    assert found.mark("permissions") is Mark.FAIL, found
    assert "ACL SETUSER" in found["permissions"].advice
    assert "~wm1:*" in found["permissions"].advice


async def test_the_acl_that_is_advised_is_enough(tmp_path: Path) -> None:
    rights = ACL.removeprefix("ACL SETUSER NAME on >PASSWORD ").split()
    with RedisServer(tmp_path / "redis", ["--user", "mirror", "on", f">{PASSWORD}", *rights]) as server:
        found = await store(server, username="mirror", password_file=password_file(tmp_path))
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found


async def test_a_user_without_info_is_a_warning(tmp_path: Path) -> None:
    rights = ["~wm1:*", "+@all", "-info"]
    with RedisServer(tmp_path / "redis", ["--user", "mirror", "on", f">{PASSWORD}", *rights]) as server:
        found = await store(server, username="mirror", password_file=password_file(tmp_path))
    assert found.mark("info") is Mark.WARN, found
    assert "+info" in found["info"].advice
    assert found.mark("scripts") is Mark.OK


# What it is.


async def test_a_read_only_replica_leads_to_its_master(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.read_only(True)
        found = await store(server)
    assert found.mark("role") is Mark.FAIL
    assert "takes no writes" in found["role"].said
    assert "metadata.url" in found["role"].advice


async def test_a_full_redis_that_evicts_nothing_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path, ["--maxmemory", "1000", "--maxmemory-policy", "noeviction"]) as server:
        found = await store(server)
    assert found.mark("memory") is Mark.FAIL, found
    assert "maxmemory" in found["memory"].advice


async def test_a_policy_that_evicts_what_replicas_need_is_a_warning(tmp_path: Path) -> None:
    with RedisServer(tmp_path, ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"]) as server:
        found = await store(server)
    assert found.mark("memory") is Mark.WARN
    assert "volatile-ttl" in found["memory"].said
    assert "volatile-lru" in found["memory"].advice


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path, ["--databases", "1"]) as server:
        found = await store(f"{server.url}/7")
    (failed,) = [finding for finding in found.findings if finding.mark is Mark.FAIL]
    assert "database" in failed.advice


async def test_a_server_that_is_no_cluster_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        found = await store(f"redis+cluster://{server.host}")
    assert found.mark("answer") is Mark.FAIL
    assert "redis://" in found["answer"].advice


async def test_a_server_of_a_cluster_and_a_sentinel_that_are_named_as_a_server_are_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "cluster", ["--cluster-enabled", "yes"]) as server:
        found = await store(server)
    assert "redis+cluster://" in found["topology"].advice
    file = tmp_path / "sentinel.conf"
    file.write_text("")
    with RedisServer(tmp_path / "sentinel", [str(file)], program="redis-sentinel") as server:
        found = await store(server)
    assert found.mark("topology") is Mark.FAIL
    assert "redis+sentinel://" in found["topology"].advice


async def test_what_is_no_sentinel_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        found = await store(f"redis+sentinel://{server.host}/mymaster")
    assert found.mark("answer") is Mark.FAIL
    assert "Sentinel" in found["answer"].advice


@pytest.mark.needs("redis-sentinel")
@pytest.mark.timeout(150)
async def test_the_master_that_sentinels_name_is_examined(tmp_path: Path) -> None:
    with WatchedRedis(tmp_path) as watched:
        found = await store(watched.url)
        other = await store(f"{watched.url}-that-nobody-knows")
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    assert "Sentinels name 127.0.0.1:" in found["answer"].said
    assert other.mark("answer") is Mark.FAIL
    assert "the name at the end of metadata.url" in other["answer"].advice


@pytest.mark.needs("redis-cli")
@pytest.mark.timeout(150)
async def test_each_master_of_a_cluster_is_examined(tmp_path: Path) -> None:
    with RedisCluster(tmp_path) as cluster:
        found = await store(cluster.url)
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    assert "a Cluster of 3 masters" in found["answer"].said
    roles = {finding.said.partition(": ")[0] for finding in found.findings if finding.check == "role"}
    assert roles <= set(found["answer"].said.rpartition(": ")[2].split(", "))
    assert len(roles) == 3
    assert found.mark("scripts") is Mark.OK


# TLS.


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    files = {"ca_file": made.certificate, "client_certificate": made.certificate, "client_key": made.key}
    with RedisServer(tmp_path / "redis", tls=made) as server:
        found = await store(server, **files)
        untrusted = await store(server)
        nameless = await store(server, ca_file=made.certificate)
    assert found.mark("TLS") is Mark.OK, found
    assert found.mark("scripts") is Mark.OK
    assert untrusted.mark("TLS") is Mark.FAIL
    assert "metadata.ca_file" in untrusted["TLS"].advice
    assert nameless.mark("TLS") is Mark.FAIL, nameless
    assert "client_certificate and client_key beside metadata.url" in nameless["TLS"].advice


# What it says of itself, without a server.


def judged(**fields: str) -> Found:
    subject = Subject("metadata.url", "redis")
    info.judge(subject, fields)
    return Found(subject)


def test_a_redis_that_is_too_old_is_told() -> None:
    assert judged(redis_version="6.0.16").mark("version") is Mark.FAIL
    assert judged(redis_version="6.2.0").mark("version") is Mark.OK
    assert "valkey 8.1.0" in judged(redis_version="7.2.4", valkey_version="8.1.0")["version"].said


@pytest.mark.parametrize(
    ("policy", "used", "mark"),
    [
        ("noeviction", "50", Mark.OK),
        ("noeviction", "90", Mark.WARN),
        ("noeviction", "100", Mark.FAIL),
        ("volatile-lru", "100", Mark.OK),
        ("volatile-lfu", "100", Mark.OK),
        ("allkeys-lru", "100", Mark.OK),
        ("volatile-ttl", "10", Mark.WARN),  # a lease has the shortest time to live of all
        ("volatile-random", "10", Mark.WARN),
        ("allkeys-random", "10", Mark.WARN),
    ],
)
def test_policies_and_memory(policy: str, used: str, mark: Mark) -> None:
    assert judged(used_memory=used, maxmemory="100", maxmemory_policy=policy).mark("memory") is mark


def test_a_redis_that_cannot_write_its_disk_is_told() -> None:
    found = judged(aof_enabled="0", rdb_last_bgsave_status="err")
    assert found.mark("persistence") is Mark.FAIL
    assert "MISCONF" in found["persistence"].advice
    assert judged(aof_enabled="1", aof_last_write_status="ok").mark("persistence") is Mark.OK

"""The client of the shared Redis: how soon it gives up, what it takes for an outage, and who it is for the server."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from mirror.config.models import MetadataSettings
from mirror.errors import StoreError
from mirror.metadata.redis import RedisMetadata
from mirror.shared.client import RedisClient
from tests.metadata.conformance import ANSWER, LINK, TAG, A, B
from tests.metadata.redis_stores import PATIENCE, connected, probe, until_up
from tests.support.certificates import self_signed
from tests.support.ports import ReservedPort
from tests.support.redis import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One for each test, which may do with it what it likes."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


def settings(server: RedisServer, **keys: object) -> MetadataSettings:
    """Those of a client of ``server``."""
    return MetadataSettings.model_validate({"url": server.url, **keys})


async def fails_at_once(client: RedisClient) -> None:
    """Assert that nothing is asked, or waited for."""
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(StoreError, match="does not answer"):
            await client.call("GET", "key")
        with pytest.raises(StoreError, match="does not answer"):
            await client.pipeline([("GET", "key")])
        with pytest.raises(StoreError, match="does not answer"):
            await client.script("return 1")(["key"], [])
        with pytest.raises(StoreError, match="does not answer"):
            await anext(client.scan("*"))
    assert time.monotonic() - began < 0.4


async def test_nothing_is_asked_before_a_probe_has_succeeded(server: RedisServer) -> None:
    client = RedisClient.of(settings(server))
    await fails_at_once(client)
    assert await probe(client)
    assert await client.call("GET", "key") is None
    await client.aclose()
    await fails_at_once(client)
    assert not await probe(client)


async def test_answers_come_as_bytes_numbers_and_lists(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        commands = [
            ("SET", "a", 1.5),
            ("GET", "a"),
            ("GET", b"b"),
            ("INCR", "n"),
            ("HSET", "h", "x", 7),
            ("HGETALL", "h"),
        ]
        assert await client.pipeline(commands) == [b"OK", b"1.5", None, 1, 1, [b"x", b"7"]]
        assert await client.script("return {KEYS[1], ARGV[1], 5, false}")(["k"], ["v"]) == [b"k", b"v", 5, None]
        assert await client.pipeline([]) == []


async def test_a_killed_server_is_noticed_at_once_and_found_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line for each change."""
    caplog.set_level(logging.INFO, "mirror.shared")
    async with connected(settings(server)) as client:
        store = RedisMetadata(client, time.time, PATIENCE)
        await store.put_tag(TAG)
        for _ in range(2):
            server.kill()
            with pytest.raises(StoreError):
                await store.tag("ghcr.io", "team/filter", "v1")
            assert not client.up
            await fails_at_once(client)
            assert not await probe(client)
            assert not await probe(client)
            server.start()
            await fails_at_once(client)
            await until_up(client)
            assert await store.tag("ghcr.io", "team/filter", "v1") is None
            await store.put_tag(TAG)
    said = [record.message.partition(": ")[0].replace(server.url, "URL") for record in caplog.records]
    away, again = "Redis at URL is not there", "Redis at URL answers again"
    assert said == ["Redis at URL answers", away, again, away, again]


async def test_a_hanging_server_costs_one_time_out_and_no_wrong_answer(server: RedisServer) -> None:
    """All that waits gives up together; what it left on the wire reaches nobody else."""
    async with connected(settings(server)) as client:
        await client.pipeline([("SET", f"key {number}", f"value {number}") for number in range(200)])
        server.pause()
        began = time.monotonic()
        calls = [client.call("GET", f"key {number}") for number in range(50)]
        outcomes = await asyncio.gather(*calls, client.call("SET", "late", "1"), return_exceptions=True)
        assert all(isinstance(outcome, StoreError) for outcome in outcomes)
        assert 0.45 < time.monotonic() - began < 1.5
        assert not client.up
        await fails_at_once(client)
        began = time.monotonic()
        assert not await probe(client)
        assert time.monotonic() - began < 1.5
        server.resume()
        await until_up(client)
        answers = await asyncio.gather(*(client.call("GET", f"key {number}", within=PATIENCE) for number in range(200)))
        assert answers == [f"value {number}".encode() for number in range(200)]


async def test_callers_that_go_away_leave_no_answer_for_others(server: RedisServer) -> None:
    """A third of them is cancelled, while they connect or later."""
    async with connected(settings(server)) as client:
        await client.pipeline([("SET", f"key {number}", f"value {number}") for number in range(300)], within=PATIENCE)

        async def ask(number: int) -> bytes:
            found: bytes = await client.call("GET", f"key {number}", within=PATIENCE)
            return found

        for turn in range(5):
            calls = [asyncio.create_task(ask(number)) for number in range(300)]
            for _ in range(turn):
                await asyncio.sleep(0)
            for call in calls[::3]:
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for number, answer in enumerate(answers):
                if number % 3 or not isinstance(answer, asyncio.CancelledError):
                    assert answer == f"value {number}".encode()
        assert client.up


async def test_a_slow_answer_is_not_an_outage_while_others_come(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        blocked = asyncio.create_task(client.call("BLPOP", "nothing", 3, within=1))
        with server.client() as raw:
            await eventually(lambda: raw.info("clients")["blocked_clients"] == 1)
        answers = 0
        while not blocked.done():
            assert await client.call("GET", "key", within=PATIENCE) is None
            answers += 1
        with pytest.raises(StoreError, match="no answer within 1 s"):
            await blocked
        assert answers > 5
        assert client.up


@pytest.mark.parametrize("seconds", [0.5, 2.5], ids=["longer than a call waits", "longer than a connection waits"])
async def test_a_loop_that_stood_still_does_not_take_the_server_for_gone(server: RedisServer, seconds: float) -> None:
    async with connected(settings(server)) as client:
        with server.client() as raw:
            raw.client_pause(200, all=True)
        call = asyncio.create_task(client.call("GET", "key", within=0.2))
        for _ in range(50):  # the command is on its way, the answer cannot be
            await asyncio.sleep(0)
        time.sleep(seconds)  # noqa: ASYNC251 - this is what is tested
        assert await call is None
        assert client.up


async def test_a_loop_that_hardly_runs_waits_longer_for_an_answer(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        with server.client() as raw:
            raw.client_pause(500, all=True)
        call = asyncio.create_task(client.call("GET", "key", within=0.2))
        while not call.done():
            time.sleep(0.08)  # noqa: ASYNC251 - a busy machine, which is what is tested
            await asyncio.sleep(0)
        assert await call is None
        assert client.up


async def test_a_server_that_refuses_writes_is_away_until_it_takes_them(server: RedisServer) -> None:
    """As after a failover; reads alone are of no use, for they may be old."""
    async with connected(settings(server)) as client:
        store = RedisMetadata(client, time.time, PATIENCE)
        await store.put_tag(TAG)
        server.read_only(True)
        with pytest.raises(StoreError, match=r"(?i)read only"):
            await store.put_tag(replace(TAG, digest=B))
        assert not client.up
        assert not await probe(client)
        server.read_only(False)
        await until_up(client)
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_a_server_without_its_replicas_is_away(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        with server.client() as raw:
            raw.config_set("min-replicas-to-write", "1")
            with pytest.raises(StoreError, match="NOREPLICAS"):
                await client.call("SET", "key", "value")
            assert not client.up
            assert not await probe(client)
            raw.config_set("min-replicas-to-write", "0")
        await until_up(client)


@pytest.mark.shows("Redis is full, and set not to evict")
async def test_a_server_that_is_full_is_away_until_it_has_room(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        store = RedisMetadata(client, time.time, PATIENCE)
        with server.client() as raw:
            raw.config_set("maxmemory", "1kb")
            raw.config_set("maxmemory-policy", "noeviction")
            for work in (store.put_tag(TAG), store.keep("key", ANSWER), store.put_links([LINK]), store.touch({A: 1.0})):
                client.up = True  # as if the probe had not seen it yet
                with pytest.raises(StoreError, match="maxmemory"):
                    await work
                assert not client.up
            assert not await probe(client)
            raw.config_set("maxmemory", "100mb")
        await until_up(client)


@pytest.mark.shows("Redis loses what it was told: it evicts keys, or a failover loses the last writes")
async def test_a_server_that_evicts_is_never_away(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        store = RedisMetadata(client, time.time, PATIENCE)
        with server.client() as raw:
            raw.config_set("maxmemory", "2mb")
            raw.config_set("maxmemory-policy", "allkeys-lru")
        for number in range(100):
            await store.keep(f"key {number}", replace(ANSWER, body=bytes(100_000)))
        assert await store.kept("key 0") is None
        assert client.up


async def test_a_wrong_command_is_an_error_and_no_outage(server: RedisServer) -> None:
    async with connected(settings(server)) as client:
        with pytest.raises(StoreError, match="unknown command"):
            await client.call("NONSENSE", "key")
        with pytest.raises(StoreError, match="Unknown Redis command"):
            await client.script("return redis.call('nonsense')")(["key"], [])
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await client.pipeline([("SET", "key", "value"), ("HGETALL", "key"), ("SET", "other", "value")])
        assert client.up
        assert await client.call("GET", "other") == b"value"


async def test_what_is_no_redis_is_not_there() -> None:
    """Nobody listens; or something else does."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    with ReservedPort() as port:
        client = RedisClient.of(MetadataSettings(url=f"redis://127.0.0.1:{port.number}"))
        assert not await probe(client)
        await client.aclose()
    async with await asyncio.start_server(other, "127.0.0.1", 0) as listener:
        client = RedisClient.of(MetadataSettings(url=f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
        assert not await probe(client)
        await client.aclose()


async def test_the_login_is_that_which_its_files_say_now(server: RedisServer, tmp_path: Path) -> None:
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("mirror\n")
    password.write_text("first\r\n")
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "mirror", "on", ">first", "~wm1:*", "+@all")
        raw.execute_command("ACL", "SETUSER", "default", "-@all", "+@connection", "+client", "+acl")
        async with connected(settings(server, username_file=user, password_file=password)) as client:
            await client.call("SET", "wm1:key", "value")
            with pytest.raises(StoreError, match=r"(?i)permission"):
                await client.call("SET", "key", "value")
            assert client.up
            raw.execute_command("ACL", "SETUSER", "mirror", "resetpass", ">second")
            raw.execute_command("CLIENT", "KILL", "USER", "mirror")
            with pytest.raises(StoreError):
                await client.call("GET", "wm1:key")
            assert not await probe(client)
            password.write_text("second")
            await until_up(client)
            raw.execute_command("ACL", "SETUSER", "other", "on", ">second", "~wm1:*", "+@all")
            raw.execute_command("ACL", "DELUSER", "mirror")
            user.write_text("other")
            await until_up(client)
            assert await client.call("ACL", "WHOAMI") == b"other"


async def test_a_user_may_stand_in_the_settings_or_be_the_default_one(server: RedisServer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2")
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "mirror", "on", ">hunter2", "~*", "+@all")
        raw.config_set("requirepass", "hunter2")
    async with connected(settings(server, username="mirror", password_file=password)) as client:
        assert await client.call("ACL", "WHOAMI") == b"mirror"
    async with connected(settings(server, password_file=password)) as client:
        assert await client.call("ACL", "WHOAMI") == b"default"


@pytest.mark.parametrize("content", [None, "wrong", b"\xff"])
@pytest.mark.shows("Redis refuses the user or the password")
async def test_a_login_that_is_not_taken_is_an_outage_that_names_no_secret(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | bytes | None
) -> None:
    caplog.set_level(logging.WARNING, "mirror.shared")
    password = tmp_path / "password"
    if content is not None:
        password.write_bytes(content if isinstance(content, bytes) else content.encode())
    with server.client() as raw:
        raw.config_set("requirepass", "hunter2")
        raw.execute_command("AUTH", "hunter2")
        client = RedisClient.of(settings(server, password_file=password))
        assert not await probe(client)
        assert not await probe(client)
        (record,) = caplog.records
        assert "is not there" in record.message
        assert ("metadata.password_file" in record.message) == (content != "wrong")
        assert "hunter2" not in caplog.text
        password.write_text("hunter2")
        assert await probe(client)
        await client.aclose()


async def test_why_redis_refuses_is_logged_in_words_for_operators(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mirror.shared")
    with server.client() as raw:
        raw.config_set("maxmemory", "1")
    client = RedisClient.of(settings(server))
    assert not await probe(client)
    await client.aclose()
    (record,) = caplog.records
    assert "maxmemory" in record.message
    assert "user_script" not in record.message
    assert "; this replica goes on alone" in record.message


async def test_a_file_for_tls_that_is_absent_is_named_in_the_log(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mirror.shared")
    url, absent = server.url.replace("redis:", "rediss:"), tmp_path / "absent"
    client = RedisClient.of(MetadataSettings(url=url, ca_file=absent))
    assert not await probe(client)
    assert f"{absent}: No such file or directory; this replica goes on alone" in caplog.text
    await client.aclose()


@pytest.mark.needs("openssl")
async def test_tls_shows_a_certificate_and_trusts_only_its_own_authority(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "other").mkdir()
    trusted, other = self_signed(tmp_path / "server"), self_signed(tmp_path / "other")
    shown = {"client_certificate": trusted.certificate, "client_key": trusted.key}
    with RedisServer(tmp_path / "redis", tls=trusted) as server:
        async with connected(settings(server, ca_file=trusted.certificate, **shown)) as client:
            assert await client.call("GET", "key") is None
        for keys in (
            {"ca_file": other.certificate, **shown},
            {"ca_file": trusted.certificate},
            {"ca_file": trusted.certificate, "client_certificate": other.certificate, "client_key": other.key},
            {"ca_file": tmp_path / "absent", **shown},
            dict(shown),
        ):
            client = RedisClient.of(settings(server, **keys))
            assert not await probe(client)
            await client.aclose()


@pytest.mark.needs("openssl")
async def test_certificates_that_were_replaced_are_used_from_the_next_connection_on(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "client").mkdir()
    trusted, own = self_signed(tmp_path / "server"), self_signed(tmp_path / "client")
    with RedisServer(tmp_path / "redis", tls=trusted) as server:
        shown = {"client_certificate": own.certificate, "client_key": own.key}
        client = RedisClient.of(settings(server, ca_file=trusted.certificate, **shown))
        assert not await probe(client)
        for new, old in ((trusted.certificate, own.certificate), (trusted.key, own.key)):
            staged = tmp_path / "staged"
            staged.write_bytes(new.read_bytes())
            os.replace(staged, old)
        assert await probe(client)
        await client.aclose()


def test_the_loop_of_production_runs_it_too(server: RedisServer) -> None:
    """Uvloop."""

    async def use() -> None:
        async with connected(settings(server)) as client:
            await client.call("SET", "key", "value")
            server.pause()
            with pytest.raises(StoreError):
                await client.call("GET", "key")
            server.resume()
            await until_up(client)
            assert await client.call("GET", "key") == b"value"

    uvloop.run(use())

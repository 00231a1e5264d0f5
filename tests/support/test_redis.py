"""The Redis servers of tests do what tests ask of them."""

from pathlib import Path

import pytest
import redis

from tests.support.certificates import self_signed
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("redis-server")


@pytest.mark.parametrize("forget", ["flush", "restart"])
def test_a_server_answers_and_forgets_all_when_it_is_flushed_or_started_again(tmp_path: Path, forget: str) -> None:
    with RedisServer(tmp_path) as server:
        with server.client() as client:
            client.set("key", "value")
            assert client.get("key") == "value"
        getattr(server, forget)()
        with server.client() as client:
            assert client.get("key") is None


def test_a_paused_server_answers_nothing_until_it_goes_on(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.pause()
        with server.client(socket_timeout=0.1) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        with server.client() as client:
            assert client.ping()
        server.pause()  # and is stopped all the same


def test_a_read_only_server_refuses_writes_and_keeps_what_it_has(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as client:
        client.set("key", "value")
        server.read_only(True)
        assert client.get("key") == "value"
        with pytest.raises(redis.ReadOnlyError):
            client.set("key", "other")
        server.read_only(False)
        client.set("key", "other")


@pytest.mark.needs("openssl")
def test_a_server_with_tls_takes_only_clients_with_a_certificate(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "server", tls=self_signed(tmp_path)) as server:
        with server.client() as client:
            assert client.ping()
        with (
            server.client(ssl_certfile=None, ssl_keyfile=None) as client,
            pytest.raises((redis.ConnectionError, redis.TimeoutError)),
        ):
            client.ping()


@pytest.mark.integration
@pytest.mark.needs("redis-sentinel")
def test_sentinels_name_another_master_when_the_first_dies(tmp_path: Path) -> None:
    with WatchedRedis(tmp_path) as watched:
        (first,) = watched.masters()
        assert watched.url.count(",") == 2
        first.kill()
        wait_until(lambda: [server for server in watched.masters() if server is not first], timeout=30)


@pytest.mark.integration
@pytest.mark.needs("redis-cli")
def test_a_cluster_has_three_masters_and_three_replicas(tmp_path: Path) -> None:
    with RedisCluster(tmp_path) as cluster:
        assert len(cluster.masters()) == 3
        with cluster.servers[0].client() as client:
            slots = client.execute_command("CLUSTER SLOTS")
        assert len(slots) == 3
        cluster.flush()

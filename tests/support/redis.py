"""Real Redis servers that tests start: one alone, three watched by Sentinels, six in a Cluster.

They keep nothing on disk, listen on 127.0.0.1 only, and are ready when they answer a PING.

::

    with RedisServer(tmp_path) as server:
        settings = {"metadata": {"url": server.url}}
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.certificates import Certificate
from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.tools import require
from tests.support.waiting import wait_until


class RedisServer(ServerProcess):
    """A ``redis-server`` with its files under ``folder``; ``arguments`` are more of its options, as on a command line.

    With ``tls`` it speaks only TLS, shows that certificate, and takes only clients that show one which that signed.
    ``program`` is ``redis-server``, or ``redis-sentinel`` with its file as the first of ``arguments``.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str] = (),
        *,
        tls: Certificate | None = None,
        program: str = "redis-server",
        port: ReservedPort | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._reserved = port or ReservedPort()
        self._tls = tls
        self.port = self._reserved.number
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'rediss' if tls else 'redis'}://{self.host}"
        own = ["--bind", "127.0.0.1", "--dir", str(folder.absolute())]
        if program == "redis-server":
            own += ["--save", "", "--appendonly", "no"]
        if tls is None:
            own += ["--port", str(self.port)]
        else:
            own += ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", str(tls.certificate)]
            own += ["--tls-key-file", str(tls.key), "--tls-ca-cert-file", str(tls.certificate)]
        first, rest = (arguments[:1], arguments[1:]) if program == "redis-sentinel" else ((), arguments)
        super().__init__([require(program), *first, *own, *rest], ready=self.url, log=folder / "redis.log")

    def client(self, **options: Any) -> "redis.Redis":
        """A client that gives text and never tries again; as a context manager it is closed at the end."""
        own: dict[str, Any] = {
            "port": self.port,
            "decode_responses": True,
            "socket_timeout": 5,
            "retry": Retry(NoBackoff(), 0),
        }
        if self._tls is not None:
            own |= {"ssl": True, "ssl_ca_certs": str(self._tls.certificate)}
            own |= {"ssl_certfile": str(self._tls.certificate), "ssl_keyfile": str(self._tls.key)}
        return redis.Redis(**own | options)

    def wait_ready(self) -> None:
        """Wait until it answers a PING, if only to say that it wants a password."""
        try:
            wait_until(self._pongs, timeout=self._start_within, what=f"{self.url} is ready")
        except AssertionError as error:
            error.add_note(self._end_of_log())
            self.kill()
            raise

    def pause(self) -> None:
        """Let it hang (SIGSTOP): connections are still accepted, by the kernel, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`; no harm otherwise."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Forget all data, and nothing else."""
        with self.client() as client:
            client.flushall()

    def read_only(self, on: bool) -> None:
        """Refuse writes from now on, as a master does that a failover has made a replica; or take them again."""
        with self.client() as client, ReservedPort() as dead:
            # Of a master that cannot be reached nothing is taken over: the data stays.
            client.execute_command("REPLICAOF", *(("127.0.0.1", dead.number) if on else ("NO", "ONE")))

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._reserved.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.resume()
        super().__exit__(kind, error, trace)

    def _pongs(self) -> bool:
        status = self._running().poll()
        assert status is None, f"{self.command} ended with status {status}"
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                return False


class _Together(contextlib.ExitStack):
    """Several servers that are started and stopped together; a context manager."""

    servers: Sequence[RedisServer]

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        raise NotImplementedError

    def masters(self) -> Sequence[RedisServer]:
        """The servers that take writes, as they say themselves."""
        return [server for server in self.servers if role(server) == "master"]

    def flush(self) -> None:
        """Forget all data."""
        for server in self.masters():
            server.flush()


class WatchedRedis(_Together):
    """A master with two replicas, and three Sentinels that choose another master half a second after its death."""

    SERVICE = "mymaster"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        """Its place in the settings."""
        return f"redis+sentinel://{','.join(sentinel.host for sentinel in self.sentinels)}/{self.SERVICE}"

    def _start(self) -> None:
        for number in range(3):
            replica = ["--replicaof", f"127.0.0.1 {self.servers[0].port}"] if number else []
            own = ["--repl-diskless-sync-delay", "0", *replica]
            self.servers.append(self.enter_context(RedisServer(self._folder / f"redis-{number}", own)))
        for number in range(3):
            folder = self._folder / f"sentinel-{number}"
            folder.mkdir()
            file = folder / "sentinel.conf"
            file.write_text(
                f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
                f"sentinel down-after-milliseconds {self.SERVICE} 500\n"
                f"sentinel failover-timeout {self.SERVICE} 3000\n"
            )
            self.sentinels.append(self.enter_context(RedisServer(folder, [str(file)], program="redis-sentinel")))
        wait_until(self._is_whole, timeout=30, what="the Sentinels know one another and the replicas")

    def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                seen = dict(client.sentinel_master(self.SERVICE))
            if seen["num-other-sentinels"] != 2 or seen["num-slaves"] != 2:
                return False
        return all(_is_linked(server) for server in self.servers)


class RedisCluster(_Together):
    """Three masters, each with a replica that takes its place a second after its death."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.servers: list[RedisServer] = []

    @property
    def url(self) -> str:
        """Its place in the settings; two of six servers are enough to find the others."""
        return f"redis+cluster://{','.join(server.host for server in self.servers[:2])}"

    def _start(self) -> None:
        places = []
        for number in range(6):
            bus = self.enter_context(ReservedPort())
            own = ["--cluster-enabled", "yes", "--cluster-port", str(bus.number), "--cluster-node-timeout", "1000"]
            own += ["--repl-diskless-sync-delay", "0"]
            server = self.enter_context(RedisServer(self._folder / f"redis-{number}", own))
            self.servers.append(server)
            places.append(f"{server.host}@{bus.number}")
        create = ["--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"]
        done = subprocess.run([require("redis-cli"), *create], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(self._is_whole, timeout=30, what="the servers of the Cluster know one another")

    def _is_whole(self) -> bool:
        for server in self.servers:
            with server.client() as client:
                state = str(client.execute_command("CLUSTER", "INFO"))
                nodes = str(client.execute_command("CLUSTER", "NODES"))
            if "cluster_state:ok" not in state or nodes.count(" connected") != 6 or nodes.count("slave") != 3:
                return False
        return all(_is_linked(server) for server in self.servers)


def role(server: RedisServer) -> str:
    """``master`` or ``slave``, as it says itself; ``none`` when it says nothing."""
    with server.client(socket_timeout=1) as client:
        try:
            return str(client.execute_command("ROLE")[0])
        except (redis.ConnectionError, redis.TimeoutError):
            return "none"


def _is_linked(server: RedisServer) -> bool:
    """Whether a replica has all that its master had; a master has."""
    with server.client() as client:
        return "down" not in str(client.info("replication").get("master_link_status"))

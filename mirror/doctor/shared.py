"""The Redis that replicas share: reached, logged in, a master, with room; and may its user do what is needed."""

import asyncio
import secrets
import ssl
import statistics
import time
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError, ResponseError

from mirror.config import MetadataSettings
from mirror.config.hosts import join
from mirror.config.redis import RedisPlace, Topology
from mirror.doctor import info
from mirror.doctor.reach import Place, connected, resolved, shown_certificate
from mirror.doctor.refused import refused
from mirror.doctor.report import Subject
from mirror.shared import topology
from mirror.shared.connect import Server
from mirror.upstream.dial import resolve

_ROUNDS = 5
_SLOW = 0.050  # seconds
_ANSWER_WITHIN = 3.0

# Commands that the mirror's scripts use, on a key of the doctor's own that goes by itself.
_PROBE = """
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'at', time[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], 'at')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('INCR', KEYS[1])
redis.call('EXISTS', KEYS[1])
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], 1, 'at')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', 0)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, 1)
redis.call('DEL', KEYS[1])
"""
_LASTS = 10_000  # milliseconds


class ServerCheck:
    """Examines the way to one server that ``metadata.url`` names, whatever Redis says there."""

    def __init__(
        self, settings: MetadataSettings, address: tuple[str, int], now: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._place = Place(*address, "metadata.url")
        self._now = now

    async def __call__(self, subject: Subject) -> None:
        """Note what is found."""
        await self.reach(subject)

    async def reach(self, subject: Subject) -> bool:
        """Whether there is a way to it."""
        place = self._settings.place
        assert place is not None, "there is a Redis"
        addresses = await resolved(subject, self._place, resolve)
        accepting = await connected(subject, self._place, addresses) if addresses else ()
        if not accepting or not place.tls:
            return bool(accepting)
        try:
            tls = await asyncio.to_thread(self._tls)
        except OSError as error:
            subject.fail(
                "TLS",
                f"the files of metadata.ca_file, client_certificate and client_key cannot be used: {_why(error)}",
                "mend them: they must be there and be PEM, the key without a passphrase",
            )
            return False
        return await shown_certificate(
            subject, self._place, accepting[0], tls, ca_setting="metadata.ca_file", now=self._now()
        )

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        for file in (settings.ca_file, settings.client_certificate, settings.client_key):
            if file is not None:
                file.stat()  # OpenSSL does not say which one is absent
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.client_certificate is not None:
            context.load_cert_chain(settings.client_certificate, settings.client_key, password="")
        return context


class StoreCheck:
    """Examines the Redis as a whole: a server, the master that Sentinels name, or the masters of a Cluster."""

    def __init__(self, settings: MetadataSettings, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now

    async def __call__(self, subject: Subject) -> None:
        """Note what is found."""
        place = self._settings.place
        assert place is not None, "there is a Redis"
        if place.topology is Topology.ALONE and not await ServerCheck(
            self._settings, place.servers[0], self._now
        ).reach(subject):
            return
        store = topology.topology_of(self._settings)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await store.renew()
                masters = store.masters()
                for answers in await asyncio.gather(*(master.exchange([("PING",)]) for master in masters)):
                    _raised(answers)
            subject.ok("answer", _masters(place, masters))
            good = True
            for master in masters:
                part = Subject(subject.name, subject.about)
                good = await self._server(part, master, place) and good
                if place.topology is Topology.CLUSTER:
                    subject.take_over(part, join(*master.address))
                else:
                    subject.findings += part.findings
            if good:
                await self._scripts(subject, store)
        except TimeoutError:
            subject.fail(
                "answer",
                f"accepts connections, and does not answer within {_ANSWER_WITHIN:g} s",
                "see to that server: it hangs, or a slow command holds it up (SLOWLOG GET)",
            )
        except (RedisError, OSError) as error:
            subject.fail(*refused(error, place))
        finally:
            await store.aclose()

    async def _server(self, subject: Subject, master: Server, place: RedisPlace) -> bool:
        """What one server says of itself, and how fast it is; whether it is of the right kind."""
        (found,) = await master.exchange([("INFO",)])
        if isinstance(found, ResponseError):
            subject.warn(
                "info",
                f"the user may not ask for it ({found}): version, memory and persistence are not known",
                "allow it: ACL SETUSER NAME +info",
            )
        elif not info.judge(subject, info.parse(found.decode(errors="replace")), place.topology):
            return False
        seconds = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            await master.exchange([("PING",)])
            seconds.append(time.perf_counter() - began)
        _latency(subject, "PING", statistics.median(seconds))
        return True

    async def _scripts(self, subject: Subject, store: topology.Topology) -> None:
        key = f"wm1:{{doctor}}:{secrets.token_hex(8)}"
        seconds = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            _raised(await store.exchange([("EVAL", _PROBE, 1, key, _LASTS)]))
            seconds.append(time.perf_counter() - began)
        _latency(subject, "scripts", statistics.median(seconds))
        for server in store.masters():
            _raised(await server.exchange([("SCAN", 0, "MATCH", "wm1:{doctor}:*", "COUNT", 1)]))


def _raised(answers: Sequence[object]) -> None:
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer


def _masters(place: RedisPlace, masters: Sequence[Server]) -> str:
    named = ", ".join(join(*master.address) for master in masters)
    match place.topology:
        case Topology.ALONE:
            return f"{named} answers"
        case Topology.SENTINEL:
            return f"Sentinels name {named} as the master of {place.service}, and it answers"
        case Topology.CLUSTER:
            return f"a Cluster of {len(masters)} masters, which all answer: {named}"


def _latency(subject: Subject, check: str, seconds: float) -> None:
    said = f"{seconds * 1000:.1f} ms (median of {_ROUNDS})"
    if seconds > _SLOW:
        subject.warn(
            check,
            said,
            "put Redis nearer to the replicas, or see what holds it up (SLOWLOG GET): each move of a tag asks it "
            "several times, and what takes half a second is given up",
        )
    else:
        subject.ok(check, said)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "TLS fails").replace("_", " ").lower()
    why = error.strerror or type(error).__name__
    return why if error.filename is None else f"{error.filename}: {why}"

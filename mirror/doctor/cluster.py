"""The replicas: is this one reached where it says, do the others answer, and do all have one secret and one time."""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.exceptions import RedisError, ResponseError

from mirror.cluster.beat import ALIVE_FOR
from mirror.cluster.secret import SKEW, Secret
from mirror.config import Settings
from mirror.config.hosts import is_loopback
from mirror.doctor.asking import answered_at
from mirror.doctor.heard import Heard
from mirror.doctor.probes import System, holder_of
from mirror.doctor.report import Subject
from mirror.errors import BlobUnknown, StartError, Unauthorized, UpstreamError
from mirror.peers import ROOT
from mirror.shared import keys
from mirror.shared.topology import topology_of
from mirror.upstream.answers import error_codes
from mirror.upstream.origins import host_of
from mirror.upstream.session import drain
from mirror.upstream.transport import Transport
from mirror.upstream.trust import Reach, Trust, trust_in

_CONNECT_WITHIN = 2.0
_ANSWER_WITHIN = 3.0
_CLOCKS_APART = 60.0
_MAX_ASKED = 32


_BEATS = "return {redis.call('TIME')[1], redis.call('HGETALL', KEYS[1])}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a replica answered. ``problem`` and ``advice`` are empty when it is one of ours, and takes our secret."""

    problem: str = ""
    advice: str = ""
    reached: bool = True
    clock_ahead: float | None = None


class ClusterCheck:
    """Examines what ``cluster`` says, and the replicas that have beaten in Redis lately. ``now`` is the wall clock."""

    def __init__(
        self, settings: Settings, *, now: Callable[[], float] = time.time, system: System | None = None
    ) -> None:
        self._settings = settings
        self._now = now
        self._system = system or System()

    async def __call__(self, subject: Subject) -> None:
        """Note what is found."""
        advertised, file = self._settings.cluster.advertise, self._settings.cluster.secret_file
        if advertised is None or file is None:
            subject.warn(
                "advertise",
                "not set: replicas agree on tags, and each downloads every blob for itself",
                "set cluster.advertise to this replica's own address, and cluster.secret_file to a secret of all",
            )
            self._hosted(subject)
            return
        secret = await self._secret(subject, file)
        members = await self._members(subject)
        self._addresses(subject, advertised, members)
        self._hosted(subject, {*members, advertised} if members else ())
        trust = trust_in(self._settings.cluster.ca_file, "cluster.ca_file", time.monotonic)
        if secret is None or not (trust is None or await self._authorities(subject, trust)):
            return
        others = [address for address in members if address != advertised][:_MAX_ASKED]
        transport = Transport(
            trust=trust,
            connect_within=_CONNECT_WITHIN,
            idle_for=_ANSWER_WITHIN,
        )
        try:
            own, *rest = await asyncio.gather(
                *(ask(transport, address, secret, self._now) for address in [advertised, *others])
            )
        finally:
            await transport.aclose()
        self._own(subject, advertised, own)
        for address, asked in zip(others, rest, strict=True):
            self._other(subject, address, asked)

    async def _secret(self, subject: Subject, file: Path) -> Secret | None:
        try:
            secret = await asyncio.to_thread(Secret, file)
        except StartError as error:
            subject.fail(
                "secret",
                error.message,
                "the mirror refuses to start: write the same file for all replicas (rotate it by a second line)",
            )
            return None
        subject.ok("secret", f"{file} can be used")
        return secret

    async def _authorities(self, subject: Subject, trust: Trust) -> bool:
        with Heard("cluster.ca_file") as complaints:
            try:
                await trust.context(Reach.NAMED)
            except UpstreamError as failure:
                advice = "let the file be there and be PEM: until then no replica with https is asked for anything"
                subject.fail("ca_file", complaints.instead_of(failure), advice)
                return False
        return True

    async def _members(self, subject: Subject) -> Mapping[str, set[str]]:
        """The addresses of the replicas that are alive, each with the machines that advertise it."""
        store = topology_of(self._settings.metadata)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await store.renew()
                (answer,) = await store.exchange([("EVAL", _BEATS, 1, keys.members())])
            if isinstance(answer, ResponseError):
                raise answer
        except (RedisError, OSError):  # a time-out is one, too
            subject.warn("members", "Redis does not tell them", "see what is said of metadata.url")
            return {}
        finally:
            await store.aclose()
        seconds, fields = int(answer[0]), answer[1]
        found: dict[str, set[str]] = defaultdict(set)
        for name, beat in zip(fields[::2], fields[1::2], strict=True):
            at, _, address = beat.decode().split(" ", 2)
            if address and seconds - int(at) / 1000 <= ALIVE_FOR + 1:
                found[address].add(name.decode().partition("/")[0])
        return found

    def _addresses(self, subject: Subject, advertised: str, members: Mapping[str, set[str]]) -> None:
        """Whether the addresses can be told apart, and be reached from elsewhere."""
        if members:
            subject.ok("members", f"{len(members)} alive: {', '.join(sorted(members))}")
        for address, machines in members.items():
            if len(machines) > 1:
                subject.fail(
                    "members",
                    f"{address} is advertised by {len(machines)} machines: {', '.join(sorted(machines))}",
                    "set cluster.advertise of each replica to its own address (in Kubernetes the pod's IP), not to "
                    "that of a balancer or Service",
                )
        if _is_here(advertised) and not all(map(_is_here, members)):
            subject.fail(
                "advertise",
                f"{advertised} is reached from this machine alone, and other replicas are elsewhere",
                "set cluster.advertise to an address that they reach",
            )

    def _hosted(self, subject: Subject, members: Collection[str] = ()) -> None:
        """Whether replicas can host together, and are enough for the copies that are wanted."""
        hosted = self._settings.hosted
        if self._settings.cannot_host:
            subject.warn(
                "hosted",
                f"nothing can be pushed to {hosted.prefix}/: replicas host together, and cannot ask one another",
                "set cluster.advertise and cluster.secret_file, or hosted.enabled: false, if that is not wanted",
            )
        elif hosted.enabled and 0 < len(members) < hosted.replicas:
            subject.warn(
                "hosted",
                f"what is pushed lies on {len(members)} of the {hosted.replicas} disks that hosted.replicas asks for",
                "start more replicas, or let hosted.replicas be less",
            )

    def _own(self, subject: Subject, advertised: str, asked: Asked) -> None:
        if not asked.problem:
            subject.ok("advertise", f"a replica answers at {advertised}, and takes our secret")
        elif asked.reached or holder_of(self._settings.data_dir / "lock", self._system) is not None:
            subject.fail("advertise", f"{advertised}: {asked.problem}", asked.advice)
        else:
            subject.warn(
                "advertise",
                f"{advertised}: {asked.problem}; no mirror seems to run here yet",
                "run doctor again when it does",
            )

    def _other(self, subject: Subject, address: str, asked: Asked) -> None:
        check = "replica"
        if asked.problem:
            subject.fail(check, f"{address}: {asked.problem}", asked.advice)
        elif asked.clock_ahead is not None and abs(asked.clock_ahead) > _CLOCKS_APART:
            subject.warn(
                check,
                f"{address}: its clock is {abs(asked.clock_ahead):.0f} s off ours",
                f"let both set their clocks by NTP: from {SKEW:g} s on replicas refuse one another",
            )
        else:
            subject.ok(check, f"{address} answers, and takes our secret")


async def ask(transport: Transport, address: str, secret: Secret, now: Callable[[], float]) -> Asked:
    """Ask a replica for a blob that nobody has: only one of ours knows how to say that it lacks it."""
    target = f"{ROOT}blobs/sha256:{secrets.token_hex(32)}?held=1"
    url = httpx.URL(address).join(target)
    began = now()
    signed = secret.sign("GET", f"{address}{target}", began)
    try:
        request = httpx.Request("GET", url, headers={"authorization": signed.header})
        response = await transport.send(request, reach=Reach.NAMED, endpoint=host_of(url))
        body = await drain(response)
    except UpstreamError as failure:
        return Asked(
            failure.message,
            "the others must reach it there: check cluster.advertise, listen, and network policies between replicas",
            reached=False,
        )
    date, codes = answered_at(response), error_codes(body)
    ahead = None if date is None else date - (began + now()) / 2
    if response.status_code == BlobUnknown.status and BlobUnknown.code in codes:
        return Asked(clock_ahead=ahead)
    if response.status_code == Unauthorized.status and Unauthorized.code in codes:
        return _refused(ahead)
    return Asked(
        f"what answers there is no replica of this mirror (status {response.status_code})",
        "set cluster.advertise to the address and port of the mirror itself, and cluster.secret_file of all replicas",
        clock_ahead=ahead,
    )


def _refused(ahead: float | None) -> Asked:
    if ahead is not None and abs(ahead) >= SKEW - 1:
        return Asked(
            f"it refuses us: its clock is {abs(ahead):.0f} s off ours, and {SKEW:g} s are allowed",
            "let both set their clocks by NTP",
            clock_ahead=ahead,
        )
    return Asked(
        "it refuses us: it has another secret",
        "let cluster.secret_file be the same for all replicas",
        clock_ahead=ahead,
    )


def _is_here(address: str) -> bool:
    return is_loopback(httpx.URL(address).host)

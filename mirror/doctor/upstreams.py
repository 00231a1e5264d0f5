"""The registries, endpoint by endpoint: found, reached, trusted, answering, and for whom."""

import asyncio
import os
import ssl
import statistics
import time
from collections.abc import Callable, Mapping

import httpx

from mirror.config import EndpointSettings, UpstreamSettings
from mirror.doctor.asking import Caller, Seen, rate_limits
from mirror.doctor.heard import Heard
from mirror.doctor.reach import Place, connected, resolved, shown_certificate
from mirror.doctor.remedies import remedy
from mirror.doctor.report import Subject
from mirror.errors import NotFound, UpstreamDenied, UpstreamError
from mirror.upstream import ratelimit
from mirror.upstream.credentials import source_of
from mirror.upstream.dial import Resolver, resolve
from mirror.upstream.endpoints import endpoints_of
from mirror.upstream.proxy import Proxies, Proxy
from mirror.upstream.transport import Transport
from mirror.upstream.trust import OneTrust, Reach, Trust, trust_of, usual

_CONNECT_WITHIN = 3.0
_ANSWER_WITHIN = 5.0
_ASKED_AGAIN = 3
_CLOCKS_APART = 60.0

_DOCKER_HUB = "registry-1.docker.io"
_LIMIT_OF_DOCKER_HUB = ("ratelimitpreview/test", "latest")
"""What Docker offers to ask about its limit; a HEAD does not count (https://docs.docker.com/docker-hub/usage/pulls/)."""


class EndpointCheck:
    """Examines the endpoint ``index`` of the upstream ``name``; ``settings`` are its effective ones.

    ``clients_decide``: clients' credentials are shown to the last endpoint (``auth.mode: upstream``).
    """

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        index: int,
        *,
        clients_decide: bool = False,
        resolver: Resolver = resolve,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._settings = settings
        self._index = index
        self._endpoint: EndpointSettings = settings.endpoints[index]
        self._resolve = resolver
        self._proxies = Proxies.of(environment)
        self._now = now
        self.key = f"upstreams.{name}.endpoints[{index}]"
        last = index == len(settings.endpoints) - 1
        self._of_clients = clients_decide and last
        self._credentials = f"upstreams.{name}.credentials" if last else f"{self.key}.credentials"

    async def __call__(self, subject: Subject) -> None:
        """Note what is found, from the name to an answer; what comes after a failure is not looked at."""
        if self._settings.offline:
            subject.ok("offline", "never asked: upstreams." + self._name + ".offline is set")
            return
        trust = trust_of(self._endpoint, self.key, asyncio.get_running_loop().time) or OneTrust(usual())
        try:
            if not await self._reach(subject, trust):
                return
        except UpstreamError as failure:
            subject.fail("proxy", failure.message, "correct it, or unset it where the mirror starts")
            return
        transport = Transport(
            trust=trust,
            proxies=self._proxies,
            resolver=self._resolve,
            connect_within=_CONNECT_WITHIN,
            idle_for=_ANSWER_WITHIN,
        )
        try:
            await self._talk(subject, transport)
        finally:
            await transport.aclose()

    async def _reach(self, subject: Subject, trust: Trust) -> bool:
        """Whether there is a way to it. Raises `UpstreamError` when the environment names a proxy that is none."""
        url = httpx.URL(self._endpoint.url)
        proxy = self._proxies.between(url)
        if proxy is not None:
            return await self._reach_proxy(subject, proxy)
        place = Place(url.host, url.port or (443 if url.scheme == "https" else 80), f"{self.key}.url")
        addresses = await resolved(subject, place, self._resolve)
        accepting = await connected(subject, place, addresses) if addresses else ()
        if not accepting:
            return False
        if url.scheme == "https":
            tls = await self._context(subject, trust)
            return tls is not None and await shown_certificate(
                subject, place, accepting[0], tls, ca_setting=f"{self.key}.ca_file", now=self._now()
            )
        if self._endpoint.is_plain:
            subject.warn(
                "TLS",
                "none: whoever is on the way can read credentials, and tell what a tag names",
                f"write {self.key}.url with https:// if the registry offers it",
            )
        return True

    async def _reach_proxy(self, subject: Subject, proxy: Proxy) -> bool:
        """Name and certificate of the endpoint are the proxy's matter, or show when it is asked."""
        place = Place(proxy.host, proxy.port, proxy.variable)
        addresses = await resolved(subject, place, self._resolve)
        if not addresses or not await connected(subject, place, addresses):
            return False
        subject.ok(
            "proxy",
            f"asked through {proxy.name} ({proxy.variable}). Of the hosts to which a registry sends the mirror on "
            "(token services, storage) addresses and localhost are refused; to which others it may go is the proxy's "
            "policy: let it refuse private networks",
        )
        return True

    async def _context(self, subject: Subject, trust: Trust) -> ssl.SSLContext | None:
        with Heard(self.key) as complaints:
            try:
                return await trust.context(Reach.ENDPOINT)
            except UpstreamError as failure:
                advice = "the files must be there and be PEM, the key without a passphrase"
                subject.fail("TLS", complaints.instead_of(failure), advice)
                return None

    async def _talk(self, subject: Subject, transport: Transport) -> None:
        clock = asyncio.get_running_loop().time
        url = httpx.URL(self._endpoint.url)
        logins = source_of(self._endpoint.credentials, url, self._credentials, clock)
        caller = Caller(
            self._endpoint.url,
            auth_hosts=self._endpoint.auth_hosts,
            logins=logins,
            setting=self._credentials,
            transport=transport,
            clock=clock,
            now=self._now,
        )
        with Heard(self._credentials) as complaints:
            try:
                await caller.ask()
            except (UpstreamError, NotFound) as failure:
                self._vouch(subject, caller.seen)
                if self._of_clients and isinstance(failure, UpstreamDenied) and caller.seen.login is None:
                    subject.ok("auth", "it asks for credentials, and clients send theirs (auth.mode: upstream)")
                    self._clocks(subject, caller.seen)
                    return
                check, advice = remedy(failure, caller.seen, self.key, self._credentials)
                subject.fail(check, complaints.instead_of(failure), advice)
                self._clocks(subject, caller.seen)
                return
        if caller.seen.redirected_to is not None:
            subject.warn(
                "/v2/",
                f"redirects to {caller.seen.redirected_to}",
                f"write that into {self.key}.url: each request takes two, and credentials do not go along",
            )
        else:
            self._welcome(subject, caller.seen)
            self._vouch(subject, caller.seen)
        await self._latency(subject, caller)
        self._clocks(subject, caller.seen)
        await self._limits(subject, caller.seen, transport)

    def _welcome(self, subject: Subject, seen: Seen) -> None:
        """How we were let in."""
        asked = " or ".join(dict.fromkeys(scheme.capitalize() for scheme in seen.schemes))
        if seen.realm is not None:
            asked = f"tokens of {seen.realm}"
        if not asked:
            more = "" if seen.login is None else f"; {self._credentials} shows its worth only in private repositories"
            subject.ok("auth", f"/v2/ answers anyone{more}")
        elif seen.login is None:
            subject.ok("auth", f"{asked}, anonymous")
        else:
            subject.ok("auth", f"{asked}; {self._credentials} is accepted")

    def _vouch(self, subject: Subject, seen: Seen) -> None:
        """Whether clients' credentials may go where the endpoint wants them."""
        if self._of_clients and seen.token is not None and not seen.token.trusted:
            subject.warn(
                "clients",
                f"their credentials would have to go to {seen.realm}, and go nowhere: none of them is let in",
                f"if {seen.realm} is the token service of this registry, write it into {self.key}.auth_hosts",
            )

    async def _latency(self, subject: Subject, caller: Caller) -> None:
        caller.seen.seconds.clear()
        for _ in range(_ASKED_AGAIN):
            try:
                await caller.again()
            except UpstreamError as failure:
                subject.warn("latency", failure.message, "the second request failed where the first did not")
                return
        seconds, patience = statistics.median(caller.seen.seconds), self._settings.policy.revalidate_for
        said = f"{seconds * 1000:.0f} ms (median of {_ASKED_AGAIN})"
        if seconds >= patience:
            subject.warn(
                "latency",
                f"{said}; a held tag waits {patience:g} s for upstream's word and is then served as it was",
                f"raise upstreams.{self._name}.revalidate_for, or take a registry that is nearer",
            )
        else:
            subject.ok("latency", said)

    def _clocks(self, subject: Subject, seen: Seen) -> None:
        if seen.clock_ahead is None:
            return
        apart, word = abs(seen.clock_ahead), "ahead" if seen.clock_ahead > 0 else "behind"
        if apart > _CLOCKS_APART:
            subject.warn(
                "clock",
                f"the registry's is {apart:.0f} s {word} of ours",
                "let this machine set its clock by NTP: certificates and tokens are good for a time",
            )
        else:
            subject.ok("clock", "agrees within a second" if apart <= 1.5 else f"{apart:.0f} s {word} of ours")

    async def _limits(self, subject: Subject, seen: Seen, transport: Transport) -> None:
        """What is told about limits. Nothing is asked for it but what is known not to count."""
        found = dict(seen.rate_limits)
        if self._endpoint.host == _DOCKER_HUB:
            endpoint = endpoints_of(
                self._name,
                self._settings,
                transport=transport,
                clock=asyncio.get_running_loop().time,
                observe=lambda _, response: found.update(rate_limits(response)),
            )[self._index]
            try:
                await endpoint.head_manifest(*_LIMIT_OF_DOCKER_HUB)
            except (UpstreamError, NotFound) as failure:
                subject.warn("rate limit", failure.message, "what Docker Hub still grants is not known")
                return
            finally:
                await endpoint.aclose()
        if not found:
            subject.ok("rate limit", "none is told")
            return
        told = ", ".join(f"{name}: {value}" for name, value in sorted(found.items()))
        limit = ratelimit.read(found, self._now())
        if limit is not None and limit.remaining < ratelimit.SCARCE_BELOW:
            subject.warn(
                "rate limit",
                f"{limit.remaining:.0%} left: {told}",
                f"set {self._credentials} (users are granted more than anonymous requests), or put another mirror "
                f"before it into upstreams.{self._name}.endpoints; until then held tags are asked about later",
            )
        else:
            subject.ok("rate limit", told)

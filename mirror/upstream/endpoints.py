"""The endpoints of an upstream, as its settings have them."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import httpx

from mirror.config import UpstreamSettings
from mirror.upstream.client import Endpoint
from mirror.upstream.credentials import source_of
from mirror.upstream.origins import host_of
from mirror.upstream.proxy import Proxies
from mirror.upstream.pushing import ANSWERS_WITHIN, Pushing
from mirror.upstream.session import Session
from mirror.upstream.transport import Transport
from mirror.upstream.trust import trust_of


def endpoints_of(
    name: str,
    settings: UpstreamSettings,
    *,
    transport: Transport | None,
    clock: Callable[[], float],
    observe: Callable[[str, httpx.Response], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Sequence[Endpoint]:
    """The endpoints of the upstream ``name``, in order; ``settings`` are its effective ones.

    ``transport`` stays the caller's, who closes it; an endpoint with TLS files of its own has another, alike,
    and without ``transport`` each has its own, through the proxies that ``environment`` names.
    Helpers are run with that environment.
    ``observe`` is called with an endpoint's host and each answer that it has sent itself.
    """
    endpoints = []
    for index, one in enumerate(settings.endpoints):
        session, own = _session_of(name, settings, index, transport, clock, environment, observe)
        endpoints.append(Endpoint(session, prefix=one.repository_prefix or "", own=own))
    return endpoints


def origin_to_push_to(
    name: str,
    settings: UpstreamSettings,
    *,
    clock: Callable[[], float],
    transport: Transport | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Pushing:
    """The last endpoint of the upstream ``name``, for pushes, with connections and tokens of its own.

    ``transport`` is as for `endpoints_of`; without it, one that waits longer than pulls may.
    """
    last = len(settings.endpoints) - 1
    patient = Transport(proxies=Proxies.of(environment), idle_for=ANSWERS_WITHIN)
    session, own = _session_of(name, settings, last, transport or patient, clock, environment)
    if transport is None:
        own = own or patient
    return Pushing(session, prefix=settings.endpoints[last].repository_prefix or "", own=own)


def _session_of(
    name: str,
    settings: UpstreamSettings,
    index: int,
    transport: Transport | None,
    clock: Callable[[], float],
    environment: Mapping[str, str],
    observe: Callable[[str, httpx.Response], None] | None = None,
) -> tuple[Session, Transport | None]:
    """A conversation with one of the endpoints, and its transport where nobody else uses that."""
    one, last = settings.endpoints[index], len(settings.endpoints) - 1
    key = f"upstreams.{name}.endpoints[{index}]"
    setting = f"{key if index < last else f'upstreams.{name}'}.credentials"
    url = httpx.URL(one.url)
    trust = trust_of(one, key, clock)
    if transport is None:
        chosen = Transport(trust=trust, proxies=Proxies.of(environment))
    else:
        chosen = transport if trust is None else transport.trusting(trust)
    session = Session(
        one.url,
        auth_hosts=one.auth_hosts,
        redirect_hosts=one.redirect_hosts,
        logins=source_of(one.credentials, url, setting, clock, environment),
        setting=setting,
        transport=chosen,
        clock=clock,
        observe=None if observe is None else functools.partial(observe, host_of(url)),
    )
    return session, None if chosen is transport else chosen

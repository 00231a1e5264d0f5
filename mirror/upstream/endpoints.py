"""The endpoints of an upstream, as its settings have them."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import httpx

from mirror.config import UpstreamSettings
from mirror.upstream.auth import Whose
from mirror.upstream.client import Endpoint
from mirror.upstream.credentials import source_of
from mirror.upstream.lenders import Lenders
from mirror.upstream.origins import host_of
from mirror.upstream.proxy import Proxies
from mirror.upstream.pushing import ANSWERS_WITHIN, Pushing, Turn
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
    lenders: Lenders | None = None,
) -> Sequence[Endpoint]:
    """The endpoints of the upstream ``name``, in order; ``settings`` are its effective ones.

    ``transport`` stays the caller's, who closes it; an endpoint with TLS files of its own has another, alike,
    and without ``transport`` each has its own, through the proxies that ``environment`` names.
    Helpers are run with that environment.
    ``observe`` is called with an endpoint's host and each answer that it has sent itself.

    ``lenders`` are the clients whose credentials the last one is asked with. A refusal by one before it, which is asked
    without any, is then no word about them.
    """
    endpoints = []
    last = len(settings.endpoints) - 1
    for index, one in enumerate(settings.endpoints):
        logins = lenders if index == last else None
        session, own = _session_of(name, settings, index, transport, clock, environment, observe, logins)
        decides = lenders is None or index == last or one.credentials is not None
        endpoints.append(Endpoint(session, prefix=one.repository_prefix or "", own=own, decides=decides))
    return endpoints


def lenders_of(settings: UpstreamSettings, clock: Callable[[], float]) -> Lenders | None:
    """For the clients of an upstream in ``auth.mode: upstream``; None where the mirror has credentials of its own."""
    origin = settings.endpoints[-1]
    return Lenders(origin.repository_prefix or "", clock) if origin.credentials is None else None


def origin_to_push_to(
    name: str,
    settings: UpstreamSettings,
    *,
    clock: Callable[[], float],
    transport: Transport | None = None,
    environment: Mapping[str, str] = os.environ,
    turn: Turn | None = None,
) -> Pushing:
    """The last endpoint of the upstream ``name``, for pushes, with connections and tokens of its own.

    ``transport`` is as for `endpoints_of`; without it, one that waits longer than pulls may. ``turn`` is held for as
    long as each request is under way.
    """
    last = len(settings.endpoints) - 1
    patient = Transport(proxies=Proxies.of(environment), idle_for=ANSWERS_WITHIN)
    session, own = _session_of(name, settings, last, transport or patient, clock, environment)
    if transport is None:
        own = own or patient
    return Pushing(session, prefix=settings.endpoints[last].repository_prefix or "", own=own, turn=turn)


def _session_of(
    name: str,
    settings: UpstreamSettings,
    index: int,
    transport: Transport | None,
    clock: Callable[[], float],
    environment: Mapping[str, str],
    observe: Callable[[str, httpx.Response], None] | None = None,
    lenders: Lenders | None = None,
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
        logins=lenders or source_of(one.credentials, url, setting, clock, environment),
        whose=Whose.MIRRORS if lenders is None else Whose.CLIENTS,
        setting=setting,
        transport=chosen,
        clock=clock,
        observe=None if observe is None else functools.partial(observe, host_of(url)),
    )
    return session, None if chosen is transport else chosen

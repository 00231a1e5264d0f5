"""The endpoints of an upstream, as its settings have them."""

import functools
from collections.abc import Callable, Sequence

import httpx

from mirror.config import UpstreamSettings
from mirror.upstream.client import Endpoint
from mirror.upstream.credentials import source_of
from mirror.upstream.origins import host_of
from mirror.upstream.session import Session
from mirror.upstream.transport import Transport


def endpoints_of(
    name: str,
    settings: UpstreamSettings,
    *,
    transport: Transport | None,
    clock: Callable[[], float],
    observe: Callable[[str, httpx.Response], None] | None = None,
) -> Sequence[Endpoint]:
    """The endpoints of the upstream ``name``, in order; ``settings`` are its effective ones.

    ``transport`` stays the caller's, who closes it; without one each endpoint has its own, and closes it.
    ``observe`` is called with an endpoint's host and each answer that it has sent itself.
    """
    endpoints = []
    last = len(settings.endpoints) - 1
    for index, one in enumerate(settings.endpoints):
        setting = f"upstreams.{name}{f'.endpoints[{index}]' if index < last else ''}.credentials"
        url = httpx.URL(one.url)
        chosen = transport or Transport()
        session = Session(
            one.url,
            auth_hosts=one.auth_hosts,
            redirect_hosts=one.redirect_hosts,
            logins=source_of(one.credentials, url, setting, clock),
            setting=setting,
            transport=chosen,
            clock=clock,
            observe=None if observe is None else functools.partial(observe, host_of(url)),
        )
        endpoints.append(Endpoint(session, own=None if chosen is transport else chosen))
    return endpoints

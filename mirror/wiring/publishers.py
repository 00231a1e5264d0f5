"""Who takes in what is pushed."""

import asyncio
import contextlib
import time

from mirror.admission import Admission
from mirror.around import run_within
from mirror.config import Settings, UpstreamSettings
from mirror.publish import Publisher
from mirror.publishing import Hosted
from mirror.store.leases import Leases
from mirror.store.uploads import Uploads
from mirror.through import Here, Through
from mirror.upstream.authors import Authors
from mirror.upstream.endpoints import origin_to_push_to
from mirror.upstream.failover import Upstream
from mirror.upstream.lenders import Logins
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


def publishers_of(stack: contextlib.AsyncExitStack, ground: Ground, pulls: Pulls) -> dict[str, Publisher]:
    """Who takes in what is pushed to hosted repositories, and to each upstream that is pushed through to."""
    settings, around = ground.settings, ground.around
    wasm, noted = settings.wasm, ground.findings.note
    admission = Admission(wasm.check, wasm.max_module_size, ground.directory.spool, noted)
    stack.callback(admission.close)
    uploads = _uploads(stack, settings, ground)
    limit = settings.hosted.max_blob_size
    here = Here(
        uploads,
        ground.store,
        around.metadata,
        ground.links,
        ground.tags,
        pulls.manifests,
        pulls.pull,
        around.sharing,
        around.leases,
        Leases(ground.directory.leases),
        admission,
        limit,
    )
    publishers: dict[str, Publisher] = {
        name: _through(stack, upstream, settings.upstreams[name], here, ground.logins)
        for name, upstream in ground.through.items()
    }
    if (catalogue := ground.catalogue) is not None:
        publishers[settings.hosted.prefix] = Hosted(
            uploads,
            ground.store,
            catalogue,
            around.metadata,
            admission,
            limit,
            pulls.together,
            around.sharing.announce,
        )
    return publishers


def _uploads(stack: contextlib.AsyncExitStack, settings: Settings, ground: Ground) -> Uploads:
    """The uploads that are under way on this disk, hosted or on their way to an upstream."""
    hosted = settings.hosted
    forwarding = ground.around.forwarding
    uploads = Uploads(
        ground.directory,
        time.time,
        expires=hosted.upload_expires,
        max_uploads=hosted.max_uploads,
        replica=forwarding.name if forwarding is not None else "",
    )
    stack.callback(uploads.close)
    run_within(stack, uploads.run())
    return uploads


def _through(
    stack: contextlib.AsyncExitStack, upstream: Upstream, settings: UpstreamSettings, here: Here, logins: Logins
) -> Publisher:
    """What is pushed to ``upstream``, whose effective settings are these; ``logins`` are those of its clients."""
    origin = origin_to_push_to(upstream.name, settings, clock=asyncio.get_running_loop().time, turn=upstream.push)
    theirs = upstream.lent is not None
    may_push = theirs or settings.endpoints[-1].credentials is not None
    through = Through(upstream, Authors(origin, logins if theirs else None), here, may_push=may_push)
    stack.push_async_callback(through.aclose)
    return through

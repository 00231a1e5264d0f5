"""What is passed through: lists of tags and referrers. The last good answer is kept for an outage."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from mirror import freshness
from mirror.answer import Hit, Outcome, Passed, Stale
from mirror.digest import Digest
from mirror.errors import ManifestUnknown, MirrorError, NotFound, StoreError, UpstreamDenied, UpstreamTimeout
from mirror.flight import Flights
from mirror.hosted.records import Described
from mirror.metadata.base import KeptAnswer, Metadata
from mirror.names import Place, not_allowed
from mirror.oci import OCI_INDEX
from mirror.suspicion import Suspicion
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

MAX_PAGE = 1000
"""Tags that one answer holds at most, whatever ``n`` says (CVE-2023-2253)."""

_ANSWER_WITHIN = 10.0
"""Seconds for upstream's answer, retries included; `Policy.hold_for` may give less."""

_STAND_IN_AFTER = 3.0
"""The same, where there is an answer that may stand in."""

Question = Callable[[float], Awaitable[KeptAnswer]]
"""Asks upstream, until a deadline of the loop's clock."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: ``body`` is JSON; ``headers`` may hold ``n``, ``last`` or ``page`` of the next one, and
    ``filters`` that upstream applied.
    """

    body: bytes
    headers: Mapping[str, str]
    outcome: Outcome


class Listing:
    """Asks upstream, once for all who ask the same at the same time."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        metadata: Metadata,
        suspicion: Suspicion,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._upstreams = upstreams
        self._metadata = metadata
        self._suspicion = suspicion
        self._now = now
        self._flights: Flights[KeptAnswer] = Flights()

    async def tags(self, place: Place, *, n: int | None, last: str | None) -> Page:
        """A page of tags; the body is the list of their names."""
        if n == 0:
            self._open(place)
            return Page(b"[]", {}, Hit())
        capped = min(n, MAX_PAGE) if n is not None else None

        async def ask(deadline: float) -> KeptAnswer:
            found = await self._upstreams[place.upstream].list_tags(
                place.repository, n=capped, last=last, deadline=deadline
            )
            following = {} if found.next is None else {"last": found.next[1], "n": str(found.next[0] or "")}
            tags = found.tags
            if last in tags:  # of a registry that knows no pages, and sends all its tags every time
                tags = tags[tags.index(last) + 1 :]
            if len(tags) > (capped or MAX_PAGE):
                tags = tags[: capped or MAX_PAGE]
                following = {"last": tags[-1], "n": str(capped or "")}
            return KeptAnswer(json.dumps(tags).encode(), following, self._now())

        return await self._passed_through(place, json.dumps(["tags", *_named(place), capped, last]), ask)

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``."""

        async def ask(deadline: float) -> KeptAnswer:
            found = await self._upstreams[place.upstream].referrers(
                place.repository, digest, artifact_type=artifact_type, page=page, deadline=deadline
            )
            headers = {"filters": found.filters_applied, "page": found.next}
            return KeptAnswer(found.body, {key: value for key, value in headers.items() if value}, self._now())

        key = _of_referrers(place, digest, artifact_type, page)
        if artifact_type and self._open(place).policy.offline and await self._kept(key) is None:
            key = _of_referrers(place, digest, None, page)  # a list that is not filtered says so, and clients filter it
        return await self._passed_through(place, key, ask)

    async def aclose(self) -> None:
        """Stop asking."""
        await self._flights.aclose()

    def _open(self, place: Place) -> Upstream:
        """The upstream, if this repository may be pulled from it."""
        upstream = self._upstreams[place.upstream]
        if not upstream.allows(place.repository):
            raise not_allowed(place.upstream, place.repository)
        return upstream

    async def _passed_through(self, place: Place, key: str, ask: Question) -> Page:
        policy = self._open(place).policy
        kept = await self._kept(key)
        if policy.offline:
            if kept is None:
                raise ManifestUnknown(f"{place.upstream} is offline in the mirror's settings, and this was never asked")
            return Page(kept.body, kept.headers, Hit())
        silence = UpstreamTimeout(f"{place.upstream} took too long lately and has not answered since")
        has_stand_in = kept is not None and freshness.may_stand_in(kept, silence, policy, self._now())
        patience = min(policy.hold_for, _STAND_IN_AFTER if has_stand_in else _ANSWER_WITHIN)
        task, _ = self._flights.join(key, lambda: self._ask(key, place.upstream, ask, patience))
        try:
            if has_stand_in and self._suspicion.rests_on(place.upstream):
                raise silence
            answer = await asyncio.shield(task)
        except MirrorError as failure:
            if kept is not None and freshness.may_stand_in(kept, failure, policy, self._now()):
                return Page(kept.body, kept.headers, Stale(failure))
            raise
        return Page(answer.body, answer.headers, Passed())

    async def _ask(self, key: str, upstream: str, ask: Question, patience: float) -> KeptAnswer:
        try:
            answer = await ask(asyncio.get_running_loop().time() + patience)
        except (UpstreamDenied, NotFound):
            self._suspicion.answered(upstream)  # nothing may stand in for a refusal
            raise
        self._suspicion.answered(upstream)
        try:
            await self._metadata.keep(key, answer)
        except StoreError as error:
            log.error("an answer of %s could not be kept: %s", upstream, error)
        return answer

    async def _kept(self, key: str) -> KeptAnswer | None:
        try:
            return await self._metadata.kept(key)
        except StoreError as error:
            log.error("what was kept could not be read: %s", error)
            return None


async def note_referrer(metadata: Metadata, place: Place, described: Described, now: float) -> None:
    """A manifest that came by import refers to another one: it joins the list that is given while nobody can be asked.

    ``now``: seconds since the epoch. Raises `StoreError`.
    """
    if described.subject is None:
        return
    key = _of_referrers(place, described.subject.digest, None, None)
    kept = await metadata.kept(key)
    listed = _listed(kept)
    manifest = described.manifest
    if any(one.get("digest") == str(manifest.digest) for one in listed):
        return
    own = {"mediaType": manifest.media_type, "digest": str(manifest.digest), "size": len(manifest.body)}
    more = {"artifactType": described.artifact_type, "annotations": dict(manifest.annotations)}
    listed.append(own | {name: value for name, value in more.items() if value})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    headers = kept.headers if kept is not None else {}
    await metadata.keep(key, KeptAnswer(json.dumps(index, ensure_ascii=False).encode(), headers, now))


def _listed(kept: KeptAnswer | None) -> list[dict[str, object]]:
    """What an answer about referrers lists; it is upstream's, and was passed on as it came."""
    try:
        found = json.loads(kept.body)["manifests"] if kept is not None else []
        return [one for one in found if isinstance(one, dict)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _of_referrers(place: Place, digest: Digest, artifact_type: str | None, page: str | None) -> str:
    """Under which key a list of referrers is kept."""
    return json.dumps(["referrers", *_named(place), str(digest), artifact_type, page])


def _named(place: Place) -> tuple[str, str]:
    return place.upstream, place.repository

"""The metadata that replicas share, in Redis; see docs/redis.md for its keys.

What must be atomic is one script on keys of one slot (`mirror.metadata.scripts`). Redis may lose all of it at any time:
each replica has what it learnt in a database of its own, too (`mirror.metadata.resilient`).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mirror.digest import Digest
from mirror.errors import DigestInvalid, LeaseLost, NameInvalid, StoreError, TagInvalid
from mirror.metadata import records, scripts
from mirror.metadata.base import (
    NO_HITS,
    BlobRecord,
    Dropped,
    Fence,
    KeptAnswer,
    Link,
    LinkEntry,
    TagEntry,
    TagRecord,
    Tombstone,
)
from mirror.oci import parse_name, parse_tag
from mirror.shared import keys
from mirror.shared.client import RedisClient, Script

MAX_HOLDERS = 16
"""Addresses that are noted for a blob."""

_MAX_ADDRESS = 300
_PORTION = 200  # records that a script writes at once: a millisecond, for which Redis does nothing else
_READ_PORTION = 500
_SHORTEST_NEGATIVE, _LONGEST_NEGATIVE = 1.0, 10 * 365 * 86400.0

T = TypeVar("T")
L = TypeVar("L", bound=LinkEntry)


class RedisMetadata:
    """Metadata in Redis; see `mirror.metadata.base.Metadata` for what its methods promise.

    ``clock`` gives seconds since the epoch, ``within`` are those that the answer to a command is waited for. The client
    belongs to whoever made it.
    """

    links_incomplete = False

    def __init__(self, client: RedisClient, clock: Callable[[], float], within: float = 0.5) -> None:
        self._client = client
        self._clock = clock
        self._within = within
        self._bulk_within = 4 * within
        self._put_tag = client.script(scripts.PUT_TAG)
        self._delete_tag = client.script(scripts.DELETE_TAG)
        self._announce_move = client.script(scripts.ANNOUNCE_MOVE)
        self._merge_tags = client.script(scripts.MERGE_TAGS)
        self._put_links = client.script(scripts.PUT_LINKS)
        self._drop_link = client.script(scripts.DROP_LINK)
        self._merge_links = client.script(scripts.MERGE_LINKS)
        self._tags_move = client.script(scripts.TAGS_MOVE)
        self._set_hash = client.script(scripts.SET_HASH)
        self._touch = client.script(scripts.TOUCH)
        self._add_holder = client.script(scripts.ADD_HOLDER)
        self._holders = client.script(scripts.HOLDERS)

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """See `Metadata`."""
        answer = await self._client.call("HGETALL", keys.tag(upstream, repository, tag), within=self._within)
        return records.parse_tag(upstream, repository, tag, answer)

    async def announce_move(self, record: TagRecord, fence: Fence | None = None) -> None:
        """See `Metadata`."""
        found = await self._announce_move(
            _tag_keys(record.upstream, record.repository, record.tag, fence),
            [_token(fence), records.VERSION, str(record.digest)],
            within=self._within,
        )
        _not_lost(found, record.tag)

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        """See `Metadata`."""
        digest, media_type, size, at, serial, _ = records.tag_arguments(record)
        found = await self._put_tag(
            _tag_keys(record.upstream, record.repository, record.tag, fence),
            [_token(fence), records.VERSION, _milliseconds(keys.TAG_LASTS), digest, media_type, size, at, serial],
            within=self._within,
        )
        stands = replace(record, serial=int(_not_lost(found, record.tag)), moving=False)
        await self._end_negatives([record])
        return stands

    async def delete_tag(
        self, upstream: str, repository: str, tag: str, at: float, fence: Fence | None = None
    ) -> Tombstone:
        """See `Metadata`."""
        found = await self._delete_tag(
            _tag_keys(upstream, repository, tag, fence),
            [_token(fence), records.VERSION, _milliseconds(keys.TAG_LASTS), repr(float(at))],
            within=self._within,
        )
        return Tombstone(upstream, repository, tag, at, int(_not_lost(found, tag)))

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
        """See `Metadata`. In portions, each of which is taken over at once."""
        for first in range(0, len(entries), _PORTION):
            portion = entries[first : first + _PORTION]
            names = [keys.tag(entry.upstream, entry.repository, entry.tag) for entry in portion]
            values = [value for entry in portion for value in records.tag_arguments(entry)]
            taken = await self._merge_tags(
                [keys.generation(), *names],
                [records.VERSION, _milliseconds(keys.TAG_LASTS), *values],
                within=self._within,
            )
            await self._end_negatives([portion[number - 1] for number in taken])

    async def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]:
        """See `Metadata`."""
        portions: AsyncIterator[Sequence[TagEntry]] = self._all(keys.ALL_TAGS, _tag_at)
        async for found in portions:
            yield found

    async def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """See `Metadata`."""
        async for found in self._all(keys.ALL_LINKS, _link_at):
            if links := [entry for entry in found if isinstance(entry, Link)]:
                yield links

    async def all_drops(self) -> AsyncIterator[Sequence[Dropped]]:
        """See `Metadata`."""
        async for found in self._all(keys.ALL_LINKS, _link_at):
            if drops := [entry for entry in found if isinstance(entry, Dropped)]:
                yield drops

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """See `Metadata`."""
        answer = await self._client.call("HGETALL", keys.link(upstream, repository, digest), within=self._within)
        return records.parse_link(upstream, repository, digest, answer)

    async def put_links(self, links: Iterable[Link]) -> None:
        """See `Metadata`; here, one transaction for some hundred links of a repository."""
        await _all_of(
            self._write_links(self._put_links, portion, [records.link_arguments(link)[:3] for link in portion])
            for portion in _portions(links)
        )

    async def drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """See `Metadata`. Then the number that replicas watch moves, which lies in another slot."""
        found = await self._drop_link(
            [keys.link(upstream, repository, digest)],
            [records.VERSION, _milliseconds(keys.LINK_LASTS), repr(float(at))],
            within=self._within,
        )
        await self._tags_move([keys.generation()], [], within=self._within)
        return Dropped(upstream, repository, digest, at, int(found))

    async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
        """See `Metadata`. In portions, each of which is taken over at once."""
        await _all_of(
            self._write_links(self._merge_links, portion, [records.link_arguments(entry) for entry in portion])
            for portion in _portions(entries)
        )
        if any(isinstance(entry, Dropped) for entry in entries):  # also where the number did not move when it was
            await self._tags_move([keys.generation()], [], within=self._within)

    async def negative(self, upstream: str, repository: str, reference: str, now: float) -> float | None:
        """See `Metadata`."""
        answer = await self._client.call("GET", keys.negative(upstream, repository, reference), within=self._within)
        until = _number(answer)
        return until if until is not None and until > now else None

    async def put_negative(self, upstream: str, repository: str, reference: str, until: float) -> None:
        """See `Metadata`."""
        lasts = min(max(until - self._clock(), _SHORTEST_NEGATIVE), _LONGEST_NEGATIVE)
        key = keys.negative(upstream, repository, reference)
        await self._client.call("SET", key, repr(float(until)), "PX", _milliseconds(lasts), within=self._within)

    async def kept(self, key: str) -> KeptAnswer | None:
        """See `Metadata`."""
        return records.parse_kept(await self._client.call("HGETALL", keys.kept(_hashed(key)), within=self._within))

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        """See `Metadata`."""
        await self._set(keys.kept(_hashed(key)), keys.KEPT_LASTS, records.kept_fields(answer))

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """See `Metadata`."""
        return records.parse_blob(digest, await self._client.call("HGETALL", keys.blob(digest), within=self._within))

    async def put_blob(self, record: BlobRecord) -> None:
        """See `Metadata`."""
        await self._set(keys.blob(record.digest), keys.BLOB_LASTS, records.blob_fields(record))

    async def touch(self, accesses: Mapping[Digest, float], hits: Mapping[Digest, int] = NO_HITS) -> None:
        """See `Metadata`; here, each is a transaction of its own."""
        lasts = _milliseconds(keys.BLOB_LASTS)
        await _all_of(
            self._touch([keys.access(digest)], [lasts, repr(float(at))], within=self._bulk_within)
            for digest, at in accesses.items()
        )

    async def last_access(self, digest: Digest) -> float | None:
        """See `Metadata`."""
        return _number(await self._client.call("GET", keys.access(digest), within=self._within))

    async def holders(self, digest: Digest) -> Sequence[str]:
        """The addresses of replicas that said within a day that they hold a blob, the last one first. Only a hint."""
        arguments = [_milliseconds(keys.HOLDER_LASTS), MAX_HOLDERS]
        found = await self._holders([keys.holders(digest)], arguments, within=self._within)
        return [address.decode() for address in found if len(address) <= _MAX_ADDRESS and address.isascii()]

    async def add_holder(self, digest: Digest, address: str) -> None:
        """Note that the replica at ``address`` holds a blob; of more than `MAX_HOLDERS` the oldest go."""
        lasts = _milliseconds(keys.HOLDER_LASTS)
        await self._add_holder([keys.holders(digest)], [lasts, MAX_HOLDERS, address], within=self._within)

    async def remove_holders(self, digests: Sequence[Digest], address: str) -> None:
        """Note that the replica at ``address`` does not hold these any more."""
        for first in range(0, len(digests), _PORTION):
            portion = digests[first : first + _PORTION]
            commands = [("ZREM", keys.holders(digest), address) for digest in portion]
            await self._client.pipeline(commands, within=self._bulk_within)

    async def aclose(self) -> None:
        """See `Metadata`; what is under way is finished before the client is closed."""

    async def _write_links(
        self, script: Script, entries: Sequence[LinkEntry], arguments: Sequence[Sequence[str]]
    ) -> None:
        names = [keys.link(entry.upstream, entry.repository, entry.digest) for entry in entries]
        values = [text for of_one in arguments for text in of_one]
        await script(names, [records.VERSION, _milliseconds(keys.LINK_LASTS), *values], within=self._bulk_within)

    async def _end_negatives(self, entries: Iterable[TagEntry]) -> None:
        """They lie in other slots than tags. Where this fails they end by themselves, in seconds."""
        ended = [
            ("DEL", keys.negative(entry.upstream, entry.repository, entry.tag))
            for entry in entries
            if isinstance(entry, TagRecord)
        ]
        if ended:
            with contextlib.suppress(StoreError):
                await self._client.pipeline(ended, within=self._within)

    async def _set(self, key: str, lasts: float, fields: Sequence[str | bytes]) -> None:
        await self._set_hash([key], [_milliseconds(lasts), "v", records.VERSION, *fields], within=self._within)

    async def _all(self, pattern: str, parse: Callable[[str, Sequence[bytes]], T | None]) -> AsyncIterator[Sequence[T]]:
        async for names in self._client.scan(pattern, "hash", self._bulk_within):
            for first in range(0, len(names), _READ_PORTION):
                portion = names[first : first + _READ_PORTION]
                answers = await self._client.pipeline([("HGETALL", name) for name in portion], within=self._bulk_within)
                parsed = [parse(name, answer) for name, answer in zip(portion, answers, strict=True)]
                found = [one for one in parsed if one is not None]
                if found:
                    yield found


def _tag_keys(upstream: str, repository: str, tag: str, fence: Fence | None) -> list[str]:
    # Without a fence no lease is looked at; its key stands there for the script.
    return [keys.tag(upstream, repository, tag), keys.generation(), keys.tag_lease(fence.name if fence else "")]


def _token(fence: Fence | None) -> str:
    return fence.token if fence is not None else ""


def _not_lost(found: Any, tag: str) -> Any:
    if found is None:
        raise LeaseLost(f"somebody else writes about the tag {tag} now")
    return found


def _tag_at(key: str, answer: Sequence[bytes]) -> TagEntry | None:
    try:
        upstream, repository, tag = keys.parse_tag(key)
        return records.parse_tag(parse_name(upstream), parse_name(repository), parse_tag(tag), answer)
    except (ValueError, NameInvalid, TagInvalid):
        return None


def _portions(entries: Iterable[L]) -> Iterable[Sequence[L]]:
    """Some hundred entries of one repository at a time."""
    repositories: dict[tuple[str, str], list[L]] = {}
    for entry in entries:
        repositories.setdefault((entry.upstream, entry.repository), []).append(entry)
    for own in repositories.values():
        for first in range(0, len(own), _PORTION):
            yield own[first : first + _PORTION]


def _link_at(key: str, answer: Sequence[bytes]) -> LinkEntry | None:
    try:
        upstream, repository, digest = keys.parse_link(key)
        return records.parse_link(parse_name(upstream), parse_name(repository), Digest.parse(digest), answer)
    except (ValueError, NameInvalid, DigestInvalid):
        return None


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _number(answer: bytes | None) -> float | None:
    try:
        return None if answer is None else records.parse_time(answer)
    except ValueError:
        return None


async def _all_of(works: Iterable[Awaitable[object]]) -> None:
    """Do all; then raise the first error, if there was one."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome

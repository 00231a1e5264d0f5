"""Every metric, declared once; plain numbers until somebody asks.

To count is to add to an entry of a dict, on the loop: ``metrics.fills["ghcr.io", "success"] += 1``. What is told of
the numbers, and how those of several workers are added up, stands in `mirror.exposition`.

No label holds a repository, a tag, a client or anything else that a request may choose: their number has no bound.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

PREFIX = "wasm_mirror_"

Labels = tuple[str | int, ...]
"""The values of a metric's labels, in their order."""

Snapshot = Mapping[str, Mapping[tuple[str, ...], tuple[float, ...]]]
"""The numbers of some metrics at one moment, by the metric's name and its labels.

Of a counter and a gauge one number; of a histogram those of its buckets, then the sum. They may be added, one by one.
"""


class Kind(Enum):
    """What Prometheus calls the type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric. ``values`` are those that a label may have, where they can be listed."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


RESULTS_OF_FILLS = ("success", "resumed", "taken_over", "manifest_failure", "download_failure", "digest_mismatch")
FAILED_QUESTIONS = ("denied", "invalid", "unavailable", "timeout", "cut")
RESULTS_OF_LOOKUPS = ("hit", "miss", "stale", "negative", "collapsed")
RESULTS_OF_PUSHES = ("success", "warned", "refused", "failed", "cut")
KINDS_OF_REPOSITORIES = ("hosted", "through")
RESULTS_OF_SCRUBS = ("sound", "damaged", "unreadable", "restored", "lost")
REASONS_TO_STAY = ("hosted", "pinned", "in_flight", "young")
RESULTS_OF_WARMING = ("held", "fetched", "refused", "failed")
VERDICTS = ("accepted", "refused", "not_wasm")

REQUESTS = Declared(
    "requests_total",
    Kind.COUNTER,
    "Requests that were answered. status is cut for an answer that began and could not be finished, none for none.",
    ("operation", "status"),
)
REQUEST_DURATION = Declared(
    "request_duration_seconds",
    Kind.HISTOGRAM,
    "From a request's header to the last byte of its answer; a slow client and a wait for upstream count.",
    ("operation",),
)
LOOKUPS = Declared(
    "lookups_total",
    Kind.COUNTER,
    "Manifests and blobs that were looked up: hit (held, upstream may have confirmed it), miss (upstream was needed, "
    "with or without success), collapsed (another request was fetching it already), stale (held, and upstream failed), "
    "negative (upstream said a moment ago that it does not exist).",
    ("upstream", "result"),
    RESULTS_OF_LOOKUPS,
)
SENT_BYTES = Declared(
    "sent_bytes_total", Kind.COUNTER, "Bytes of bodies that clients were sent, without headers.", ("upstream",)
)
UPSTREAM_REQUESTS = Declared(
    "upstream_requests_total",
    Kind.COUNTER,
    "Questions put to an endpoint, redirects and logins included in each: success, not_found, denied, invalid, "
    "refused (what was pushed), unavailable, timeout, abandoned (nobody needed the answer any more); cut, beside its "
    "success, for a blob whose body ended early. The operation push is each request of a push that goes on upstream.",
    ("upstream", "endpoint", "operation", "result"),
)
UPSTREAM_BYTES = Declared(
    "upstream_bytes_total", Kind.COUNTER, "Bytes of manifests and blobs that came from upstream.", ("upstream",)
)
UPSTREAM_DURATION = Declared(
    "upstream_request_duration_seconds",
    Kind.HISTOGRAM,
    "From a question to its answer or its failure, redirects and logins included; of a blob to its header. Those that "
    "nobody needed any more are left out.",
    ("upstream",),
)
UPSTREAM_HEALTHY = Declared(
    "upstream_healthy",
    Kind.GAUGE,
    "1 for an endpoint that is asked; 0 for one that is left alone, because it failed time and again and no request "
    "has found it well since, or because it asked for that.",
    ("upstream", "endpoint"),
)
UPSTREAM_RATE_LIMIT = Declared(
    "upstream_ratelimit_remaining",
    Kind.GAUGE,
    "The part of the rate limit that is left, from 0 to 1, as the last answers said; of several endpoints the least. "
    "Nothing for an upstream that names no limit, or has not lately.",
    ("upstream",),
)
FILLS_IN_FLIGHT = Declared("fills_in_flight", Kind.GAUGE, "Blobs that are being downloaded.")
FILL_WAITERS = Declared(
    "fill_waiters", Kind.GAUGE, "Requests that wait for a blob on its way here, or read from it as it comes."
)
FILLS = Declared(
    "fills_total",
    Kind.COUNTER,
    "Downloads of blobs that ended: success, resumed (a success that went on from bytes of an earlier try), taken_over "
    "(a success that went on where a worker had died), download_failure; manifest_failure for a manifest that could "
    "not be had, though upstream did not say that it does not exist; digest_mismatch each time that wrong bytes came, "
    "even where another try then had the right ones.",
    ("upstream", "result"),
    RESULTS_OF_FILLS,
)
CACHE_BLOBS = Declared("cache_blobs", Kind.GAUGE, "Blobs and manifests that are held on this disk.")
CACHE_BYTES = Declared("cache_bytes", Kind.GAUGE, "Bytes of blobs and manifests that are held on this disk.")
CACHE_LIMIT = Declared(
    "cache_limit_bytes",
    Kind.GAUGE,
    "Bytes that the mirror may take on its disk: cache.max_size, or what it takes and what is free, if that is less.",
)
EVICTIONS = Declared("evictions_total", Kind.COUNTER, "Blobs and manifests that were evicted.")
EVICTION_SHORT = Declared(
    "eviction_short_bytes",
    Kind.GAUGE,
    "While eviction cannot free what it has to: bytes that may not go, for they are hosted, pinned, on their way "
    "here (in_flight), or came less than a minute ago (young). 0 otherwise.",
    ("reason",),
    REASONS_TO_STAY,
)
METADATA_UP = Declared("metadata_up", Kind.GAUGE, "Whether the store answers (1), or not (0).", ("store",))
WASM_CHECKS = Declared(
    "wasm_checks_total",
    Kind.COUNTER,
    "Artifacts that came from upstream, by what agents would do with them; not_wasm: an image without any module.",
    ("verdict",),
    VERDICTS,
)
PUSHES = Declared(
    "pushes_total",
    Kind.COUNTER,
    "Manifests that were pushed, to hosted repositories or through to upstreams: success, warned (taken in, and agents "
    "will refuse it), refused (what it is, what it names, or who pushes it), failed, cut (the client left).",
    ("repository_kind", "result"),
    RESULTS_OF_PUSHES,
)
SCRUBBED = Declared(
    "scrubbed_blobs_total",
    Kind.COUNTER,
    "Blobs on the disk that were read again: sound, damaged (taken out of service), unreadable (left as it is, for the "
    "disk does not say what is wrong). Of the damaged ones: restored (had again), lost (nobody gave it when it was "
    "found; a later try may).",
    ("result",),
    RESULTS_OF_SCRUBS,
)
PREWARMED = Declared(
    "prewarm_total",
    Kind.COUNTER,
    "References that were warmed here, for a job of this replica or of another one, or for prewarm.references: held "
    "(all of it was here), fetched, refused (it is here, and agents will not take it), failed.",
    ("result",),
    RESULTS_OF_WARMING,
)
BUILD_INFO = Declared("build_info", Kind.GAUGE, "Always 1; the release is in the label.", ("version",))

DECLARED = (
    *(REQUESTS, REQUEST_DURATION, LOOKUPS, SENT_BYTES),
    *(UPSTREAM_REQUESTS, UPSTREAM_BYTES, UPSTREAM_DURATION, UPSTREAM_HEALTHY, UPSTREAM_RATE_LIMIT),
    *(FILLS_IN_FLIGHT, FILL_WAITERS, FILLS),
    *(CACHE_BLOBS, CACHE_BYTES, CACHE_LIMIT, EVICTIONS, EVICTION_SHORT),
    *(METADATA_UP, WASM_CHECKS, PUSHES, SCRUBBED, PREWARMED, BUILD_INFO),
)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 30.0)
"""Upper bounds in seconds. An agent has 30 s for a pull; a request for a blob is held for 25 s, for a manifest 10 s."""


class Counts(dict[Labels, int]):
    """A counter's numbers by labels; those that were never counted are 0."""

    def __missing__(self, labels: Labels) -> int:
        return 0


Answer = tuple[str, int | str, str | None, str | None]
"""An answer as it is counted: operation, status, and where there are any upstream and result of the lookup."""

LOOKED_UP = frozenset({"manifests", "blobs", "modules"})
"""The operations that look content up; the others ask upstream every time."""

_FAILURES = ("403", "404", "500", "502", "503", "504", "cut")
"""What becomes of requests for content that fail."""

_BYTES, _SECONDS, _BUCKETS = 0, 1, 2

SORTED_AT_ONCE = 64
"""Requests that are sorted together, so that each of them costs little more than a line in a list."""


class Answers:
    """Requests by their answers. Each is noted as it ends, and sorted later, with others.

    ``noted`` takes what `Answer` is made of, then the seconds that the request took and the bytes of the body; who has
    noted `SORTED_AT_ONCE` calls `sort`. A row for each kind of answer has all the numbers: bytes, seconds; how many
    requests fell into each bucket, and into none.
    """

    def __init__(self) -> None:
        self.noted: list[tuple[str, int | str, str | None, str | None, float, int]] = []
        self._rows: dict[Answer, list[float]] = {}

    def sort(self) -> None:
        """Take up what was noted."""
        rows = self._rows
        for operation, status, upstream, lookup, seconds, size in self.noted:
            answer = operation, status, upstream, lookup
            row = rows.get(answer)
            if row is None:
                row = rows[answer] = [0] * (_BUCKETS + len(BUCKETS) + 1)
            row[_BYTES] += size
            row[_SECONDS] += seconds
            row[_BUCKETS + bisect_left(BUCKETS, seconds)] += 1
        self.noted.clear()

    def told(self) -> Snapshot:
        """The metrics that are made of it."""
        self.sort()
        found: list[Snapshot] = []
        for (operation, status, upstream, lookup), row in self._rows.items():
            count = (sum(row[_BUCKETS:]),)
            found.append({REQUESTS.name: {(operation, str(status)): count}})
            found.append({REQUEST_DURATION.name: {(operation,): (*row[_BUCKETS:], row[_SECONDS])}})
            if upstream is not None:
                found.append({SENT_BYTES.name: {(upstream,): (row[_BYTES],)}})
                if lookup is not None and operation in LOOKED_UP:
                    found.append({LOOKUPS.name: {(upstream, lookup): count}})
        return total(found)


class Durations(dict[tuple[str, ...], list[float]]):
    """A histogram's numbers by labels: how many fell into each bucket, and into none, then the sum of their seconds."""

    def add_nothing(self, labels: tuple[str, ...]) -> None:
        """Begin at 0."""
        self[labels] = [0] * (len(BUCKETS) + 2)

    def add(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count what took so long."""
        if labels not in self:
            self.add_nothing(labels)
        row = self[labels]
        row[bisect_left(BUCKETS, seconds)] += 1
        row[-1] += seconds


class Metrics:
    """The numbers of this worker. For its loop alone.

    ``gauges`` are read when somebody asks; those of several workers are added up. ``alike`` tells what all of them see
    alike. ``upstreams`` are the names of those in the settings. What may fail begins at 0, so that the first failure is
    an increase, as Prometheus sees it.
    """

    def __init__(self, upstreams: Collection[str] = ()) -> None:
        self.answers = Answers()
        self.upstream_requests = Counts()
        self.upstream_bytes = Counts()
        self.upstream_seconds = Durations()
        self.fills = Counts()
        self.wasm_checks = Counts()
        self.pushes = Counts()
        self.scrubbed = Counts()
        self.prewarmed = Counts()
        self.evictions = Counts({(): 0})
        self.eviction_short = Counts()
        self.gauges: dict[str, Callable[[], int]] = {}
        self.alike: list[Callable[[], Snapshot]] = []
        self._counts = {
            UPSTREAM_REQUESTS.name: self.upstream_requests,
            UPSTREAM_BYTES.name: self.upstream_bytes,
            FILLS.name: self.fills,
            WASM_CHECKS.name: self.wasm_checks,
            PUSHES.name: self.pushes,
            EVICTIONS.name: self.evictions,
            SCRUBBED.name: self.scrubbed,
            PREWARMED.name: self.prewarmed,
        }
        for upstream in upstreams:
            self.fills.update({(upstream, result): 0 for result in RESULTS_OF_FILLS})
            self.upstream_bytes[(upstream,)] = 0
            self.upstream_seconds.add_nothing((upstream,))
        self.wasm_checks.update({(verdict,): 0 for verdict in VERDICTS})
        self.pushes.update({(kind, result): 0 for kind in KINDS_OF_REPOSITORIES for result in RESULTS_OF_PUSHES})
        self.scrubbed.update({(result,): 0 for result in RESULTS_OF_SCRUBS})
        self.prewarmed.update({(result,): 0 for result in RESULTS_OF_WARMING})
        self._zeros: Snapshot = {
            REQUESTS.name: {(operation, status): (0,) for operation in LOOKED_UP for status in _FAILURES},
            LOOKUPS.name: {(upstream, result): (0,) for upstream in upstreams for result in RESULTS_OF_LOOKUPS},
            SENT_BYTES.name: {(upstream,): (0,) for upstream in upstreams},
        }

    def knows_endpoint(self, upstream: str, endpoint: str) -> None:
        """Begin at 0 for what may fail there."""
        for operation in ("get_blob", "get_manifest", "head_manifest"):
            for result in FAILED_QUESTIONS:
                self.upstream_requests[upstream, endpoint, operation, result] = 0

    def counted(self) -> Snapshot:
        """What only ever grows: counters and histograms."""
        counts = {
            name: {tuple(map(str, labels)): (number,) for labels, number in counts.items()}
            for name, counts in self._counts.items()
        }
        seconds = {labels: tuple(row) for labels, row in self.upstream_seconds.items()}
        return total([self._zeros, self.answers.told(), counts, {UPSTREAM_DURATION.name: seconds}])

    def measured(self) -> Snapshot:
        """The gauges, as they are now."""
        short: dict[tuple[str, ...], tuple[float, ...]]
        short = {(reason,): (self.eviction_short[(reason,)],) for reason in REASONS_TO_STAY}
        return {EVICTION_SHORT.name: short, **{name: {(): (gauge(),)} for name, gauge in self.gauges.items()}}


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Several workers' numbers as one."""
    found: dict[str, dict[tuple[str, ...], tuple[float, ...]]] = {}
    for snapshot in snapshots:
        for name, numbers in snapshot.items():
            into = found.setdefault(name, {})
            for labels, row in numbers.items():
                before = into.get(labels)
                into[labels] = row if before is None else tuple(map(sum, zip(before, row, strict=True)))
    return found

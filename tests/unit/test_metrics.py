"""Numbers of several workers are one mirror's: they add up, never go down, and outlive the worker that counted them."""

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from mirror import exposition
from mirror.digest import Digest
from mirror.edge.account import LOOKUP, OPERATION, UPSTREAM, settle
from mirror.errors import StoreError
from mirror.exposition import Exposition
from mirror.metrics import (
    BUCKETS,
    DECLARED,
    FILLS_IN_FLIGHT,
    LOOKUPS,
    SENT_BYTES,
    SORTED_AT_ONCE,
    UPSTREAM_HEALTHY,
    Kind,
    Metrics,
    Snapshot,
    total,
)
from mirror.store.blobs import BlobStore
from mirror.store.census import Census
from mirror.store.directory import DataDirectory
from mirror.store.tallies import Tally, forget_tallies
from tests.support.scrape import Scrape
from tests.support.tools import require
from tests.support.waiting import eventually


class Worker:
    """A worker's numbers, as `mirror.wiring` puts them together; without ``alone`` it has a slot among others."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        directory = DataDirectory.attach(folder)
        directory.blobs.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics(["ghcr.io"])
        self.flying = 0
        self.metrics.gauges[FILLS_IN_FLIGHT.name] = lambda: self.flying
        self.tally = None if alone else Tally(directory.tallies)
        self.up = True
        self.exposition = Exposition(
            self.metrics, Census(directory), {"sqlite": self._answers}, self.tally, max_size=1 << 30
        )

    async def _answers(self) -> bool:
        if not self.up:
            raise StoreError("the disk is gone")
        return True

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            self.metrics.answers.noted.append(("manifests", 200, "ghcr.io", "hit", 0.002, 500))

    async def scrape(self) -> Scrape:
        return Scrape.of(await self.exposition.text())

    def die(self) -> None:
        """As a killed process does: the kernel takes its lock back."""
        assert self.tally is not None
        self.tally.close()


def requests(scraped: Scrape) -> float:
    return scraped.sum("requests_total", operation="manifests", status="200")


async def test_an_answer_is_counted_in_all_that_it_says(tmp_path: Path) -> None:
    one = Worker(tmp_path, alone=True)
    one.answer(3)
    one.metrics.answers.noted.append(("blobs", "cut", "ghcr.io", "miss", 3.0, 70))
    one.metrics.answers.noted.append(("tags", 503, "ghcr.io", "miss", 60.0, 10))
    one.metrics.answers.noted.append(("base", 200, None, None, 0.0, 2))
    told = await one.scrape()
    assert told.by("operation", "requests_total") == {"base": 1, "blobs": 1, "manifests": 3, "tags": 1}
    assert told.by("status", "requests_total") == {"200": 4, "503": 1, "cut": 1}
    assert told.by("result", "lookups_total") == {"hit": 3, "miss": 1}  # lists of tags are looked up every time
    assert told.sum("sent_bytes_total", upstream="ghcr.io") == 1580
    assert told.by("operation", "request_duration_seconds_count") == {"base": 1, "blobs": 1, "manifests": 3, "tags": 1}
    assert told.sum("request_duration_seconds_sum", operation="manifests") == pytest.approx(0.006)
    assert told.sum("request_duration_seconds_bucket", operation="tags", le="30.0") == 0
    assert told.sum("request_duration_seconds_bucket", operation="tags", le="+Inf") == 1


@pytest.mark.parametrize("bound", BUCKETS)
async def test_a_bucket_holds_what_took_as_long_as_its_bound_says(tmp_path: Path, bound: float) -> None:
    one = Worker(tmp_path, alone=True)
    one.metrics.answers.noted.append(("blobs", 200, None, None, bound, 0))
    one.metrics.answers.noted.append(("blobs", 200, None, None, bound * 1.001, 0))
    told = await one.scrape()
    assert told.sum("request_duration_seconds_bucket", le=str(bound)) == 1


async def test_every_metric_is_told_with_its_type_from_the_first_moment_on(tmp_path: Path) -> None:
    told = await Worker(tmp_path, alone=True).scrape()
    assert told.kinds == {one.name: one.kind.value for one in DECLARED}
    assert all(one.name.endswith("_total") == (one.kind is Kind.COUNTER) for one in DECLARED)
    assert all(one.help.endswith(".") and "\n" not in one.help for one in DECLARED)


async def test_counters_begin_at_0_so_that_the_first_event_is_an_increase(tmp_path: Path) -> None:
    told = await Worker(tmp_path, alone=True).scrape()
    for name, label in (("lookups_total", "result"), ("fills_total", "result"), ("wasm_checks_total", "verdict")):
        declared = next(one for one in DECLARED if one.name == name)
        assert {one.labels[label] for one in told.samples if one.name == name} == set(declared.values)
        assert told.sum(name) == 0
    failed = {(one.labels["operation"], one.labels["status"]) for one in told.samples if one.name == "requests_total"}
    assert {
        (operation, status) for operation in ("manifests", "blobs", "modules") for status in ("503", "cut")
    } <= failed


async def test_any_worker_tells_the_numbers_of_all(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    first.answer(3)
    second.answer(4)
    first.metrics.fills["ghcr.io", "success"] += 1
    first.flying, second.flying = 2, 1
    await first.exposition.text()
    await second.exposition.text()
    for one in (first, second):
        told = await one.scrape()
        assert requests(told) == 7
        assert told.sum("fills_total", result="success") == 1
        assert told.sum("fills_in_flight") == 3
        assert told.sum("request_duration_seconds_count") == 7
        assert told.sum("build_info") == 1
        assert told.sum("metadata_up") == 1


async def test_what_all_workers_see_alike_is_told_once(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    for one in (first, second):
        one.metrics.alike.append(lambda: {UPSTREAM_HEALTHY.name: {("ghcr.io", "ghcr.io"): (1.0,)}})
        one.metrics.upstream_seconds.add(("ghcr.io",), 0.3)
        await one.exposition.text()
    told = await first.scrape()
    assert told.sum("upstream_healthy") == 1
    assert told.sum("upstream_request_duration_seconds_count", upstream="ghcr.io") == 2
    assert told.sum("upstream_request_duration_seconds_bucket", upstream="ghcr.io", le="0.25") == 0


@pytest.mark.parametrize("times", [1, SORTED_AT_ONCE - 1, SORTED_AT_ONCE, SORTED_AT_ONCE + 1, 1000])
async def test_no_request_is_lost_or_counted_twice_when_they_are_sorted(tmp_path: Path, times: int) -> None:
    one = Worker(tmp_path, alone=True)
    scope = {"path": "/v2/", OPERATION: "manifests", UPSTREAM: "ghcr.io", LOOKUP: "hit"}
    for _ in range(2):
        for _ in range(times):
            settle(one.metrics, scope, time.perf_counter(), 200, 500, True)
        assert len(one.metrics.answers.noted) < SORTED_AT_ONCE
        told = await one.scrape()
    assert requests(told) == 2 * times
    assert told.sum("lookups_total", upstream="ghcr.io", result="hit") == 2 * times
    assert told.sum("sent_bytes_total", upstream="ghcr.io") == 2 * times * 500
    assert told.sum("request_duration_seconds_count", operation="manifests") == 2 * times


def checked(told: bytes) -> "subprocess.CompletedProcess[bytes]":
    """What promtool says of an exposition."""
    return subprocess.run([require("promtool"), "check", "metrics"], input=told, capture_output=True, timeout=60)


@pytest.mark.needs("promtool")
async def test_prometheus_finds_no_fault_with_what_is_told(tmp_path: Path) -> None:
    one = Worker(tmp_path, alone=True)
    one.answer(3)
    one.metrics.upstream_seconds.add(("ghcr.io",), 0.3)
    told = await one.exposition.text()
    done = await asyncio.to_thread(checked, told)
    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_worker_that_dies_leaves_what_it_counted_and_not_what_it_was_doing(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    first.answer(3)
    second.answer(4)
    second.flying = 5
    assert requests(await second.scrape()) == 4 + 0
    second.die()
    told = await first.scrape()
    assert requests(told) == 7
    assert told.sum("fills_in_flight") == 0


async def test_who_takes_the_place_of_a_dead_worker_goes_on_from_its_numbers(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    for generation in range(4):
        second = Worker(tmp_path)
        second.answer(10)
        assert requests(await second.scrape()) == 10 * (generation + 1)
        assert requests(await first.scrape()) == 10 * (generation + 1)
        second.die()
    assert len(list((tmp_path / "tallies").glob("*.json"))) == 2


async def test_what_a_worker_has_told_never_goes_down_however_it_dies(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    second.answer(4)
    told = requests(await second.scrape())
    second.answer(1)  # told nobody
    second.die()
    assert requests(await first.scrape()) == told == 4


async def test_a_worker_that_stops_in_order_tells_its_last_numbers(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    second.answer(4)
    second.flying = 1
    await second.exposition.aclose()
    told = await first.scrape()
    assert requests(told) == 4
    assert told.sum("fills_in_flight") == 0


async def test_numbers_are_told_to_the_others_without_anyone_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "_WRITE_EVERY", 0.01)
    first, second = Worker(tmp_path), Worker(tmp_path)
    running = asyncio.create_task(second.exposition.run())
    for answered in (4, 8):
        second.answer(4)

        async def told(expected: int = answered) -> bool:
            return requests(await first.scrape()) == expected

        found: bool = await eventually(told, what=f"{answered} are told")
        assert found
    running.cancel()


async def test_a_new_run_begins_at_0(tmp_path: Path) -> None:
    first = Worker(tmp_path)
    first.answer(3)
    await first.exposition.aclose()
    forget_tallies(tmp_path / "tallies")
    assert requests(await Worker(tmp_path).scrape()) == 0
    forget_tallies(tmp_path / "absent")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"counted": 1}', b'{"counted": {"requests_total": [1]}}', b"\xff"]
)
async def test_a_damaged_file_of_numbers_costs_these_numbers_only(tmp_path: Path, content: bytes) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    first.answer(3)
    await second.exposition.text()
    (tmp_path / "tallies" / "1.json").write_bytes(content)
    assert requests(await first.scrape()) == 3
    second.die()
    assert requests(await Worker(tmp_path).scrape()) == 3


async def test_a_disk_that_fails_costs_the_view_of_the_others_only(tmp_path: Path) -> None:
    (tmp_path / "tallies").write_text("no folder")
    one = Worker(tmp_path)
    one.answer(3)
    assert requests(await one.scrape()) == 3
    await one.exposition.aclose()


async def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    one = Worker(tmp_path)
    one.answer()
    await one.exposition.text()
    before = (tmp_path / "tallies" / "0.json").stat()
    await one.exposition.text()
    assert (tmp_path / "tallies" / "0.json").stat().st_ino == before.st_ino
    one.answer()
    await one.exposition.text()
    assert (tmp_path / "tallies" / "0.json").stat().st_ino != before.st_ino


async def test_a_store_that_fails_is_down(tmp_path: Path) -> None:
    one = Worker(tmp_path, alone=True)
    assert (await one.scrape()).sum("metadata_up", store="sqlite") == 1
    one.up = False
    told = await one.scrape()
    assert told.sum("metadata_up", store="sqlite") == 0
    assert "metadata_up" in told.kinds


async def test_what_the_disk_holds_is_counted_by_itself_and_seldom(tmp_path: Path) -> None:
    one = Worker(tmp_path, alone=True)
    store = BlobStore(DataDirectory.open(tmp_path))
    store.put(Digest.of(b"abc"), b"abc")
    store.put(Digest.of(b"defgh"), b"defgh")
    for _ in range(2):
        told = await one.scrape()
        assert (told.sum("cache_blobs"), told.sum("cache_bytes")) == (2, 8)
        store.put(Digest.of(b"later"), b"later")


async def test_many_who_ask_at_once_get_the_same_numbers(tmp_path: Path) -> None:
    first, second = Worker(tmp_path), Worker(tmp_path)
    first.answer(2)
    second.answer(3)
    await second.exposition.text()
    told = await asyncio.gather(*(first.scrape() for _ in range(10)))
    assert [requests(one) for one in told] == [5] * 10


def test_numbers_are_added_label_by_label() -> None:
    one: Snapshot = {LOOKUPS.name: {("a", "hit"): (1.0,), ("a", "miss"): (2.0,)}}
    other: Snapshot = {LOOKUPS.name: {("a", "hit"): (4.0,), ("b", "hit"): (8.0,)}, "x": {(): (1.0, 2.0)}}
    assert total([one, other, {}]) == {
        LOOKUPS.name: {("a", "hit"): (5.0,), ("a", "miss"): (2.0,), ("b", "hit"): (8.0,)},
        "x": {(): (1.0, 2.0)},
    }
    assert total([other, other])["x"] == {(): (2.0, 4.0)}


async def test_the_numbers_of_each_worker_are_told_apart_and_whoever_takes_its_place_goes_on_under_its_name(
    tmp_path: Path,
) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path)
    one.answer(3)
    other.answer(4)
    await other.exposition.counted()
    assert await sent(one) == {"0": 1500, "1": 2000}
    await one.exposition.counted()
    one.die()
    third = Worker(tmp_path)
    third.answer()
    assert await sent(third) == {"0": 2000, "1": 2000}
    other.die()
    assert await sent(third) == {"0": 2000, "1": 2000}


async def test_a_worker_alone_tells_its_own(tmp_path: Path) -> None:
    one = Worker(tmp_path, alone=True)
    one.answer(3)
    assert list((await sent(one)).values()) == [1500]


async def test_what_all_count_and_measure_is_told_together_but_nothing_that_a_dead_one_measured(tmp_path: Path) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path)
    one.flying, other.flying = 2, 3
    other.answer(4)
    await other.exposition.counted()
    numbers = await one.exposition.numbers()
    assert numbers[FILLS_IN_FLIGHT.name] == {(): (5,)}
    assert numbers[SENT_BYTES.name] == {("ghcr.io",): (2000,)}
    other.die()
    numbers = await one.exposition.numbers()
    assert (numbers[FILLS_IN_FLIGHT.name], numbers[SENT_BYTES.name]) == ({(): (2,)}, {("ghcr.io",): (2000,)})


async def sent(worker: Worker) -> dict[str, float]:
    """The bytes that each worker has sent, as one of them tells it."""
    told = await worker.exposition.by_worker()
    return {name: sum(number for (number,) in numbers[SENT_BYTES.name].values()) for name, numbers in told.items()}

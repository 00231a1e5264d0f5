"""What came in each step of the last hour, whatever becomes of the workers that count it."""

import json

import pytest

from mirror.metrics import Metrics
from mirror.steps import MOST, STEP, Counts, Past, Step, counts_of, grown

BEGAN = 1_700_000_000.0


def hits(number: int) -> Counts:
    """So many hits, with a byte each."""
    return Counts(hit=number, requests=number, sent_bytes=number)


def told(past: Past) -> list[int]:
    """The hits of each step."""
    return [step.counts.hit for step in past.steps]


def test_a_step_has_what_came_in_it_at_all_workers_together() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(5), "1": hits(2)}, STEP, BEGAN + STEP)
    past = past.after({"0": hits(6), "1": hits(2)}, 2 * STEP, BEGAN + 2 * STEP)
    assert told(past) == [7, 1]
    assert [step.at for step in past.steps] == [BEGAN + STEP, BEGAN + 2 * STEP]
    assert past.steps[0].counts == Counts(hit=7, requests=7, sent_bytes=7)


def test_a_worker_that_begins_anew_takes_nothing_away_and_what_it_counts_since_is_told() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(1000), "1": hits(10)}, STEP, 0.0)
    past = past.after({"0": hits(3), "1": hits(11)}, 2 * STEP, 0.0)
    past = past.after({"0": hits(5), "1": hits(11)}, 3 * STEP, 0.0)
    assert told(past) == [1010, 4, 2]


def test_a_worker_that_cannot_be_seen_for_a_while_is_not_told_twice() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(1000), "1": hits(10)}, STEP, 0.0)
    past = past.after({"1": hits(11)}, 2 * STEP, 0.0)
    past = past.after({"0": hits(1007), "1": hits(11)}, 3 * STEP, 0.0)
    assert told(past) == [1010, 1, 7]


def test_one_number_that_goes_back_does_not_touch_the_others() -> None:
    before, now = Counts(hit=5, miss=5), Counts(hit=2, miss=6)
    assert grown({"0": before}, {"0": now}) == Counts(hit=2, miss=1)


def test_no_more_is_kept_than_an_hour() -> None:
    past = Past(BEGAN, 0.0)
    for number in range(1, MOST + 6):
        past = past.after({"0": hits(number)}, number * STEP, BEGAN + number * STEP)
    assert told(past) == [1] * MOST
    assert past.steps[-1].at == BEGAN + (MOST + 5) * STEP


def test_no_more_steps_are_kept_than_an_hour_has_even_if_some_were_short() -> None:
    past = Past(BEGAN, 0.0)
    for number in range(1, 2 * MOST):
        past = past.after({"0": hits(number)}, number * STEP / 2, 0.0)
    assert len(past.steps) == MOST


def test_steps_before_a_long_gap_are_forgotten_when_they_are_an_hour_old() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(1)}, STEP, 0.0).after({"0": hits(2)}, 10 * STEP, 0.0)
    past = past.after({"0": hits(4)}, (MOST + 5) * STEP, 0.0)
    assert told(past) == [1, 2]


def test_the_last_hour_has_all_its_steps_and_what_came_since() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(10)}, STEP, 0.0).after({"0": hits(12)}, 50 * STEP, 0.0)
    assert past.last_hour({"0": hits(15)}, 50 * STEP + 1).hit == 15
    assert past.last_hour({"0": hits(15)}, (MOST + 1) * STEP).hit == 5
    assert Past(BEGAN, 0.0).last_hour({"0": hits(3)}, 1.0).hit == 3
    assert Past(BEGAN, 0.0).last_hour({}, 1.0) == Counts()


def test_other_workers_read_what_one_has_written() -> None:
    past = Past(BEGAN, 0.0).after({"0": hits(10), "1": hits(1)}, STEP, BEGAN + STEP)
    read = Past.of_json(json.loads(json.dumps(past.as_json())))
    assert (read.began_at, read.looked, read.seen) == (past.began_at, past.looked, past.seen)
    assert list(read.steps) == list(past.steps)
    assert isinstance(read.steps[0], Step)


@pytest.mark.parametrize("wrong", [None, [], {}, {"began_at": 1, "looked": 2, "seen": {"0": [1]}, "steps": [[1]]}])
def test_what_another_release_has_written_is_refused(wrong: object) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        Past.of_json(wrong)


def test_requests_for_content_count_and_those_of_them_that_fail() -> None:
    metrics = Metrics(["ghcr.io"])
    for operation, status, lookup in (
        ("manifests", 200, "hit"),
        ("manifests", 404, "negative"),
        ("blobs", 200, "miss"),
        ("blobs", "cut", "collapsed"),
        ("modules", 503, "miss"),
        ("blobs", "none", "stale"),
        ("api", 500, None),
        ("base", 200, None),
    ):
        metrics.answers.noted.append((operation, status, "ghcr.io" if lookup else None, lookup, 0.1, 100))
    metrics.upstream_bytes[("ghcr.io",)] += 50
    counts = counts_of(metrics.counted())
    assert counts == Counts(
        hit=1, stale=1, collapsed=1, miss=2, negative=1, requests=6, failures=3, sent_bytes=600, upstream_bytes=50
    )

"""What other replicas say of warming is waited for while they say anything, and told when they do not."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mirror.digest import Digest
from mirror.errors import BlobUnknown, NotFound, UpstreamError, UpstreamInvalid, UpstreamUnavailable
from mirror.fellows import Fellows, of_jobs, of_portion, of_progress, of_result
from mirror.job import Outcome, Summary, Underway
from mirror.jobviews import Portion
from mirror.oci import Reference
from mirror.warming import Result, Warmed
from tests.cluster.replica import Clock

THERE = "http://10.0.0.2:8080"
PLUGIN = Reference("up", "team/plugin", tag="v1")
GOOD = Warmed(Result.FETCHED, Digest.of(b"1"), 100, 0.25, "it is what it was")
SUMMARY = Summary("1-a", "running", 1.0, None, "me", True, 2, 1, {one.value: n for n, one in enumerate(Result)})

Answer = Mapping[str, Any] | Exception


class Peers:
    """Other replicas, which answer one thing after the other; the last one again and again."""

    def __init__(self, clock: Clock, *answers: Answer, alive: Sequence[str] = (THERE,)) -> None:
        self.alive = list(alive)
        self.asked: list[str] = []
        self.clock = clock
        self.dies_after = -1
        self._answers = list(answers)

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]:
        self.asked.append(target)
        self.clock.seconds += 1.0
        self.dies_after -= 1
        if self.dies_after == 0:
            self.alive.remove(address)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.fellows._AGAIN_AFTER", 0.0)


def fellows(*answers: Answer, alive: Sequence[str] = (THERE,)) -> tuple[Fellows, Peers]:
    clock = Clock()
    peers = Peers(clock, *answers, alive=alive)
    return Fellows(peers, clock, lambda: "abcd"), peers


async def test_a_replica_is_asked_about_the_same_work_until_it_is_done() -> None:
    asking, peers = fellows(of_progress(0, None), of_progress(50, 100), of_result(GOOD))
    told: list[tuple[int, int | None]] = []
    warmed = await asking.warm(THERE, PLUGIN, ["linux/amd64", "all"], lambda *here: told.append(here))
    assert warmed == GOOD
    assert told == [(0, None), (50, 100)]
    assert len(set(peers.asked)) == 1
    query = parse_qs(urlsplit(peers.asked[0]).query)
    assert query == {"reference": [str(PLUGIN)], "platforms": ["linux/amd64,all"], "of": ["abcd"]}


async def test_a_replica_that_fails_for_a_while_is_asked_again() -> None:
    answers: list[Answer] = [UpstreamUnavailable("it refuses"), of_progress(1, 2)] * 40
    asking, _ = fellows(*answers, of_result(GOOD))
    assert (await asking.warm(THERE, PLUGIN, ["all"])).result is Result.FETCHED


@pytest.mark.parametrize("failure", [UpstreamUnavailable("it refuses"), UpstreamInvalid("it lies")])
async def test_a_replica_that_is_gone_is_named_and_not_waited_for(failure: UpstreamError) -> None:
    asking, peers = fellows(failure)
    peers.dies_after = 3
    warmed = await asking.warm(THERE, PLUGIN, ["all"])
    assert (warmed.result, len(peers.asked)) == (Result.FAILED, 3)
    assert THERE in (warmed.why or "")
    assert failure.message in (warmed.why or "")


@pytest.mark.parametrize("answer", [UpstreamUnavailable("it hangs"), {"v": 1}, {"v": 2, "state": "done"}])
async def test_a_replica_that_is_there_and_says_nothing_is_given_up(answer: Answer) -> None:
    asking, peers = fellows(answer)
    warmed = await asking.warm(THERE, PLUGIN, ["all"])
    assert warmed.result is Result.FAILED
    assert THERE in (warmed.why or "")
    assert len(peers.asked) < 30


async def test_a_replica_of_a_release_without_such_a_room_is_asked_once() -> None:
    asking, peers = fellows(BlobUnknown("nothing is there"))
    warmed = await asking.warm(THERE, PLUGIN, ["all"])
    assert (warmed.result, len(peers.asked)) == (Result.FAILED, 1)
    assert "another release" in (warmed.why or "")


async def test_jobs_come_over_as_they_are() -> None:
    outcomes = [Outcome(n, "up/a:1", Warmed(result, None, n, 0.5), None) for n, result in enumerate(Result)]
    portion = Portion(SUMMARY, outcomes, [Underway("up/a:1", THERE, 1, None)])
    asking, peers = fellows(of_portion(portion))
    assert await asking.portion(THERE, "1-a", 7, wait=True) == portion
    assert peers.asked == ["warm/jobs/1-a?after=7&wait=1&peek=0"]
    asking, _ = fellows(of_jobs([SUMMARY]), UpstreamUnavailable("gone"), {"v": 1}, alive=("a", "b", "c"))
    assert await asking.summaries() == [SUMMARY]


@pytest.mark.parametrize("answer", [{"v": 1}, {"v": 1, "job": {}, "outcomes": [], "underway": []}])
async def test_what_is_no_job_is_not_believed(answer: Mapping[str, Any]) -> None:
    asking, _ = fellows(answer)
    with pytest.raises(UpstreamInvalid):
        await asking.portion(THERE, "1-a", 0)


async def test_the_replica_whose_job_it_is_is_found_or_there_is_none() -> None:
    asking, _ = fellows(
        UpstreamUnavailable("gone"), of_portion(Portion(SUMMARY, (), ())), BlobUnknown("no"), alive=("a", "b", "c")
    )
    assert await asking.holder_of("1-a") == "b"
    asking, _ = fellows(BlobUnknown("no"), alive=("a", "b", "c"))
    with pytest.raises(NotFound, match="no job '1-a'"):
        await asking.holder_of("1-a")


async def test_a_name_that_is_no_id_reaches_no_other_address() -> None:
    asking, peers = fellows(BlobUnknown("no"))
    with pytest.raises(NotFound):
        await asking.portion(THERE, "../../blobs?x", 0)
    assert peers.asked == ["warm/jobs/..%2F..%2Fblobs%3Fx?after=0&wait=0&peek=0"]

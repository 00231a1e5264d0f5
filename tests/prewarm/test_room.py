"""What a replica does for another that asks it to warm something: the same work once, bounded, and told in time."""

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Message

from mirror.cluster.secret import Secret
from mirror.config import Settings
from mirror.digest import Digest
from mirror.edge.peerwarm import WarmRoom
from mirror.errors import NameInvalid, NotFound, Unsupported, UpstreamUnavailable
from mirror.jobs import Jobs
from mirror.names import Names
from mirror.oci import Reference
from mirror.prewarming import Prewarming
from mirror.store.jobs import JobFolder
from mirror.store.leases import Leases
from mirror.warming import Progress, Result, Warmed
from tests.cluster.replica import secret_in
from tests.edge.asgi import Sent
from tests.store.disk import data_in

ONE = {"reference": "up/team/plugin:v1", "platforms": "linux/amd64", "of": "1"}
NONCE = "0" * 32


class Warmth:
    """Warms what it is asked for when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Reference] = []
        self.at_once = 0
        self.most = 0
        self.may = asyncio.Event()

    async def here(self, reference: Reference, platforms: Collection[str], progress: Progress) -> Warmed:
        self.asked.append(reference)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        progress(5, 10)
        try:
            await self.may.wait()
        finally:
            self.at_once -= 1
        return Warmed(Result.FETCHED, Digest.of(b"1"), 10, 0.5)


class Stand:
    """A replica's room. Answers are signed with ``secret``."""

    def __init__(self, folder: Path) -> None:
        self.warmth = Warmth()
        self.secret: Secret = secret_in(folder / "secret")
        directory = data_in(folder / "data")
        jobs = Jobs(JobFolder(directory.jobs), Leases(directory.leases), cast(Any, None), lambda: "a", lambda: 1.0)
        names = Names(Settings.model_validate({"upstreams": {"up": {"endpoints": ["http://a"]}}}))
        self.room = WarmRoom(cast(Prewarming, self.warmth), jobs, names, self.secret)

    async def ask(self, path: str, query: dict[str, str] | None = None, method: str = "GET") -> dict[str, Any]:
        async def receive() -> Message:
            raise AssertionError("nothing is read")

        sent = Sent()
        scope = {"type": "http", "method": method, "path": f"/peer/v1/warm/{path}"}
        await self.room.answer(scope, receive, sent.send, query or {}, NONCE)
        assert self.secret.vouches_for(sent.headers["x-signature"], NONCE, sent.body)
        found: dict[str, Any] = json.loads(sent.body)
        return found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.edge.peerwarm._ANSWER_WITHIN", 0.02)


async def test_who_asks_again_asks_about_the_same_work_and_hears_its_result(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    answers = [await stand.ask("one", ONE) for _ in range(3)]
    assert answers == [{"v": 1, "state": "coming", "bytes": 5, "total": 10}] * 3
    stand.warmth.may.set()
    for _ in range(2):
        answer = await stand.ask("one", ONE)
        assert (answer["state"], answer["result"], answer["bytes"]) == ("done", "fetched", 10)
    assert len(stand.warmth.asked) == 1
    await stand.ask("one", {**ONE, "of": "2"})
    assert len(stand.warmth.asked) == 2
    await stand.room.aclose()


async def test_no_more_is_done_at_a_time_than_the_bound_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.edge.peerwarm._MOST", 80)
    stand = Stand(tmp_path)
    asked = [stand.ask("one", {**ONE, "of": str(n)}) for n in range(80)]
    assert {answer["state"] for answer in await asyncio.gather(*asked)} == {"coming"}
    assert stand.warmth.most == 64
    with pytest.raises(UpstreamUnavailable, match="too much"):
        await stand.ask("one", {**ONE, "of": "80"})
    await stand.room.aclose()
    assert stand.warmth.at_once == 0


async def test_what_nobody_asks_for_any_more_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.edge.peerwarm._REMEMBERED_FOR", 0.0)
    stand = Stand(tmp_path)
    await stand.ask("one", ONE)
    await stand.ask("one", {**ONE, "of": "2"})
    await asyncio.sleep(0)
    assert stand.warmth.at_once == 1
    await stand.room.aclose()


@pytest.mark.parametrize("reference", ["other/team/plugin:v1", "up/Team", ""])
async def test_what_the_settings_of_this_replica_do_not_know_has_failed_in_words(
    tmp_path: Path, reference: str
) -> None:
    answer = await Stand(tmp_path).ask("one", {**ONE, "reference": reference})
    assert (answer["state"], answer["result"]) == ("done", "failed")
    assert answer["why"]


@pytest.mark.parametrize("path", ["", "two", "jobs/1/more", "jobs/nothing/cancel", "jobs/1/cancel/now", "jobs/../x"])
async def test_there_is_nothing_else(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotFound):
        await Stand(tmp_path).ask(path, {"after": "0"})


async def test_what_is_no_number_or_no_get_is_refused(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    with pytest.raises(NameInvalid):
        await stand.ask("jobs/1", {"after": "-1"})
    with pytest.raises(Unsupported):
        await stand.ask("jobs", method="POST")
    assert await stand.ask("jobs") == {"v": 1, "jobs": []}

"""What replicas tell one another of pins: to whom, and what is believed of it."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mirror import gossip
from mirror.digest import Digest
from mirror.edge.peerpins import PinsRoom
from mirror.edge.peers import PeerApp
from mirror.errors import NotFound, NotNow, UpstreamUnavailable
from mirror.gossip import Gossip
from mirror.pinned import Book
from mirror.store.pins import Named, Pin, of_record
from tests.cluster.replica import Replica, serving
from tests.pins.book import book_in, pin
from tests.support.asking import ask
from tests.support.waiting import eventually

NAME = "up/team/plugin:1"


class Town:
    """Replicas that reach one another, but for those in ``cut``. ``asked`` are the questions of all."""

    def __init__(self) -> None:
        self.there: dict[str, Gossip] = {}
        self.cut: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, Mapping[str, Any]] = {}


class Seen:
    """The others, as one of them sees them."""

    def __init__(self, town: Town, own: str) -> None:
        self._town = town
        self._own = own

    @property
    def alive(self) -> Sequence[str]:
        return [address for address in self._town.there if address != self._own]

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]:
        self._town.asked.append((address, target))
        if {address, self._own} & self._town.cut:
            raise UpstreamUnavailable(f"{address} is away")
        if address in self._town.answers:
            return self._town.answers[address]
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
        if path == "pins/sync":
            await self._town.there[address].heard_of(query["from"][0])
            return {"v": 1}
        return self._town.there[address].document(query["have"][0], int(query["first"][0]))


class Clock:
    """What time it is, as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def replica(town: Town, folder: Path, name: str, clock: Clock) -> tuple[Book, Gossip]:
    folder = folder / name
    folder.mkdir()
    book = book_in(folder)
    town.there[name] = Gossip(book, Seen(town, name), name, clock)
    return book, town.there[name]


def names(book: Book) -> list[str]:
    return [pin.reference for pin in book.standing()]


async def test_who_changes_something_tells_all_others(tmp_path: Path) -> None:
    town, clock = Town(), Clock()
    (one, speaks), (two, _), (three, _) = (replica(town, tmp_path, name, clock) for name in "abc")
    await pin(one, NAME)
    speaks.changed()
    await eventually(lambda: names(two) == names(three) == [NAME], what="the others know")


async def test_what_nobody_could_tell_is_read_now_and_then(tmp_path: Path) -> None:
    town, clock = Town(), Clock()
    (one, speaks), (two, hears) = (replica(town, tmp_path, name, clock) for name in "ab")
    town.cut = {"b"}
    await pin(one, NAME)
    speaks.changed()
    hears.turn()
    await eventually(lambda: len(town.asked) == 2, what="both have tried")
    town.cut = set()
    hears.turn()
    assert names(two) == []
    clock.now += 10
    hears.turn()
    await eventually(lambda: names(two) == [NAME], what="it is read")
    asked = len(town.asked)
    clock.now += 10
    hears.turn()
    await eventually(lambda: len(town.asked) > asked, what="it is asked again")
    await hears.aclose()
    assert "have=&" not in town.asked[-1][1]


async def test_many_pins_come_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "PORTION", 7)
    town, clock = Town(), Clock()
    (one, _), (two, hears) = (replica(town, tmp_path, name, clock) for name in "ab")
    await one.change(lambda _: [Pin(f"up/many:{n}", 1, "anna", names=()) for n in range(30)])
    await hears.heard_of("a")
    assert names(two) == names(one)
    assert 1 < len(town.asked) <= 5


async def test_only_what_has_changed_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town, clock = Town(), Clock()
    (one, speaks), (two, hears) = (replica(town, tmp_path, name, clock) for name in "ab")
    await one.change(lambda _: [Pin(f"up/many:{n}", 1, "anna", names=()) for n in range(300)])
    told: list[int] = []

    def document(have: str, first: int) -> dict[str, object]:
        answer = real(have, first)
        assert isinstance(answer["records"], list)
        told.append(len(answer["records"]))
        return answer

    real = speaks.document
    monkeypatch.setattr(speaks, "document", document)
    await hears.heard_of("a")
    await hears.heard_of("a")
    await pin(one, NAME)
    await hears.heard_of("a")
    assert names(two) == names(one)
    assert told[:2] == [300, 0]
    assert 1 <= told[2] < 30


async def test_only_who_is_there_is_asked(tmp_path: Path) -> None:
    town = Town()
    _, hears = replica(town, tmp_path, "a", Clock())
    with pytest.raises(NotNow):
        await hears.heard_of("http://elsewhere.example")
    assert town.asked == []


RIGHT = of_record(Pin(NAME, 1, "anna", names=(Named(Digest.of(b"1"), 1.0),)))


async def test_what_makes_no_sense_does_not_keep_the_rest_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town()
    (_, _), (book, hears) = (replica(town, tmp_path, name, Clock()) for name in "ab")
    wrong = {**RIGHT, "pin": "nonsense"}
    town.answers["a"] = {"v": 1, "id": "x", "records": [wrong, {"later": 1}, RIGHT], "next": None}
    await hears.heard_of("a")
    assert names(book) == [NAME]
    assert [one.levelno for one in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"v": 1, "id": "x", "records": [1], "next": None},
        {"v": 1, "id": "x", "records": {}, "next": None},
        {"v": 1, "id": 1, "records": [], "next": None},
        {"v": 1, "id": "x", "records": [RIGHT], "next": "a"},
        {"v": 1, "id": "x", "records": [RIGHT], "next": 0},
        {"v": 1, "id": "x", "records": [RIGHT], "next": 64},
        {"v": 2, "pins": []},
    ],
)
async def test_what_is_no_answer_changes_nothing_and_is_said_once(
    tmp_path: Path, answer: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    town = Town()
    (_, _), (book, hears) = (replica(town, tmp_path, name, Clock()) for name in "ab")
    town.answers["a"] = answer
    for _ in range(2):
        await hears.heard_of("a")
    assert names(book) == []
    assert len(caplog.records) == (0 if answer.get("v") == 2 else 1)


async def test_a_replica_of_an_earlier_release_knows_no_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town()
    (_, _), (_, hears) = (replica(town, tmp_path, name, Clock()) for name in "ab")

    async def nothing(*_: object) -> Mapping[str, Any]:
        raise NotFound("there is no such room")

    monkeypatch.setattr(Seen, "document", nothing)
    await hears.heard_of("a")


async def test_who_cannot_sign_hears_nothing(tmp_path: Path) -> None:
    town = Town()
    book, speaks = replica(town, tmp_path, "a", Clock())
    await pin(book, NAME)
    place = Replica(tmp_path)
    app = PeerApp(
        place.secret, place.store, place.growing.get, place.knows, "", rooms={"pins": PinsRoom(speaks, place.secret)}
    )
    async with serving(app) as url:
        host, _, port = url.removeprefix("http://").partition(":")

        async def answer(target: str, *, signed: bool, method: str = "GET") -> tuple[int, bytes]:
            proof = [("Authorization", place.secret.sign(method, target, time.time()).header)] if signed else []
            reply = await ask((host, int(port)), target, method=method, headers=proof)
            return reply.status, reply.body

        target = "/peer/v1/pins/records?have=&first=0"
        assert (await answer(target, signed=False))[0] == 401
        status, body = await answer(target, signed=True)
        assert status == 200
        assert NAME.encode() in body
        assert (await answer("/peer/v1/pins/sync?from=http://x", signed=True))[0] == 503
        assert (await answer("/peer/v1/pins/records?have=&first=x", signed=True))[0] == 400
        assert (await answer("/peer/v1/pins/nothing", signed=True))[0] == 404
        assert (await answer(target, signed=True, method="POST"))[0] == 405
